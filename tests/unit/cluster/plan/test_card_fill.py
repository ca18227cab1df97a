"""What a card has for engines, what vLLM has to find free at its start, and what hosts hold."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.cards.card import GIB, Card
from cluster.cards.catalog import CARDS
from cluster.plan.card_fill import (
    CardFill,
    ReplicaToPlace,
    host_limit,
    parked_bytes,
    slot_bytes,
    usable_bytes,
)
from cluster.plan.footprint import CUDA_CONTEXT, Footprint
from cluster.plan.placement import Placement
from cluster.plan.planner import DoesNotFit, plan_recipe
from cluster.plan.task import PlanningTask, planning_task
from configs.load import load
from configs.schema import Recipe

REAL_CONTEXT = GIB // 2
"""Bytes of a bare CUDA context, which exists before vLLM looks at what is free."""
RECIPE = load("small_moa_24gb")
GPU = CARDS["RTX-4090"]


@pytest.mark.parametrize(
    ("free", "usable"),
    [
        (None, 22.9),
        (23.4, 22.9),
        (23.0, 22.5),  # the reserve is taken from what others leave
        (22.9, 22.4),
        (0.4, 0.0),
        (99.0, 22.9),  # what a driver says too much does not count
    ],
)
def test_the_reserve_is_taken_from_what_is_free(free: float | None, usable: float) -> None:
    card = replace(GPU, free_bytes=None if free is None else int(free * GIB))
    assert usable_bytes(RECIPE, card) / GIB == pytest.approx(usable, abs=1e-6)


def test_a_recipes_limit_counts_for_each_gpu_and_only_downwards() -> None:
    cards = RECIPE.cards.model_copy(update={"memory_bytes": 10 * GIB})
    limited = RECIPE.model_copy(update={"cards": cards})
    two = replace(GPU, total_bytes=2 * GPU.total_bytes, indices=(0, 1))
    assert usable_bytes(limited, two) == 20 * GIB
    assert usable_bytes(limited, replace(two, free_bytes=9 * GIB)) == 8 * GIB


def margins(placement: Placement, free: int) -> dict[str, float]:
    """By replica, the bytes that vLLM's start check finds beyond what it asks for.

    vLLM compares after its own CUDA context exists. All other slots are full then, and the other
    members of its slot sleep (vllm/v1/worker/utils.py, request_memory).
    """
    (placed,) = placement.cards
    found = {}
    for slot in placed.slots:
        for member in slot.members:
            others = sum(other.total_bytes for other in placed.slots if other is not slot)
            asleep = sum(other.residue for other in slot.members if other is not member)
            left = free - others - asleep - REAL_CONTEXT
            found[member.name] = left - member.utilization * placed.card.total_bytes
    return found


@pytest.mark.parametrize("desktop", [0.0, 0.3, 0.6, 1.0, 1.4, 4.0])
@pytest.mark.parametrize(
    ("preset", "card"),
    [("small_moa_24gb", "RTX-4090"), ("slim_moa_a100", "A100-80GB"), ("self_moa", "A100-40GB")],
)
def test_vllms_start_check_passes_beside_a_desktop(preset: str, card: str, desktop: float) -> None:
    recipe, total = load(preset), CARDS[card].total_bytes
    here = replace(CARDS[card], free_bytes=total - int(desktop * GIB))
    try:
        found = plan_recipe(recipe, [here])
    except DoesNotFit as refusal:
        changes = [advice for advice in refusal.advice if advice.changes]
        if not changes:
            return
        found = plan_recipe(changes[0].applied(recipe), [here])
    assert here.free_bytes is not None
    assert min(margins(found, here.free_bytes).values()) > 0


def test_the_cuda_context_is_no_part_of_what_vllm_asks_for() -> None:
    (placed,) = plan_recipe(RECIPE, [GPU]).cards
    for slot in placed.slots:
        for member in slot.members:
            asked = (member.awake - CUDA_CONTEXT) / placed.card.total_bytes
            assert member.utilization == pytest.approx(asked, abs=1e-4)


def test_a_card_of_several_gpus_has_a_context_on_each() -> None:
    found = plan_recipe(load("slim_moa_a100"), [replace(GPU, indices=(n,)) for n in range(8)])
    assert {len(placed.card.indices) for placed in found.cards} <= {4, 8}
    for member in found.replicas():
        card = found.cards[member.card].card
        asked = (member.awake - len(card.indices) * CUDA_CONTEXT) / card.total_bytes
        assert member.utilization == pytest.approx(asked, abs=1e-4)


def test_a_tiny_model_asks_for_a_hundredth() -> None:
    scripted: dict[str, Any] = {"engine": "scripted", "weight_bytes": 1000}
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "models": {"a": scripted},
            "layers": [{"proposers": [{"model": "a"}]}],
            "aggregator": {"model": "a"},
        }
    )
    (replica,) = plan_recipe(recipe, [replace(GPU, indices=(0,))]).replicas()
    assert replica.utilization == 0.01  # vLLM takes no 0


def llama_task(*capabilities: str | None) -> PlanningTask:
    cards = [
        replace(CARDS["A100-80GB"], capability=c, indices=(n,)) for n, c in enumerate(capabilities)
    ]
    return planning_task(load("slim_moa_a100"), cards)


def test_hopper_keeps_zero_points_of_16_bits() -> None:
    ampere, hopper = (llama_task(c).footprint("llama-3.1-70b") for c in ("8.0", "9.0"))
    linear = 80 * (2 * 8192 * 8192 + 8192 * 2048 + 3 * 8192 * 28672)
    grown = linear * (16 - 4) / 128 / 8  # 0.8 GB
    assert hopper.weights - ampere.weights == pytest.approx(grown, rel=0.03)  # whole segments
    assert hopper.parked > ampere.parked
    assert hopper.loading > ampere.loading
    bf16 = [llama_task(c).footprint("gemma-2-9b-wpo").weights for c in ("8.0", "9.0")]
    assert bf16[0] == bf16[1]


def test_cards_that_differ_or_are_unknown_count_as_those_that_need_most() -> None:
    hopper = llama_task("9.0").footprint("llama-3.1-70b")
    assert llama_task("8.0", "9.0").footprint("llama-3.1-70b") == hopper
    assert llama_task(None).footprint("llama-3.1-70b") == hopper
    assert llama_task("8.9").footprint("llama-3.1-70b") == llama_task("8.0").footprint("llama-3.1-70b")


def needs(awake: int, loading: int, parked: int = 0, processes: int = 0) -> ReplicaToPlace:
    found = Footprint(awake, 0, 1, 0, 1, loading=loading, parked=parked, processes=processes)
    return ReplicaToPlace("a", 0, 0, found, 1.0, "gpu")


def test_a_slot_holds_the_larger_of_starting_and_being_awake_beside_sleepers() -> None:
    one, two = needs(10, 15), needs(12, 8)
    assert slot_bytes([one], keeps_in_ram=False) == 15
    assert slot_bytes([two], keeps_in_ram=False) == 13  # awake: weights and residue
    assert slot_bytes([one, two], keeps_in_ram=False) == 1 + 1 + (15 - 1)


def test_a_resident_has_to_find_room_to_start() -> None:
    fill = CardFill(0, GPU, 14, keeps_in_ram=False)
    assert not fill.can_hold_resident(needs(10, 15))
    fill.usable_bytes = 15
    assert fill.can_hold_resident(needs(10, 15))
    fill.residents.append(needs(10, 15))
    assert fill.free_bytes([]) == 0


def test_engines_that_never_sleep_have_processes_in_ram() -> None:
    gpu = replace(GPU, node="n")
    sleeper, resident = needs(10, 0, parked=70, processes=5), needs(10, 0, parked=30, processes=5)
    fill = CardFill(0, gpu, 100, False, residents=[resident], turns=[sleeper, sleeper])
    assert parked_bytes([fill]) == {"n": 2 * 70 + 5}
    fill.turns.pop()
    assert parked_bytes([fill]) == {"n": 5 + 5}  # alone in its slot, it never sleeps


def test_engines_get_four_fifths_of_a_machines_ram() -> None:
    card = Card("gpu", 80 * GIB, kind="gpu", host_bytes=100 * GIB)
    assert host_limit(RECIPE, card) == 80 * GIB
