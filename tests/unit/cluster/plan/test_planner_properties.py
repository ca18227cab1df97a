"""What holds of every plan, over recipes, sizes and cards drawn at random."""

import math
import random
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cards.card import GIB, Card
from cluster.plan.advice import with_bits
from cluster.plan.card_fill import host_limit, usable_bytes
from cluster.plan.checkpoint import Attention, Checkpoint
from cluster.plan.placement import Placement
from cluster.plan.planner import DoesNotFit, plan
from cluster.plan.search import search_placement
from cluster.plan.task import PlanningTask
from configs.schema import Recipe

NAMES = "abcdef"


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "engine": draw(st.sampled_from(["vllm", "llamacpp"])),
        "weights": [{"path": "x"}],
        "context_tokens": draw(st.sampled_from([2048, 4096, 8192])),
        "concurrency": draw(st.integers(1, 16)),
        "replicas": draw(st.sampled_from([{}, {}, {}, 1, 2, {"min": 2}, {"max": 2}])),
        "residency": draw(st.sampled_from(["auto", "auto", "auto", "resident", "turns"])),
    }


@st.composite
def cards(draw: st.DrawFn) -> Card:
    if draw(st.integers(0, 5)) == 0:
        total = draw(st.integers(4, 128)) * GIB
        return Card("cpu", total, cores=draw(st.integers(1, 64)), node="n", host_bytes=total)
    host = draw(st.sampled_from([None, 64 * GIB, 512 * GIB]))
    return Card("gpu", draw(st.integers(8, 141)) * GIB, kind="gpu", node=str(host), host_bytes=host)


@st.composite
def tasks(draw: st.DrawFn) -> PlanningTask:
    names = NAMES[: draw(st.integers(1, 6))]
    recipe = {
        "name": "mix",
        "models": {name: draw(models()) for name in names},
        "layers": [{"proposers": [{"model": name} for name in names]}],
        "aggregator": {"model": draw(st.sampled_from(names))},
    }
    checkpoints = {
        name: Checkpoint(
            weight_bytes=draw(st.integers(1, 600)) * GIB // 10,
            layers=32,
            hidden=4096,
            ffn=14336,
            vocab=128_256,
            query_width=4096,
            attention=(Attention(32, 2048),),
        )
        for name in names
    }
    here = draw(st.lists(cards(), min_size=1, max_size=4))
    return PlanningTask(Recipe.model_validate(recipe), checkpoints, here)


@settings(max_examples=150, deadline=None)
@given(tasks())
def test_every_plan_stays_within_its_cards(task: PlanningTask) -> None:
    placement = search_placement(task)
    if placement is None:
        return
    for placed in placement.cards:
        assert placed.used_bytes <= usable_bytes(task.recipe, placed.card) <= placed.card.total_bytes
        for slot in placed.slots:
            for awake in slot.members:  # the one that is awake, and what the others leave
                others = [m for m in slot.members if m is not awake]
                left = (m.awake if placed.card.kind == "cpu" else m.residue for m in others)
                asleep = sum(left) if slot.keeps_loaded else 0
                assert awake.peak + asleep <= slot.total_bytes
    limits = {placed.card.node: host_limit(task.recipe, placed.card) for placed in placement.cards}
    assert all(needed <= limits[node] for node, needed in placement.host_bytes)


@settings(max_examples=150, deadline=None)
@given(tasks())
def test_every_model_has_the_replicas_and_the_residency_of_the_recipe(task: PlanningTask) -> None:
    placement = search_placement(task)
    if placement is None:
        return
    for name, model in task.recipe.models.items():
        replicas = placement.replicas(name)
        assert model.replicas.min <= len(replicas) <= (model.replicas.max or len(replicas))
        assert [replica.replica for replica in replicas] == list(range(len(replicas)))
        for replica in replicas:
            assert replica in placement.slot(replica).members
            assert list(task.recipe.models)[replica.order] == name
            assert not (model.residency == "resident" and placement.slot(replica).takes_turns)


@settings(max_examples=150, deadline=None)
@given(tasks())
def test_extra_replicas_go_to_cards_that_would_stand_idle(task: PlanningTask) -> None:
    placement = search_placement(task)
    if placement is not None:
        check_that_no_idle_card_could_hold_a_replica(task, placement)
        check_that_extra_replicas_share_no_card_with_their_model(task, placement)


def check_that_no_idle_card_could_hold_a_replica(task: PlanningTask, placement: Placement) -> None:
    for placed in (placed for placed in placement.cards if not placed.slots):
        for name, model in task.recipe.models.items():
            wants_more = len(placement.replicas(name)) < (model.replicas.max or math.inf)
            if wants_more and task.kind(name) == placed.card.kind:
                assert task.footprint(name).peak > usable_bytes(task.recipe, placed.card)


def check_that_extra_replicas_share_no_card_with_their_model(
    task: PlanningTask, placement: Placement
) -> None:
    least = {name: model.replicas.min for name, model in task.recipe.models.items()}
    for replica in placement.replicas():
        if replica.replica >= least[replica.model]:
            slots = placement.cards[replica.card].slots
            models = [member.model for slot in slots for member in slot.members]
            assert len(set(models)) == len(models)


@settings(max_examples=150, deadline=None)
@given(tasks(), st.integers(0, 99))
def test_fractions_add_up_to_one_card_and_pack_in_any_order(task: PlanningTask, seed: int) -> None:
    placement = search_placement(task)
    if placement is None:
        return
    for placed in placement.cards:
        assert sum(round(m.fraction * 10_000) for s in placed.slots for m in s.members) <= 10_000
    for kind in ("gpu", "cpu"):
        used = [placed for placed in placement.cards if placed.card.kind == kind and placed.slots]
        wanted = [round(m.fraction * 10_000) for p in used for s in p.slots for m in s.members]
        random.Random(seed).shuffle(wanted)
        free = [10_000] * len(used)
        for fraction in wanted:  # as Ray does: the fullest card that still has room for all of it
            fitting = [n for n, left in enumerate(free) if left >= fraction]
            assert fitting
            free[min(fitting, key=lambda n: free[n])] -= fraction


def turns(recipe: Recipe, placement: Placement) -> tuple[int, int]:
    """Members of the fullest slot, and how many take turns; without slots of extra replicas only."""
    least = {name: model.replicas.min for name, model in recipe.models.items()}
    slots = [
        len(slot.members)
        for placed in placement.cards
        for slot in placed.slots
        if any(member.replica < least[member.model] for member in slot.members)
    ]
    return max(slots, default=0), sum(length for length in slots if length > 1)


@settings(max_examples=150, deadline=None)
@given(tasks(), cards(), st.integers(0, 4))
def test_one_more_card_is_never_worse(task: PlanningTask, extra: Card, where: int) -> None:
    if not any(card.kind == extra.kind for card in task.cards):
        return  # the first card of a kind draws models to it
    before = search_placement(task)
    if before is None:
        return
    after = search_placement(replace(task, cards=[*task.cards[:where], extra, *task.cards[where:]]))
    assert after is not None
    assert turns(task.recipe, after) <= turns(task.recipe, before)


@settings(max_examples=100, deadline=None)
@given(tasks())
def test_the_same_question_has_the_same_answer(task: PlanningTask) -> None:
    backwards = replace(task, checkpoints=dict(reversed(list(task.checkpoints.items()))))
    assert search_placement(task) == search_placement(backwards)


@settings(max_examples=100, deadline=None)
@given(tasks())
def test_advice_really_fits_when_it_is_taken(task: PlanningTask) -> None:
    try:
        plan(task)
    except DoesNotFit as refusal:
        for advice in refusal.advice:
            smaller = {n: with_bits(task.checkpoints[n], bits) for n, bits in advice.bits}
            changed = PlanningTask(
                recipe=advice.applied(task.recipe),
                checkpoints={**task.checkpoints, **smaller},
                cards=advice.cards or task.cards,
            )
            assert plan(changed)
