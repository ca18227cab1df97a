"""Models that are larger than a card: how many GPUs they are split over, and what is refused."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cards.card import GIB, Card
from cluster.cards.catalog import card_by_name
from cluster.plan import show
from cluster.plan.card_fill import usable_bytes
from cluster.plan.checkpoint import Checkpoint, from_config, from_shapes
from cluster.plan.footprint import TENSOR_PARALLEL_BUFFERS, footprint
from cluster.plan.placement import Placement
from cluster.plan.planner import DoesNotFit, plan
from cluster.plan.predict import predict
from cluster.plan.task import PlanningTask
from cluster.plan.widths import place_on_fewest_gpus
from configs.schema import Recipe, VllmModel

MakeCard = Callable[..., Card]
MakeCheckpoint = Callable[..., Checkpoint]
MakeRecipe = Callable[..., Recipe]

AWQ_70B = from_shapes("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4")
assert AWQ_70B is not None
LLAMA_70B = replace(AWQ_70B, weight_bytes=141_107_412_992)  # total_size of its index, bf16
# config.json of Llama-3.1-405B-Instruct; its AWQ-INT4 checkpoints take about 203 GiB.
LLAMA_405B = from_config(
    {
        "num_hidden_layers": 126,
        "num_attention_heads": 128,
        "num_key_value_heads": 8,
        "hidden_size": 16384,
        "intermediate_size": 53248,
        "vocab_size": 128_256,
        "max_position_embeddings": 131_072,
    },
    weight_bytes=203 * GIB,
    lookup_bytes=2 * 128_256 * 16384,
)


def cards(name: str, count: int, **more: Any) -> list[Card]:
    return [replace(card_by_name(name, n), **more) for n in range(count)]


def alone(make_recipe: MakeRecipe, engine: str = "vllm", **more: Any) -> Recipe:
    return make_recipe("a", aggregator="a", engine=engine, **more)


def gpus(placement: Placement) -> list[tuple[int, ...]]:
    """The GPUs of each card that is used."""
    return [placed.card.indices for placed in placement.cards if placed.slots]


@pytest.mark.parametrize(
    ("checkpoint", "name", "count", "expected"),
    [
        (LLAMA_70B, "A100-80GB", 2, [(0, 1)]),
        (LLAMA_70B, "A100-80GB", 4, [(0, 1), (2, 3)]),  # two replicas
        (LLAMA_70B, "A100-40GB", 8, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        (LLAMA_70B, "B200-180GB", 2, [(0,), (1,)]),
        (LLAMA_405B, "A100-80GB", 8, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        (LLAMA_405B, "L40S", 8, [(0, 1, 2, 3, 4, 5, 6, 7)]),
    ],
)
def test_as_few_gpus_are_joined_as_it_takes(
    checkpoint: Checkpoint, name: str, count: int, expected: Any, make_recipe: MakeRecipe
) -> None:
    found = plan(PlanningTask(alone(make_recipe), {"a": checkpoint}, cards(name, count)))
    assert gpus(found) == expected


def test_weights_and_cache_are_split_and_the_runtime_is_not(make_recipe: MakeRecipe) -> None:
    model = alone(make_recipe).models["a"]
    one, four = (footprint(model, LLAMA_70B, "gpu", count) for count in (1, 4))
    assert four.kv == one.kv
    assert four.weights == pytest.approx(one.weights, rel=0.02)  # segments are rounded on each GPU
    assert four.parked - four.processes < 1.3 * (one.parked - one.processes)
    assert four.processes == 4 * one.processes
    assert four.activations == 4 * one.activations
    assert four.residue == 4 * (one.residue + TENSOR_PARALLEL_BUFFERS)


def test_heads_of_the_cache_are_copied_where_there_are_fewer_than_gpus() -> None:
    model = VllmModel.model_validate({"engine": "vllm", "weights": [{"path": "x"}]})
    few = replace(LLAMA_70B, kv_heads=2)
    assert footprint(model, few, "gpu", 8).kv == 4 * footprint(model, few, "gpu", 2).kv
    latent = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_attention_heads": 16}
    shape = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64, "vocab_size": 8}
    checkpoint = from_config(latent | shape, 1, 0)
    assert checkpoint.kv_heads == 1
    assert footprint(model, checkpoint, "gpu", 8).kv == 8 * footprint(model, checkpoint, "gpu").kv


def test_each_gpu_gets_its_part_of_vllms_settings(make_recipe: MakeRecipe) -> None:
    found = plan(PlanningTask(alone(make_recipe), {"a": LLAMA_70B}, cards("A100-80GB", 2)))
    (replica,) = found.replicas("a")
    part = usable_bytes(alone(make_recipe), card_by_name("A100-80GB"))
    assert replica.awake / 2 <= part
    asked = replica.utilization * card_by_name("A100-80GB").total_bytes
    assert (replica.weights + replica.kv) / 2 < asked <= part


def test_the_recipe_can_say_how_many(make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint) -> None:
    recipe = alone(make_recipe, cards={"tensor_parallel": 4})
    found = plan(PlanningTask(recipe, {"a": make_checkpoint(8)}, cards("A100-80GB", 6)))
    assert gpus(found) == [(0, 1, 2, 3)]
    assert [card.indices for card in found.left_out] == [(4,), (5,)]
    assert "not used, for the others are joined: A100-80GB (4), A100-80GB (5)" in show.summary(found)
    with pytest.raises(
        DoesNotFit, match="split over 4 GPUs: no node has 4 GPUs that are alike"
    ) as caught:
        plan(PlanningTask(recipe, {"a": make_checkpoint(8)}, cards("A100-80GB", 3)))
    assert len(caught.value.advice[0].cards) == 4
    one = alone(make_recipe, cards={"tensor_parallel": 1})
    with pytest.raises(DoesNotFit):
        plan(PlanningTask(one, {"a": LLAMA_70B}, cards("A100-80GB", 2)))
    machine = Card("cpu", 64 * GIB, cores=8)
    assert plan(PlanningTask(recipe, {"a": make_checkpoint(8)}, [machine])).cards[0].card == machine


def test_a_limit_of_memory_counts_for_each_gpu(make_recipe: MakeRecipe) -> None:
    recipe = alone(make_recipe, cards={"memory_bytes": 24 * GIB})
    found = plan(PlanningTask(recipe, {"a": LLAMA_70B}, cards("A100-80GB", 8)))
    assert gpus(found) == [tuple(range(8))]
    assert found.cards[0].usable_bytes == 8 * 24 * GIB


def test_heads_that_do_not_divide_are_not_split(make_recipe: MakeRecipe) -> None:
    odd = replace(LLAMA_70B, heads=28, kv_heads=4)
    assert gpus(plan(PlanningTask(alone(make_recipe), {"a": odd}, cards("A100-80GB", 8))))[0] == (0, 1)
    why = (
        "over 8 GPUs: a has 28 attention heads, 4 of keys and values, and a feed-forward width of 28672"
    )
    with pytest.raises(DoesNotFit, match=why):
        plan(PlanningTask(alone(make_recipe), {"a": odd}, cards("RTX-4090", 8)))


def test_llamacpp_is_split_by_layers_where_it_must_or_where_others_are(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint
) -> None:
    checkpoints = {"a": LLAMA_70B, "b": make_checkpoint(2)}
    settings = {"engine": "llamacpp", "weights": [{"path": "x.gguf"}]}
    recipe = make_recipe("a", aggregator="b", b=settings)
    found = plan(PlanningTask(recipe, checkpoints, cards("A100-80GB", 2)))
    assert gpus(found) == [(0, 1)]
    machine = Card("cpu", 64 * GIB, cores=8)
    assert gpus(plan(PlanningTask(recipe, checkpoints, [*cards("A100-80GB", 2), machine]))) == [
        (0, 1),
        (0,),
    ]
    assert AWQ_70B is not None
    sole, four_bits = alone(make_recipe, "llamacpp"), {"a": AWQ_70B}
    assert gpus(plan(PlanningTask(sole, four_bits, cards("A100-80GB", 2))))[0] == (0,)
    assert gpus(plan(PlanningTask(sole, four_bits, cards("RTX-4090", 2)))) == [(0, 1)]
    with pytest.raises(DoesNotFit, match=r"It fits with models\.a\.gpu_layers: 40\."):
        plan(PlanningTask(sole, four_bits, cards("RTX-4090", 1)))
    with pytest.raises(DoesNotFit) as caught:  # the others have no room in RAM
        plan(PlanningTask(sole, four_bits, cards("RTX-4090", 1, host_bytes=16 * GIB)))
    assert "gpu_layers" not in str(caught.value)


def test_a_refusal_says_how_many_cards_it_takes(make_recipe: MakeRecipe) -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan(PlanningTask(alone(make_recipe), {"a": LLAMA_405B}, cards("A100-80GB", 2)))
    message = str(caught.value)
    assert "Nor split over 2 GPUs, where the runtime counts on each: a 2" in message
    assert "; 2 x A100-80GB has 155.0 GiB." in message
    assert "It fits on 4 A100-80GB." in message
    for advice in caught.value.advice:
        assert plan(PlanningTask(alone(make_recipe), {"a": LLAMA_405B}, advice.cards))
    with pytest.raises(DoesNotFit, match="It fits on one B300-288GB"):
        plan(PlanningTask(alone(make_recipe), {"a": LLAMA_405B}, cards("L4", 1)))
    double = replace(LLAMA_405B, weight_bytes=2 * LLAMA_405B.weight_bytes)
    with pytest.raises(DoesNotFit, match="It fits on 2 B300-288GB"):
        plan(PlanningTask(alone(make_recipe), {"a": double}, cards("L4", 1)))


def test_a_joined_card_is_shown_and_its_speed_predicted(make_recipe: MakeRecipe) -> None:
    task = PlanningTask(alone(make_recipe), {"a": LLAMA_70B}, cards("A100-80GB", 2))
    found = plan(task)
    speed = predict(task, found)
    assert speed is not None
    # Red Hat's model card of DeepSeek-R1-Distill-Llama-70B: 1,024 tokens in 50.4 s on two A100s.
    assert speed.speeds[0].single == pytest.approx(1024 / 50.4, rel=0.1)
    assert "2 x A100-80GB: " in show.memory_map(found).plain
    assert "2&#160;x&#160;A100-80GB" in show.svg(found)
    (card,) = json.loads(json.dumps(show.to_json(found, speed)))["cards"]
    assert card["card"]["indices"] == [0, 1]
    assert card["slots"][0]["members"][0]["fraction"] == 2


@st.composite
def gpu_tasks(draw: st.DrawFn) -> PlanningTask:
    """One to five models of 1 to 250 GiB, on one to three nodes with one to eight GPUs of 80 GiB."""
    names = "abcde"[: draw(st.integers(1, 5))]
    residency = st.sampled_from(["auto", "resident", "turns"])
    base = {"engine": "vllm", "weights": [{"path": "x"}], "concurrency": 2, "context_tokens": 4096}
    recipe = {
        "name": "mix",
        "models": {name: base | {"residency": draw(residency)} for name in names},
        "layers": [{"proposers": [{"model": name} for name in names]}],
        "aggregator": {"model": "a"},
    }
    sizes = {n: replace(LLAMA_70B, weight_bytes=draw(st.integers(1, 250)) * GIB) for n in names}
    counts = draw(st.lists(st.integers(1, 8), min_size=1, max_size=3))
    gpu = Card(name="gpu", total_bytes=80 * GIB, kind="gpu")
    here = [
        replace(gpu, node=f"{node}", indices=(n,))
        for node, count in enumerate(counts)
        for n in range(count)
    ]
    return PlanningTask(Recipe.model_validate(recipe), sizes, here)


@settings(max_examples=75, deadline=None)
@given(gpu_tasks())
def test_every_gpu_is_part_of_one_card_or_left_out(task: PlanningTask) -> None:
    found = place_on_fewest_gpus(task)
    if found is None:
        return
    all_cards = [*(placed.card for placed in found.cards), *found.left_out]
    gpus = [(card.node, n) for card in all_cards for n in card.indices]
    assert sorted(gpus) == sorted((card.node, n) for card in task.cards for n in card.indices)


@settings(max_examples=75, deadline=None)
@given(gpu_tasks())
def test_parts_of_models_fit_their_gpus(task: PlanningTask) -> None:
    found = place_on_fewest_gpus(task)
    if found is None:
        return
    usable = usable_bytes(task.recipe, task.cards[0])
    assert len({len(placed.card.indices) for placed in found.cards}) == 1
    for placed in found.cards:
        assert placed.used_bytes <= len(placed.card.indices) * usable


@settings(max_examples=75, deadline=None)
@given(gpu_tasks(), st.integers(0, 99))
def test_ray_can_pack_the_replicas_of_a_node_in_any_order(task: PlanningTask, seed: int) -> None:
    found = place_on_fewest_gpus(task)
    if found is None:
        return
    for node in {card.node for card in task.cards}:
        replicas = [r for r in found.replicas() if found.cards[r.card].card.node == node]
        fractions = [replica.fraction for replica in replicas]
        random.Random(seed).shuffle(fractions)
        assert can_pack(fractions, sum(card.node == node for card in task.cards))


def can_pack(amounts: list[float], count: int) -> bool:
    """Whether Ray can give out these amounts of `count` GPUs, one after the other.

    Ray gives whole GPUs that are free, or a part of the fullest GPU that has room for it.
    """
    free = [1.0] * count
    for amount in amounts:
        is_whole = amount >= 1
        size = 1.0 if is_whole else amount
        fitting = sorted((n for n in range(count) if free[n] >= size - 1e-9), key=lambda n: free[n])
        need = int(amount) if is_whole else 1
        if len(fitting) < need or (is_whole and not math.isclose(amount, need)):
            return False
        for n in fitting[-need:] if is_whole else fitting[:1]:
            free[n] -= size
    return True
