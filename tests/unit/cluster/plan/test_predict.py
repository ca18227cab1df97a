"""Predictions, against published measurements and against each other."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.cards.card import GIB, Card
from cluster.cards.catalog import card_by_name
from cluster.plan import predict as module
from cluster.plan import speed
from cluster.plan.checkpoint import Checkpoint, from_shapes
from cluster.plan.planner import plan
from cluster.plan.predict import Prediction, predict
from cluster.plan.speed import decode_rate
from cluster.plan.task import PlanningTask, planning_task
from configs.load import load
from configs.schema import Recipe

MakeCheckpoint = Callable[..., Checkpoint]
MakeRecipe = Callable[..., Recipe]
LENGTHS = Path(__file__).parents[5] / "shared" / "data" / "length_stats.csv"


def shape(hub: str) -> Checkpoint:
    found = from_shapes(hub)
    assert found is not None
    return found


def predicted(recipe_name: str, *cards: str) -> Prediction:
    task = planning_task(load(recipe_name), [card_by_name(card, n) for n, card in enumerate(cards)])
    found = predict(task, plan(task))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("hub", "published"),
    # Qwen2.5's speed benchmark: vLLM, one sequence, A100-80GB. 72B: GPTQ, whose bytes are AWQ's.
    [
        ("Qwen/Qwen2.5-7B-Instruct", 84.28),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", 148.10),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", 16.47),
    ],
)
def test_one_sequence_is_within_an_eighth_of_what_was_published(hub: str, published: float) -> None:
    rate = decode_rate(shape(hub), card_by_name("A100-80GB"), 1, cache_bytes=0)
    assert rate == pytest.approx(published, rel=0.125)


def test_batches_are_faster_until_operations_are_the_limit() -> None:
    model, card = shape("Qwen/Qwen2.5-7B-Instruct"), card_by_name("A100-80GB")
    rates = [decode_rate(model, card, n, 0) for n in (1, 8, 64, 10_000, 20_000)]
    assert rates[1] == pytest.approx(8 * rates[0])
    assert rates[2] > rates[1]
    assert rates[4] == pytest.approx(rates[3])


def test_waking_is_bytes_over_the_link() -> None:
    # llm-d fast-model-actuation: 64 GiB of tensors in about 3 s. Here: 37 GiB over PCIe 4.
    wakes = {s.model: s.wake_s for s in predicted("slim_moa_a100", "A100-80GB").speeds}
    assert wakes["llama-3.1-70b"] == pytest.approx(37.04 / 64 * 3, rel=0.25)
    assert wakes["gemma-2-9b-wpo"] == 0


def test_a_benchmark_takes_one_turn_per_model_not_per_prompt() -> None:
    assert predicted("slim_moa_a100", "A100-80GB").swaps == 4
    assert predicted("slim_moa_a100", *["A100-80GB"] * 4).swaps == 0
    assert predicted("together_moa", "H200-141GB").swaps == 3 * 5 + 1


def test_more_and_faster_cards_take_less_time() -> None:
    hours = [predicted("slim_moa_a100", *["A100-80GB"] * n).hours for n in (1, 2, 4, 8)]
    assert hours == sorted(hours, reverse=True)
    assert hours[0] / hours[3] > 4
    assert predicted("slim_moa_a100", "H100-80GB").hours < hours[0]


def test_cpu_models_that_stay_loaded_wake_at_once_and_others_start_from_disk(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint
) -> None:
    recipe = make_recipe("a", aggregator="b", engine="llamacpp")
    sizes = {"a": make_checkpoint(4), "b": make_checkpoint(4)}
    waits = []
    for gib in (32, 9):
        card = Card("cpu", gib * GIB, cores=4, bandwidth=2e10, flops=2e11)
        task = PlanningTask(recipe, sizes, [card])
        found = predict(task, plan(task))
        assert found is not None
        waits.append(found.speeds[0].wake_s)
    assert waits == [0, pytest.approx(speed.LLAMACPP_START_S + 4 * GIB / speed.DISK, rel=0.01)]


def test_nothing_is_predicted_of_cards_or_models_whose_speed_is_unknown(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint
) -> None:
    card = Card("mystery", 24 * GIB, kind="gpu")
    local = PlanningTask(make_recipe("a", aggregator="a"), {"a": make_checkpoint(4)}, [card])
    remote = PlanningTask(load("remote"), {}, [])
    for task in (local, remote):
        assert predict(task, plan(task)) is None


@pytest.mark.skipif(not LENGTHS.exists(), reason="length_stats.csv is not beside the project")
def test_lengths_are_those_of_the_benchmark() -> None:
    with LENGTHS.open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    tokens = {name: int(row["t_mean"]) for name, row in rows.items()}
    single = (tokens["Qwen2-72B-Instruct"] + tokens["Meta-Llama-3.1-70B-Instruct-Turbo"]) / 2
    assert tokens["INSTRUCTION"] == module.QUESTION_TOKENS
    assert tokens["Shopee-SlimMoA-v1"] == module.ANSWER_TOKENS
    assert single == pytest.approx(module.PROPOSAL_TOKENS, abs=1)
    assert int(rows["INSTRUCTION"]["n"]) == module.PROMPTS
