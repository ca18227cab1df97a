"""Models that are larger than a card: which cards are joined, what that costs, and what is refused."""

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
from cluster.cards.catalog import CARDS, card_by_name
from cluster.cards.tensor_parallel import join_cards, left_out
from cluster.plan import show
from cluster.plan.card_fill import usable_bytes
from cluster.plan.checkpoint import Checkpoint, from_config, from_shapes
from cluster.plan.footprint import SUMS, footprint
from cluster.plan.placement import Placement
from cluster.plan.planner import DoesNotFit, plan
from cluster.plan.predict import predict
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
    found = plan(alone(make_recipe), {"a": checkpoint}, cards(name, count))
    assert gpus(found) == expected


def test_a_joined_card_has_the_sums_and_says_so() -> None:
    (card,) = join_cards(cards("A100-80GB", 4, node="n", host_bytes=GIB), 4)
    one = CARDS["A100-80GB"]
    assert (card.name, card.indices, card.node, card.host_bytes) == (
        "4 x A100-80GB",
        (0, 1, 2, 3),
        "n",
        GIB,
    )
    assert one.bandwidth
    assert one.flops
    assert one.link
    assert (card.total_bytes, card.bandwidth, card.flops, card.link) == (
        4 * one.total_bytes,
        4 * one.bandwidth,
        4 * one.flops,
        4 * one.link,
    )


def test_only_what_is_alike_and_on_one_node_is_joined() -> None:
    here = [
        replace(card_by_name("A100-80GB", 0), node="n"),
        replace(card_by_name("H100-80GB", 1), node="n"),
        replace(card_by_name("A100-80GB", 2), node="n"),
        replace(card_by_name("A100-80GB", 3), node="n"),
        replace(card_by_name("H100-80GB", 0), node="m"),
        Card("cpu", GIB, node="n"),
    ]
    wide = join_cards(here, 2)
    assert [(card.node, card.name, card.indices) for card in wide] == [
        ("n", "2 x A100-80GB", (0, 2)),
        ("n", "cpu", (0,)),
    ]
    assert left_out(here, wide) == (here[1], here[3], here[4])
    assert join_cards(here, 1) == here


def test_the_fullest_gpu_is_the_limit_of_all() -> None:
    first, second = cards("A100-80GB", 2, free_bytes=70 * GIB)
    (card,) = join_cards([first, replace(second, free_bytes=20 * GIB)], 2)
    assert card.free_bytes == 40 * GIB
    (card,) = join_cards([first, replace(second, free_bytes=None)], 2)
    assert card.free_bytes is None


def test_weights_and_cache_are_split_and_the_runtime_is_not(make_recipe: MakeRecipe) -> None:
    model = alone(make_recipe).models["a"]
    one, four = (footprint(model, LLAMA_70B, "gpu", count) for count in (1, 4))
    assert (four.weights, four.kv, four.parked) == (one.weights, one.kv, one.parked)
    assert four.activations == 4 * one.activations
    assert four.residue == 4 * (one.residue + SUMS)


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
    found = plan(alone(make_recipe), {"a": LLAMA_70B}, cards("A100-80GB", 2))
    (seat,) = found.seats("a")
    part = usable_bytes(alone(make_recipe), card_by_name("A100-80GB"))
    assert seat.member.awake / 2 <= part
    asked = seat.member.utilization * card_by_name("A100-80GB").total_bytes
    assert (seat.member.weights + seat.member.kv) / 2 < asked <= part


def test_the_recipe_can_say_how_many(make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint) -> None:
    recipe = alone(make_recipe, cards={"tensor_parallel": 4})
    found = plan(recipe, {"a": make_checkpoint(8)}, cards("A100-80GB", 6))
    assert gpus(found) == [(0, 1, 2, 3)]
    assert [card.indices for card in found.left_out] == [(4,), (5,)]
    assert "not used, for the others are joined: A100-80GB (4), A100-80GB (5)" in show.summary(found)
    with pytest.raises(
        DoesNotFit, match="split over 4 GPUs: no node has 4 GPUs that are alike"
    ) as caught:
        plan(recipe, {"a": make_checkpoint(8)}, cards("A100-80GB", 3))
    assert len(caught.value.advice[0].cards) == 4
    one = alone(make_recipe, cards={"tensor_parallel": 1})
    with pytest.raises(DoesNotFit):
        plan(one, {"a": LLAMA_70B}, cards("A100-80GB", 2))
    machine = Card("cpu", 64 * GIB, cores=8)
    assert plan(recipe, {"a": make_checkpoint(8)}, [machine]).cards[0].card == machine


def test_a_limit_of_memory_counts_for_each_gpu(make_recipe: MakeRecipe) -> None:
    recipe = alone(make_recipe, cards={"memory_bytes": 24 * GIB})
    found = plan(recipe, {"a": LLAMA_70B}, cards("A100-80GB", 8))
    assert gpus(found) == [tuple(range(8))]
    assert found.cards[0].usable_bytes == 8 * 24 * GIB


def test_heads_that_do_not_divide_are_not_split(make_recipe: MakeRecipe) -> None:
    odd = replace(LLAMA_70B, heads=28, kv_heads=4)
    assert gpus(plan(alone(make_recipe), {"a": odd}, cards("A100-80GB", 8)))[0] == (0, 1)
    why = (
        "over 8 GPUs: a has 28 attention heads, 4 of keys and values, and a feed-forward width of 28672"
    )
    with pytest.raises(DoesNotFit, match=why):
        plan(alone(make_recipe), {"a": odd}, cards("RTX-4090", 8))


def test_llamacpp_is_not_split_but_may_be_on_the_cpu_beside(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint
) -> None:
    checkpoints = {"a": LLAMA_70B, "b": make_checkpoint(2)}
    settings = {"engine": "llamacpp", "weights": [{"path": "x.gguf"}]}
    recipe = make_recipe("a", aggregator="b", b=settings)
    with pytest.raises(DoesNotFit, match=r"b is run by llama\.cpp, which is not split here"):
        plan(recipe, checkpoints, cards("A100-80GB", 2))
    machine = Card("cpu", 64 * GIB, cores=8)
    assert gpus(plan(recipe, checkpoints, [*cards("A100-80GB", 2), machine])) == [(0, 1), (0,)]


def test_a_refusal_says_how_many_cards_it_takes(make_recipe: MakeRecipe) -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan(alone(make_recipe), {"a": LLAMA_405B}, cards("A100-80GB", 2))
    message = str(caught.value)
    assert "Nor split over 2 GPUs, where the runtime counts on each: a 2" in message
    assert "; 2 x A100-80GB has 155.0 GiB." in message
    assert "It fits on 4 A100-80GB." in message
    (advice,) = caught.value.advice
    assert plan(alone(make_recipe), {"a": LLAMA_405B}, advice.cards)
    with pytest.raises(DoesNotFit, match="It fits on 2 H200-141GB"):
        plan(alone(make_recipe), {"a": LLAMA_405B}, cards("L4", 1))


def test_a_joined_card_is_shown_and_its_speed_predicted(make_recipe: MakeRecipe) -> None:
    recipe = alone(make_recipe)
    found = plan(recipe, {"a": LLAMA_70B}, cards("A100-80GB", 2))
    speed = predict(recipe, {"a": LLAMA_70B}, found)
    assert speed is not None
    assert speed.speeds[0].single == pytest.approx(2 * 2039e9 * 0.6 / LLAMA_70B.weight_bytes, rel=0.05)
    assert "2 x A100-80GB: " in show.memory_map(found).plain
    assert "2 x A100-80GB" in show.svg(found)
    (card,) = json.loads(json.dumps(show.to_json(found, speed)))["cards"]
    assert card["card"]["indices"] == [0, 1]
    assert card["slots"][0]["members"][0]["fraction"] == 2


@settings(max_examples=150, deadline=None)
@given(
    weights=st.lists(st.integers(1, 250), min_size=1, max_size=5),
    nodes=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    residency=st.lists(st.sampled_from(["auto", "resident", "turns"]), min_size=5, max_size=5),
    seed=st.integers(0, 99),
)
def test_parts_fit_their_gpus_and_ray_can_pack_them_in_any_order(
    weights: list[int],
    nodes: list[int],
    residency: list[str],
    seed: int,
    make_recipe: MakeRecipe,
    make_card: MakeCard,
) -> None:
    names = "abcde"[: len(weights)]
    wants = {name: {"residency": how} for name, how in zip(names, residency, strict=False)}
    recipe = make_recipe(*names, aggregator="a", **wants)
    checkpoints = {
        n: replace(LLAMA_70B, weight_bytes=w * GIB) for n, w in zip(names, weights, strict=True)
    }
    here = [
        make_card(80, node=f"{k}", indices=(n,)) for k, count in enumerate(nodes) for n in range(count)
    ]
    try:
        found = plan(recipe, checkpoints, here)
    except DoesNotFit:
        return
    taken = [(p.card.node, n) for p in found.cards for n in p.card.indices]
    taken += [(card.node, n) for card in found.left_out for n in card.indices]
    assert sorted(taken) == sorted((card.node, n) for card in here for n in card.indices)
    width = max(len(placed.card.indices) for placed in found.cards)
    for placed in found.cards:
        part = usable_bytes(recipe, make_card(80))
        assert placed.used_bytes <= len(placed.card.indices) * part
        assert len(placed.card.indices) == width
    for node in {placed.card.node for placed in found.cards}:
        used = [placed for placed in found.cards if placed.card.node == node]
        wanted = [m.fraction for p in used for s in p.slots for m in s.members]
        random.Random(seed).shuffle(wanted)
        assert packs(wanted, sum(card.node == node for card in here))


def packs(wanted: list[float], count: int) -> bool:
    """Whether Ray finds room for all on so many GPUs: whole ones, or a part of the fullest."""
    free = [1.0] * count
    for amount in wanted:
        whole = amount >= 1
        size = 1.0 if whole else amount
        fitting = sorted((n for n in range(count) if free[n] >= size - 1e-9), key=lambda n: free[n])
        need = int(amount) if whole else 1
        if len(fitting) < need or (whole and not math.isclose(amount, need)):
            return False
        for n in fitting[-need:] if whole else fitting[:1]:
            free[n] -= size
    return True
