"""Predictions, against published measurements and against each other."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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


def predicted(recipe: str | Recipe, *cards: str) -> Prediction:
    made = load(recipe) if isinstance(recipe, str) else recipe
    task = planning_task(made, [card_by_name(card, n) for n, card in enumerate(cards)])
    found = predict(task, plan(task))
    assert found is not None
    return found


def test_batches_are_faster_until_operations_are_the_limit() -> None:
    model, card = shape("Qwen/Qwen2.5-7B-Instruct"), card_by_name("A100-80GB")
    rates = [decode_rate(model, card, n, 0) for n in (1, 8, 64, 100_000, 200_000)]
    assert rates[1] == pytest.approx(8 * rates[0])
    assert rates[2] > rates[1]
    assert rates[4] == pytest.approx(rates[3], rel=0.01)


def test_a_70b_model_in_4_bits_writes_as_fast_as_was_published() -> None:
    # Red Hat's model card of DeepSeek-R1-Distill-Llama-70B in w4a16: 29.0 tokens/s on an A100.
    singles = {s.model: s.single for s in predicted("slim_moa_a100", "A100-80GB").speeds}
    assert singles["llama-3.1-70b"] == pytest.approx(29.0, rel=0.1)


def test_waking_is_bytes_over_the_link() -> None:
    # vLLM's blog on sleep mode: 61 GB onto an A100 in 2.87 s. Here: 37 GiB.
    wakes = {s.model: s.wake_s for s in predicted("slim_moa_a100", "A100-80GB").speeds}
    assert wakes["llama-3.1-70b"] == pytest.approx(2.87 * 39.8 / 61, rel=0.15)
    assert wakes["gemma-2-9b-wpo"] == 0


def test_a_state_of_fixed_size_is_read_and_written_in_each_step(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint
) -> None:
    card, times = card_by_name("A100-80GB"), []
    for state in (0, 8 * GIB):
        checkpoint = replace(make_checkpoint(4), state_bytes=state)
        task = PlanningTask(make_recipe("a", aggregator="a"), {"a": checkpoint}, [card])
        found = predict(task, plan(task))
        assert found is not None
        times.append(1 / found.speeds[0].single)
    assert card.bandwidth
    assert times[1] - times[0] == pytest.approx(2 * 8 * GIB / (speed.READS * card.bandwidth))


@pytest.mark.parametrize(
    ("engine", "settings", "cache_bytes"),
    [
        # 32 layers, and 215 tokens with 1024 keys and 1024 values each: half of 36 + 395 tokens.
        ("llamacpp", {}, 32 * 215 * 2048 * 2),
        ("llamacpp", {"kv_cache_type": "q8_0"}, 32 * 215 * 2 * 32 * 34),  # 32 values in 34 bytes
        ("llamacpp", {"kv_cache_type": {"k": "q4_0"}}, 32 * 215 * (32 * 18 + 1024 * 2)),
        ("llamacpp", {"kv_cache_type": "f32"}, 32 * 215 * 2048 * 4),
        ("vllm", {}, 32 * 215 * 2048 * 2),
        ("vllm", {"kv_cache_dtype": "fp8"}, 32 * 215 * 2048),
    ],
    ids=str,
)
def test_a_step_reads_the_cache_in_its_own_number_type(
    make_recipe: MakeRecipe,
    make_checkpoint: MakeCheckpoint,
    engine: str,
    settings: dict[str, Any],
    cache_bytes: int,
) -> None:
    card = Card("cpu", 32 * GIB, cores=4, bandwidth=2e10, flops=1e15)
    recipe = make_recipe("a", aggregator="a", engine=engine, a=settings)
    task = PlanningTask(recipe, {"a": make_checkpoint(4)}, [card])
    found = predict(task, plan(task))
    assert found is not None
    read = speed.READS_CPU * 2e10 / found.speeds[0].single
    assert read - task.checkpoints["a"].read_bytes(1) == pytest.approx(cache_bytes, rel=1e-6)


def test_a_benchmark_takes_one_turn_per_model_not_per_prompt() -> None:
    assert predicted("slim_moa_a100", "A100-80GB").swaps == 4
    assert predicted("slim_moa_a100", *["A100-80GB"] * 4).swaps == 0
    assert predicted("together_moa", "H200-141GB").swaps == 3 * 5 + 1


def test_methods_change_the_last_stage_and_no_turn() -> None:
    """The aggregator writes, picks, does both, or does nothing."""

    def by(**settings: Any) -> Prediction:
        recipe = load("slim_moa_a100")
        data = recipe.model_dump()
        return predicted(
            Recipe.model_validate(data | {"aggregator": data["aggregator"] | settings}), "A100-80GB"
        )

    merge, select, both = by(), by(method="select"), by(method="select_or_merge")
    guard, vote = by(guard=True), by(method="vote", answer="number")
    last = [each.stages_s[-1] for each in (vote, select, merge, both, guard)]
    assert last == sorted(last)
    assert last[0] == 0
    assert all(each.stages_s[:-1] == merge.stages_s[:-1] for each in (select, both, guard, vote))
    assert {each.swaps for each in (select, both, guard)} == {merge.swaps}


def test_a_place_that_sees_fewer_proposals_reads_less() -> None:
    recipe = load("together_moa").model_dump()
    sparse = [recipe["layers"][0], *({**layer, "see": 2} for layer in recipe["layers"][1:])]
    made = Recipe.model_validate(recipe | {"layers": sparse})
    dense, thin = predicted("together_moa", "H200-141GB"), predicted(made, "H200-141GB")
    assert thin.stages_s[0] == dense.stages_s[0]
    assert thin.stages_s[1] < dense.stages_s[1]


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
