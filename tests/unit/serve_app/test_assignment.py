"""What the replicas of a model get, on nodes of the plan and on nodes that join."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from actors.engine import Share
from cluster.cards.card import GIB, Card
from cluster.cards.catalog import card_by_name
from cluster.cards.memory import CardMemory
from cluster.plan.by_node import replicas_by_node
from cluster.plan.speed import STOP_S
from cluster.residency.state import Member
from configs.errors import EngineUnavailable
from configs.load import load
from configs.schema import Recipe
from serve_app.assignment import DetectCards, ModelAssignments, keeper_slots
from tests.unit.serve_app.planned import CPU, GPU, cards_of_nodes, make_plan, make_recipe

LARGE, SMALL = card_by_name("A100-80GB"), card_by_name("RTX-4090")
PAIRS = make_recipe(
    {"a": 70, "b": 70},
    cards={"tensor_parallel": 2},
    a={"residency": "resident", "replicas": 2},
    b={"replicas": 1},
)
"""On four GPUs of 80 GB, which are two pairs: one replica of `a` on each pair."""


def assignments(recipe: Recipe, cards: Sequence[Card], model: str) -> ModelAssignments:
    placement = make_plan(recipe, cards)
    replicas = replicas_by_node(placement, model)
    assert replicas is not None
    return ModelAssignments(placement, replicas, patience_s=recipe.cards.patience_s, handover_s=50)


def detects(*cards: Card) -> DetectCards:
    """A node with these cards, whose GPUs have even numbers."""

    async def detect(node: str) -> Sequence[Card]:
        assert node == "new"
        return [replace(card, indices=(2 * n,)) for n, card in enumerate(cards)]

    return detect


async def never_detects(_node: str) -> Sequence[Card]:
    raise AssertionError


async def test_a_node_of_the_plan_has_the_assignments_that_were_planned() -> None:
    planned = assignments(PAIRS, cards_of_nodes(LARGE, 4), "a")
    found = await planned.on_node("n1", "app", never_detects)
    assert [(each.member, each.gpus) for each in found] == [("a/0", (0, 1)), ("a/1", (2, 3))]
    assert {each.claimant_id for each in found} == {None}


async def test_a_node_that_joins_has_the_same_on_its_own_gpus_joined_as_the_plan_joins_them() -> None:
    planned = assignments(PAIRS, cards_of_nodes(LARGE, 4), "a")
    found = await planned.on_node("new", "app", detects(LARGE, LARGE, LARGE, LARGE))
    assert [(each.member, each.gpus) for each in found] == [("a/0", (0, 2)), ("a/1", (4, 6))]


@pytest.mark.parametrize("cards", [(SMALL,) * 4, (LARGE,) * 2, ()])
async def test_a_node_whose_cards_hold_less_is_refused_by_name(cards: tuple[Card, ...]) -> None:
    planned = assignments(PAIRS, cards_of_nodes(LARGE, 4), "a")
    with pytest.raises(EngineUnavailable, match="that are planned for") as raised:
        await planned.on_node("new", "app", detects(*cards))
    assert "deploy with another `replan`" in raised.value.message


async def test_a_cpu_with_fewer_cores_is_refused() -> None:
    planned = assignments(make_recipe({"a": 4}), cards_of_nodes(CPU, 1), "a")
    assert await planned.on_node("new", "app", detects(CPU))
    with pytest.raises(EngineUnavailable, match="hold less"):
        await planned.on_node("new", "app", detects(replace(CPU, cores=7)))


async def test_a_replica_on_a_gpu_gets_the_gpus_of_its_card_and_their_share() -> None:
    recipe = make_recipe({"a": 12, "b": 12}, cards={"patience_s": 7})
    (found,) = await assignments(recipe, cards_of_nodes(GPU, 1), "b").on_node("n1", "x", never_detects)
    assert found.gpus == (0,)
    assert found.patience_s == 7
    assert found.share == Share(
        threads=1, on_gpu=True, utilization=0.2812, kv_cache_memory_bytes=0, gpus=1
    )


async def test_a_replica_on_gpus_waits_for_its_bytes_on_each_of_them() -> None:
    planned = assignments(load("slim_moa_a100"), cards_of_nodes(LARGE, 1), "gemma-2-9b-wpo")
    (replica,) = planned.replicas.all
    (found,) = await planned.on_node("n1", "app", never_detects)
    assert found.memory == CardMemory((0,), replica.peak, replica.awake - replica.residue)
    first, _ = await assignments(PAIRS, cards_of_nodes(LARGE, 4), "a").on_node("n1", "x", never_detects)
    assert first.memory == CardMemory((0, 1), 35 * GIB, 35 * GIB)


async def test_a_replica_on_a_cpu_waits_for_no_memory() -> None:
    planned = assignments(make_recipe({"a": 4}), cards_of_nodes(CPU, 1), "a")
    (found,) = await planned.on_node("n1", "app", never_detects)
    assert found.memory is None


async def test_the_kv_cache_of_an_engine_has_the_planned_bytes() -> None:
    planned = assignments(load("slim_moa_a100"), cards_of_nodes(LARGE, 1), "gemma-2-9b-wpo")
    (replica,) = planned.replicas.all
    (found,) = await planned.on_node("n1", "app", never_detects)
    assert found.share.kv_cache_memory_bytes == replica.kv > 0


async def test_a_replica_on_joined_gpus_is_split_over_them() -> None:
    planned = assignments(PAIRS, cards_of_nodes(LARGE, 4), "a")
    found = await planned.on_node("n1", "app", never_detects)
    assert [each.share.gpus for each in found] == [2, 2]


async def test_a_replica_on_a_cpu_gets_threads_and_no_gpu() -> None:
    planned = assignments(make_recipe({"a": 4, "b": 4}), cards_of_nodes(CPU, 1), "a")
    (found,) = await planned.on_node("n1", "app", never_detects)
    assert found.gpus is None
    assert found.share == Share(threads=8, on_gpu=False, utilization=0.1, kv_cache_memory_bytes=0)


async def test_the_gpus_of_a_replica_are_those_of_its_own_card() -> None:
    recipe = make_recipe({"a": 30, "b": 30}, a={"replicas": 1}, b={"replicas": 1})
    cards = cards_of_nodes(GPU, 2)
    (a,) = await assignments(recipe, cards, "a").on_node("n1", "app", never_detects)
    (b,) = await assignments(recipe, cards, "b").on_node("n1", "app", never_detects)
    assert (a.gpus, b.gpus) == ((0,), (1,))


def test_the_keeper_has_the_slots_of_the_plan_and_turns_in_the_order_of_the_recipe() -> None:
    recipe = make_recipe({"a": 8, "b": 30, "c": 29})
    (placed,) = make_plan(recipe, cards_of_nodes(GPU, 1)).cards
    slots = keeper_slots(placed)
    assert [slot.name for slot in slots] == [str(n) for n in range(len(placed.slots))]
    members = [[member.name for member in slot.members] for slot in placed.slots]
    assert [[member.name for member in slot.members] for slot in slots] == members
    assert {m for slot in slots for m in slot.members} == {
        Member("a/0", 0),
        Member("b/0", 1),
        Member("c/0", 2),
    }


def test_the_keeper_learns_who_is_stopped_between_turns_and_how_long_a_start_takes() -> None:
    recipe = make_recipe({"a": 30, "b": 30}, cards={"host_memory_bytes": 31 << 30})
    (placed,) = make_plan(recipe, cards_of_nodes(GPU, 1)).cards
    (planned,) = placed.slots
    slow = replace(
        placed,
        slots=(
            replace(
                planned,
                members=(
                    replace(planned.members[0], stops=True, start_s=90.0),
                    planned.members[1],
                ),
            ),
        ),
    )
    (slot,) = keeper_slots(slow)
    stopped, sleeper = slot.members
    assert (stopped.stops, stopped.start_s, stopped.stop_s) == (True, 90.0, STOP_S)
    assert (sleeper.stops, sleeper.stop_s) == (False, 0.0)
    assert not slot.keeps_loaded


@pytest.mark.parametrize(
    ("card", "weights_gib", "keeps_loaded"),
    [(GPU, 25, False), (CPU, 4, True), (CPU, 25, False)],
    ids=["GPU", "CPU", "CPU without RAM for both"],
)
def test_only_models_that_stay_in_a_cpus_ram_are_kept_loaded(
    card: Card, weights_gib: int, keeps_loaded: bool
) -> None:
    recipe = make_recipe({"a": weights_gib, "b": weights_gib})
    (placed,) = make_plan(recipe, cards_of_nodes(card, 1)).cards
    (slot,) = keeper_slots(placed)
    assert len(slot.members) == 2
    assert slot.keeps_loaded is keeps_loaded
