"""Which models take turns, which stay awake, and the message if they do not fit."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.cards.card import GIB, Card
from cluster.plan.advice import with_bits
from cluster.plan.card_fill import HOST_SHARE, STOPPED_BYTES
from cluster.plan.checkpoint import Checkpoint, UnknownCheckpoint
from cluster.plan.footprint import gib
from cluster.plan.placement import Placement
from cluster.plan.planner import DoesNotFit, plan, plan_recipe
from cluster.plan.speed import DISK, start_s
from cluster.plan.task import PlanningTask
from configs.load import load
from configs.schema import Recipe

MakeCard = Callable[..., Card]
MakeCheckpoint = Callable[..., Checkpoint]
MakeRecipe = Callable[..., Recipe]
CPU = Card("cpu", 16 * GIB, cores=8, node="here", host_bytes=16 * GIB)


def slots(placement: Placement) -> list[list[list[str]]]:
    """Names of the models by card, slot and turn."""
    return [
        [[member.model for member in slot.members] for slot in placed.slots]
        for placed in placement.cards
    ]


@pytest.fixture
def mix(make_recipe: MakeRecipe) -> Recipe:
    return make_recipe("big1", "big2", "big3", aggregator="small")


@pytest.fixture
def sizes(make_checkpoint: MakeCheckpoint) -> dict[str, Any]:
    big = make_checkpoint(36)
    return {"big1": big, "big2": big, "big3": big, "small": make_checkpoint(16)}


@pytest.mark.parametrize(
    ("gib", "expected"),
    [
        ([200], [[["big1"], ["big2"], ["big3"], ["small"]]]),
        ([120], [[["big1"], ["small"], ["big2", "big3"]]]),
        ([80], [[["small"], ["big1", "big2", "big3"]]]),
        ([48], [[["big1", "big2", "big3", "small"]]]),
        ([80, 80], [[["big1"], ["big2"]], [["big3"], ["small"]]]),
        ([60, 60], [[["small"], ["big1"]], [["big2", "big3"]]]),
    ],
)
def test_as_many_stay_awake_as_fit(
    gib: list[float], expected: Any, mix: Recipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    found = plan(PlanningTask(mix, sizes, [make_card(g, indices=(n,)) for n, g in enumerate(gib)]))
    assert [sorted(card) for card in slots(found)] == [sorted(card) for card in expected]


def test_short_turns_are_better_than_a_resident_aggregator(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint, make_card: MakeCard
) -> None:
    recipe = make_recipe("a", "b", "c", "d", aggregator="judge")
    sizes = {name: make_checkpoint(40) for name in "abcd"} | {"judge": make_checkpoint(30)}
    cards = [make_card(60, indices=(n,)) for n in range(2)]
    found = plan(PlanningTask(recipe, sizes, cards))
    # With a resident judge, the other card would have all of a, b, c and d.
    assert (found.longest_turns, found.turn_takers) == (3, 5)


def test_a_big_aggregator_takes_turns_with_the_proposers_it_displaces(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint, make_card: MakeCard
) -> None:
    recipe = make_recipe("a", "b", "c", aggregator="judge")
    sizes = {name: make_checkpoint(14) for name in "abc"} | {"judge": make_checkpoint(60)}
    found = plan(PlanningTask(recipe, sizes, [make_card(80)]))
    assert slots(found) == [[["a", "b", "c", "judge"]]]  # 14 more beside 60 would not fit in 80


def test_turns_are_in_the_order_of_the_recipe(
    mix: Recipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    uneven = sizes | {"big2": replace(sizes["big2"], weight_bytes=30 * GIB)}
    assert slots(plan(PlanningTask(mix, uneven, [make_card(80)])))[0][1] == ["big1", "big2", "big3"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"small": {"residency": "turns"}}, [[["big1"], ["big2", "big3", "small"]]]),
        ({"big2": {"residency": "resident"}}, [[["big2"], ["big1", "big3", "small"]]]),
    ],
)
def test_the_recipe_overrides_residency(
    settings: dict[str, Any],
    expected: Any,
    make_recipe: MakeRecipe,
    sizes: dict[str, Any],
    make_card: MakeCard,
) -> None:
    recipe = make_recipe("big1", "big2", "big3", aggregator="small", **settings)
    assert slots(plan(PlanningTask(recipe, sizes, [make_card(95)]))) == expected


def test_a_slot_holds_the_hungriest_and_what_sleepers_leave(
    mix: Recipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    slot = plan(PlanningTask(mix, sizes, [make_card(48)])).cards[0].slots[0]
    grows = max(member.awake - member.residue for member in slot.members)
    assert slot.total_bytes == grows + sum(member.residue for member in slot.members)


def test_both_of_vllms_settings_stay_within_the_slot(
    mix: Recipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    placed = plan(PlanningTask(mix, sizes, [make_card(80)])).cards[0]
    for slot in placed.slots:
        for member in slot.members:
            asked = member.utilization * placed.card.total_bytes
            asleep = sum(other.residue for other in slot.members if other is not member)
            assert asked + asleep <= slot.total_bytes
            assert member.weights + member.kv < asked


def test_idle_cards_get_replicas_of_the_busiest(
    mix: Recipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    found = plan(PlanningTask(mix, sizes, [make_card(80, indices=(n,)) for n in range(5)]))
    assert found.longest_turns == 1
    assert slots(found) == [
        [["big1"], ["big2"]],
        [["big3"], ["small"]],
        [["big1"], ["big2"]],
        [["big3"], ["big1"]],
        [["big2"], ["big3"]],
    ]
    assert [replica.replica for replica in found.replicas("big2")] == [0, 1, 2]


def test_idle_cards_get_no_more_replicas_than_the_recipe_has(
    make_recipe: MakeRecipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    most = {
        "big1": {"replicas": 1},
        "big2": {"replicas": {"max": 2}},
        "small": {"replicas": {"min": 2}},
    }
    recipe = make_recipe("big1", "big2", "big3", aggregator="small", **most)
    found = plan(PlanningTask(recipe, sizes, [make_card(80, indices=(n,)) for n in range(9)]))
    assert [len(found.replicas(name)) for name in recipe.models] == [1, 2, 7, 7]


def test_least_replicas_are_placed_even_on_one_card(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint, make_card: MakeCard
) -> None:
    recipe = make_recipe("a", aggregator="b", a={"replicas": 3})
    sizes = {"a": make_checkpoint(8), "b": make_checkpoint(8)}
    found = plan(PlanningTask(recipe, sizes, [make_card(80), make_card(80)]))
    assert len(found.replicas("a")) == 3
    assert {replica.card for replica in found.replicas("a")} == {0, 1}


def test_models_elsewhere_take_no_card(make_card: MakeCard) -> None:
    found = plan_recipe(load("scripted"), [make_card(24)])
    assert found.replicas() == ()
    assert found.elsewhere == ("steady", "failing", "hanging", "writer")
    assert plan_recipe(load("remote"), []).elsewhere == ("local", "hosted")


def test_used_memory_and_a_recipes_limit_are_respected(
    mix: Recipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    busy = replace(make_card(200), free_bytes=80 * GIB)
    assert slots(plan(PlanningTask(mix, sizes, [busy]))) == [[["small"], ["big1", "big2", "big3"]]]
    limited = mix.model_copy(update={"cards": mix.cards.model_copy(update={"memory_bytes": 50 * GIB})})
    assert plan(PlanningTask(limited, sizes, [make_card(200)])).longest_turns == 4


def stopped(placement: Placement) -> list[str]:
    return [replica.model for replica in placement.stoppers]


@pytest.mark.parametrize("stoppers", [0, 1, 2, 3])
@pytest.mark.parametrize("limit", ["machine", "recipe"])
def test_as_few_as_possible_are_stopped_where_the_host_cannot_hold_all_sleepers(
    limit: str, stoppers: int, mix: Recipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    card = make_card(80, node="n")
    big, small = (PlanningTask(mix, sizes, [card]).footprint(name) for name in ("big1", "small"))
    assert big.parked > 36 * GIB + big.processes  # PyTorch rounds pinned RAM up
    needed = small.processes + (3 - stoppers) * big.parked + stoppers * STOPPED_BYTES
    if stoppers:  # one of them is awake at a time
        needed += big.processes - STOPPED_BYTES
    for spare in (0, 30 * GIB):  # not enough for one sleeper more
        recipe = mix
        if limit == "recipe":
            cards = mix.cards.model_copy(update={"host_memory_bytes": needed + spare})
            recipe = mix.model_copy(update={"cards": cards})
        else:
            host_bytes = math.ceil((needed + spare) / HOST_SHARE)
            card = replace(card, host_bytes=host_bytes)
        found = plan(PlanningTask(recipe, sizes, [card]))
        assert slots(found) == [[["small"], ["big1", "big2", "big3"]]]
        assert len(stopped(found)) == stoppers
        assert found.host_bytes == (("n", needed),)


def test_a_host_too_small_for_stopped_replicas_is_refused(
    mix: Recipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    task = PlanningTask(mix, sizes, [make_card(80, node="n", host_bytes=8 * GIB)])
    parked = gib(task.footprint("big1").parked)
    words = rf"{parked} of host RAM[\s\S]*GiB of host RAM for its engines"
    with pytest.raises(DoesNotFit, match=words):
        plan(task)


def test_of_equally_many_the_models_whose_starts_cost_an_answer_the_least_are_stopped(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint, make_card: MakeCard
) -> None:
    turns = {"residency": "turns"}
    sizes = {"twice": make_checkpoint(30), "slow": make_checkpoint(36), "quick": make_checkpoint(33)}
    all_turns = dict.fromkeys(sizes, turns)
    recipe = make_recipe("twice", "slow", "quick", aggregator="twice", **all_turns)
    card = make_card(80)
    all_asleep = sum(PlanningTask(recipe, sizes, [card]).footprint(name).parked for name in sizes)
    card = replace(card, host_bytes=int((all_asleep - 10 * GIB) / HOST_SHARE))
    # Any one is enough. `twice` is the smallest, but proposes and aggregates: two starts per answer.
    assert stopped(plan(PlanningTask(recipe, sizes, [card]))) == ["quick"]


def test_a_placement_without_stopped_models_goes_before_one_with_fewer_turns(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint, make_card: MakeCard
) -> None:
    sizes = {name: make_checkpoint(30) for name in "abcd"}
    recipe = make_recipe("a", "b", "c", aggregator="d")
    small_host = make_card(41, node="small", host_bytes=20 * GIB)
    cards = [small_host, make_card(41, node="large", host_bytes=400 * GIB)]
    found = plan(PlanningTask(recipe, sizes, cards))
    assert stopped(found) == []
    assert found.longest_turns == 3  # with one stopped, two and two would take turns


def test_llamacpp_on_a_gpu_is_stopped_because_it_cannot_sleep(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint, make_card: MakeCard
) -> None:
    recipe = make_recipe("a", aggregator="b", engine="llamacpp")
    found = plan(PlanningTask(recipe, {n: make_checkpoint(20) for n in "ab"}, [make_card(24)]))
    assert stopped(found) == ["a", "b"]


def test_vllm_on_a_cpu_is_stopped_where_the_ram_does_not_hold_all(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint
) -> None:
    recipe = make_recipe("a", aggregator="b")
    (slot,) = plan(PlanningTask(recipe, {n: make_checkpoint(8) for n in "ab"}, [CPU])).cards[0].slots
    assert [member.stops for member in slot.members] == [True, True]
    assert not slot.keeps_loaded


def test_a_stopped_model_shows_the_seconds_of_its_start(
    mix: Recipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    task = PlanningTask(mix, sizes, [make_card(80, node="n", host_bytes=32 * GIB)])
    found = plan(task)
    expected_s = start_s(mix.models["big1"], sizes["big1"], found.cards[0].card)
    assert expected_s > 36 * GIB / DISK
    assert {r.start_s for r in found.stoppers} == {expected_s}


def test_a_card_whose_host_cannot_hold_sleepers_gets_one_model_that_never_sleeps(
    make_recipe: MakeRecipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    turns = {name: {"residency": "turns"} for name in sizes}
    recipe = make_recipe("big1", "big2", "big3", aggregator="small", **turns)
    cards = [make_card(80, node="a"), make_card(80, node="b", host_bytes=16 * GIB)]
    found = plan(PlanningTask(recipe, sizes, cards))
    assert slots(found) == [[["big1", "big2", "big3", "small"]], [["big1"]]]
    needs = {name: PlanningTask(recipe, sizes, cards).footprint(name) for name in sizes}
    alone = needs["big1"].processes  # a model that never sleeps pins nothing
    assert found.host_bytes == (("a", sum(each.parked for each in needs.values())), ("b", alone))


def test_on_a_cpu_all_take_turns_with_all_cores(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint
) -> None:
    recipe = make_recipe("a", "b", aggregator="b", engine="llamacpp")
    (slot,) = plan(PlanningTask(recipe, {n: make_checkpoint(0.5) for n in "ab"}, [CPU])).cards[0].slots
    assert [(m.model, m.threads, m.fraction) for m in slot.members] == [("a", 8, 0.5), ("b", 8, 0.5)]
    assert slot.keeps_loaded
    assert not any(member.stops for member in slot.members)
    assert slot.total_bytes == sum(m.awake for m in slot.members)


@pytest.mark.parametrize(("key", "gib"), [("memory_bytes", 9), ("host_memory_bytes", 3)])
def test_on_a_cpu_models_are_unloaded_when_they_do_not_all_fit(
    key: str, gib: int, make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint
) -> None:
    recipe = make_recipe("a", "b", aggregator="b", engine="llamacpp", cards={key: gib * GIB})
    (slot,) = plan(PlanningTask(recipe, {n: make_checkpoint(4) for n in "ab"}, [CPU])).cards[0].slots
    assert not slot.keeps_loaded
    assert slot.total_bytes < 9 * GIB
    assert all(member.stops for member in slot.members)


def test_idle_machines_without_a_gpu_get_all_that_they_can_hold_loaded(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint
) -> None:
    wants = {"b": {"residency": "resident"}, "c": {"replicas": {"max": 2}}}
    recipe = make_recipe("a", "b", "c", aggregator="a", engine="llamacpp", **wants)
    machines = [replace(CPU, node=f"{n}") for n in range(4)] + [replace(CPU, total_bytes=4 * GIB)]
    found = plan(PlanningTask(recipe, {n: make_checkpoint(2) for n in "abc"}, machines))
    assert slots(found) == [[["b"], ["a"]], [["c"]], [["b"], ["a", "c"]], [["b"], ["a"]], []]
    assert found.cards[2].slots[1].keeps_loaded
    assert [replica.replica for replica in found.replicas("a")] == [0, 1, 2]


def test_models_that_are_to_take_turns_do_so_on_idle_gpus_too(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint, make_card: MakeCard
) -> None:
    turns = {name: {"residency": "turns"} for name in "ab"}
    recipe = make_recipe("a", "b", aggregator="judge", **turns, judge={"replicas": 1})
    sizes = {"a": make_checkpoint(16), "b": make_checkpoint(8), "judge": make_checkpoint(20)}
    found = plan(PlanningTask(recipe, sizes, [make_card(48, indices=(n,)) for n in range(4)]))
    assert slots(found) == [[["judge"], ["a"]], [["b"]], [["a", "b"]], [["a", "b"]]]


def test_residents_of_a_cpu_divide_its_cores_unless_told_otherwise(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint
) -> None:
    settings = {"a": {"residency": "resident"}, "b": {"residency": "resident", "threads": 6}}
    recipe = make_recipe("a", aggregator="b", engine="llamacpp", **settings)
    found = plan(PlanningTask(recipe, {n: make_checkpoint(0.5) for n in "ab"}, [CPU]))
    assert sorted((r.model, r.threads) for r in found.replicas()) == [("a", 4), ("b", 6)]
    assert found.longest_turns == 1


def test_llamacpp_goes_to_the_cpu_beside_a_gpu(
    make_recipe: MakeRecipe, make_checkpoint: MakeCheckpoint, make_card: MakeCard
) -> None:
    recipe = make_recipe("a", aggregator="b", engine="llamacpp")
    sizes = {n: make_checkpoint(0.5) for n in "ab"}
    assert slots(plan(PlanningTask(recipe, sizes, [make_card(24), CPU]))) == [[], [["a", "b"]]]
    assert slots(plan(PlanningTask(recipe, sizes, [make_card(24)]))) == [[["a"], ["b"]]]


def test_a_refusal_has_the_sums_and_the_nearest_change(
    mix: Recipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    greedy = {name: {"concurrency": 40} for name in ("big1", "big2", "big3")}
    data = mix.model_dump()
    for name, keys in greedy.items():
        data["models"][name] |= keys
    recipe = Recipe.model_validate(data)
    with pytest.raises(DoesNotFit) as caught:
        plan(PlanningTask(recipe, sizes, [make_card(48)]))
    message = str(caught.value)
    assert "big1: 58.0 GiB = weights 36.1 GiB + KV 20.0 GiB (163840 tokens) + runtime" in message
    assert "gpu: 47.0 GiB of 48.0 GiB" in message
    change, more, card = caught.value.advice
    assert (len(more.cards), len(card.cards)) == (2, 1)
    assert plan(PlanningTask(recipe, sizes, more.cards))
    assert {key for _, key, _ in change.changes} == {"concurrency"}
    (count,) = {value for _, _, value in change.changes}
    assert isinstance(count, int)
    assert f"models.big1.concurrency: {count}" in message
    assert plan(PlanningTask(recipe, sizes, card.cards))
    assert plan(PlanningTask(change.applied(recipe), sizes, [make_card(48)])).longest_turns == 4
    more = replace(change, changes=tuple((m, k, count + 1) for m, k, _ in change.changes))
    with pytest.raises(DoesNotFit):
        plan(PlanningTask(more.applied(recipe), sizes, [make_card(48)]))


def test_residents_that_do_not_fit_are_advised_to_take_turns(
    make_recipe: MakeRecipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    awake = {name: {"residency": "resident"} for name in sizes}
    recipe = make_recipe("big1", "big2", "big3", aggregator="small", **awake)
    with pytest.raises(DoesNotFit) as caught:
        plan(PlanningTask(recipe, sizes, [make_card(95)]))
    advice = caught.value.advice[0]
    assert {(key, value) for _, key, value in advice.changes} == {("residency", "auto")}
    assert len(advice.changes) < 4  # the small ones stay as they were asked to
    assert plan(PlanningTask(advice.applied(recipe), sizes, [make_card(95)]))


def test_unquantized_weights_that_do_not_fit_are_advised_in_4_bits(
    mix: Recipe, sizes: dict[str, Any], make_card: MakeCard
) -> None:
    with pytest.raises(DoesNotFit, match="with 4-bit checkpoints") as caught:
        plan(PlanningTask(mix, sizes, [make_card(24)]))
    advice = caught.value.advice[0]
    smaller = sizes | {name: with_bits(sizes[name], bits) for name, bits in advice.bits}
    assert plan(PlanningTask(mix, smaller, [make_card(24)]))


def test_without_any_card_the_refusal_says_so(mix: Recipe, sizes: dict[str, Any]) -> None:
    with pytest.raises(DoesNotFit, match="do not fit"):
        plan(PlanningTask(mix, sizes, []))


def test_weights_of_unknown_size_are_refused_by_name(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe("a", aggregator="a", a={"weights": [{"hub": "no/such"}]})
    with pytest.raises(UnknownCheckpoint, match="'a'"):
        plan_recipe(recipe, [CPU], find_weights=lambda *_: None)
    with pytest.raises(UnknownCheckpoint, match="cannot understand"):
        plan_recipe(recipe, [CPU], find_weights=lambda *_: tmp_path)
