"""What holds of every plan, over recipes, sizes and cards drawn at random."""

import math
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cards.card import GIB, Card
from cluster.plan.card_fill import host_limit, usable_bytes
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.footprint import footprint
from cluster.plan.placement import Placement
from cluster.plan.planner import DoesNotFit, plan, with_bits
from cluster.plan.search import home, search_placement
from configs.schema import Recipe

NAMES = "abcdef"
Case = tuple[Recipe, dict[str, Checkpoint], list[Card]]


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
def cases(draw: st.DrawFn) -> Case:
    names = NAMES[: draw(st.integers(1, 6))]
    recipe = {
        "name": "mix",
        "models": {name: draw(models()) for name in names},
        "layers": [{"proposers": [{"model": name} for name in names]}],
        "aggregator": {"model": draw(st.sampled_from(names))},
    }
    checkpoints = {}
    for name in names:
        weights = draw(st.integers(1, 600)) * GIB // 10
        shape = {"layers": 32, "hidden": 4096, "ffn": 14336, "vocab": 128_256}
        checkpoints[name] = Checkpoint(weights, query_width=4096, kv_width=2048, **shape)
    return Recipe.model_validate(recipe), checkpoints, draw(st.lists(cards(), min_size=1, max_size=4))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_plan_stays_within_its_cards_and_places_every_model(case: Case) -> None:
    recipe, checkpoints, here = case
    placement = search_placement(recipe, checkpoints, here)
    if placement is None:
        return
    for placed in placement.cards:
        assert placed.used_bytes <= usable_bytes(recipe, placed.card) <= placed.card.total_bytes
        for slot in placed.slots:
            for awake in slot.members:  # the one that is awake, and what the others leave
                others = [m for m in slot.members if m is not awake]
                left = (m.awake if placed.card.kind == "cpu" else m.residue for m in others)
                held = sum(left) if slot.keeps_loaded else 0
                assert awake.awake + held <= slot.total_bytes
    counts = {name: len(placement.seats(name)) for name in recipe.models}
    for name, model in recipe.models.items():
        assert model.replicas.min <= counts[name] <= (model.replicas.max or counts[name])
        replicas = [seat.member.replica for seat in placement.seats(name)]
        assert replicas == list(range(counts[name]))
    limits = {placed.card.node: host_limit(recipe, placed.card) for placed in placement.cards}
    assert all(needed <= limits[node] for node, needed in placement.host_bytes)
    for seat in placement.seats():
        turns = placement.cards[seat.card].slots[seat.slot].takes_turns
        assert not (turns and recipe.models[seat.member.model].residency == "resident")


@settings(max_examples=150, deadline=None)
@given(cases())
def test_no_card_stands_idle_that_could_hold_one_more_replica(case: Case) -> None:
    recipe, checkpoints, here = case
    placement = search_placement(recipe, checkpoints, here)
    if placement is None:
        return
    for placed in placement.cards:
        models = [member.model for slot in placed.slots for member in slot.members]
        if any(
            m.replica >= recipe.models[m.model].replicas.min for s in placed.slots for m in s.members
        ):
            assert len(set(models)) == len(models)
        for name, model in recipe.models.items():
            more = len(placement.seats(name)) < (model.replicas.max or math.inf)
            if not models and more and home(model, here) == placed.card.kind:
                needs = footprint(model, checkpoints[name], placed.card.kind)
                assert needs.awake > usable_bytes(recipe, placed.card)


@settings(max_examples=150, deadline=None)
@given(cases(), st.integers(0, 99))
def test_fractions_add_up_to_one_card_and_pack_in_any_order(case: Case, seed: int) -> None:
    recipe, checkpoints, here = case
    placement = search_placement(recipe, checkpoints, here)
    if placement is None:
        return
    for placed in placement.cards:
        assert sum(round(m.fraction * 10_000) for s in placed.slots for m in s.members) <= 10_000
    for kind in ("gpu", "cpu"):
        used = [placed for placed in placement.cards if placed.card.kind == kind and placed.slots]
        wanted = [round(m.fraction * 10_000) for p in used for s in p.slots for m in s.members]
        random.Random(seed).shuffle(wanted)
        free = [10_000] * len(used)
        for fraction in wanted:  # as Ray does: the fullest card on which it still fits, whole
            fitting = [n for n, left in enumerate(free) if left >= fraction]
            assert fitting
            free[min(fitting, key=lambda n: free[n])] -= fraction


def turns(recipe: Recipe, placement: Placement) -> tuple[int, int]:
    """How long turns are and how many take them, where replicas are that the recipe asks for."""
    least = {name: model.replicas.min for name, model in recipe.models.items()}
    slots = [
        len(slot.members)
        for placed in placement.cards
        for slot in placed.slots
        if any(member.replica < least[member.model] for member in slot.members)
    ]
    return max(slots, default=0), sum(length for length in slots if length > 1)


@settings(max_examples=150, deadline=None)
@given(cases(), cards(), st.integers(0, 4))
def test_one_more_card_is_never_worse(case: Case, extra: Card, where: int) -> None:
    recipe, checkpoints, here = case
    if not any(card.kind == extra.kind for card in here):
        return  # the first card of a kind draws models to it
    before = search_placement(recipe, checkpoints, here)
    after = search_placement(recipe, checkpoints, [*here[:where], extra, *here[where:]])
    if before is None:
        return
    assert after is not None
    assert turns(recipe, after) <= turns(recipe, before)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_same_question_has_the_same_answer(case: Case) -> None:
    recipe, checkpoints, here = case
    backwards = dict(reversed(checkpoints.items()))
    assert search_placement(recipe, checkpoints, here) == search_placement(recipe, backwards, here)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_advice_really_fits_when_it_is_taken(case: Case) -> None:
    recipe, checkpoints, here = case
    try:
        plan(recipe, checkpoints, here)
    except DoesNotFit as refusal:
        for advice in refusal.advice:
            smaller = {n: with_bits(checkpoints[n], bits) for n, bits in advice.bits}
            there = advice.cards or here
            assert plan(advice.applied(recipe), checkpoints | smaller, there)
