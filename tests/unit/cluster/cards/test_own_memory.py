"""A plan that is made while engines run: their own bytes do not count as bytes of others."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.cards.card import GIB, OTHERS, Card
from cluster.cards.catalog import card_by_name
from cluster.cards.own_memory import TOLERANCE, OwnUse, without_own
from cluster.plan.planner import plan_recipe
from configs.load import load

CARD = Card(name="gpu", total_bytes=40 * GIB, kind="gpu", node="n", free_bytes=8 * GIB)


def use(
    least: float, most: float | None = None, planned: float | None = None, **more: object
) -> OwnUse:
    most = least if most is None else most
    free = None if planned is None else int(planned * GIB)
    found = OwnUse("n", (0,), int(least * GIB), int(most * GIB), free)
    return replace(found, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("uses", "free_gib"),
    [
        ([], 8),
        ([use(30)], 38),
        ([use(30, planned=39)], 39),  # within what real bytes differ from planned bytes
        ([use(20, planned=39)], 28),  # another program has taken 11 GiB
        ([use(0, 30, planned=37)], 37),  # an engine that starts
        ([use(0, 20, planned=39)], 28),
        ([use(90)], 40),
        ([use(10), use(20)], 38),  # an old plan's engines beside those of a new one
        ([use(30, node="other")], 8),
        ([use(30, gpus=(1,))], 8),
        ([use(30, gpus=(0, 1))], 23),  # half of the engine is on the other GPU
        ([use(30, planned=78, gpus=(0, 1))], 23),
        ([use(60, planned=78, gpus=(0, 1))], 39),
        ([use(0, most_bytes=None)], 40),  # its keeper does not answer
    ],
)
def test_free_bytes_are_what_others_leave(uses: list[OwnUse], free_gib: float) -> None:
    (found,) = without_own([CARD], uses)
    assert found == replace(CARD, free_bytes=int(free_gib * GIB))


@pytest.mark.parametrize("card", [replace(CARD, free_bytes=None), replace(CARD, kind="cpu")])
def test_cards_whose_free_memory_is_not_read_stay_as_they_are(card: Card) -> None:
    assert without_own([card], [use(30)]) == [card]


@pytest.mark.parametrize("preset", ["small_moa_24gb", "slim_moa_a100"])
@settings(deadline=None, max_examples=30)
@given(
    others=st.floats(0, 1),
    real_share=st.floats(1.001 - TOLERANCE, 1),
    awake=st.sampled_from(["first", "last", "changing", "none"]),
)
def test_a_recipe_that_runs_is_planned_as_on_the_idle_card(
    preset: str, others: float, real_share: float, awake: str
) -> None:
    """others: what other programs hold, as a share of what is too much for the recipe."""
    recipe = load(preset)
    name = {"small_moa_24gb": "RTX-4090", "slim_moa_a100": "A100-80GB"}[preset]
    known = replace(card_by_name(name), node="n")
    (used,) = [placed.used_bytes for placed in plan_recipe(recipe, [known]).cards]
    idle = replace(known, free_bytes=known.total_bytes - int(others * 0.2 * GIB))
    before = plan_recipe(recipe, [idle])
    assert idle.free_bytes is not None

    least = most = 0
    for slot in before.cards[0].slots:
        sizes = [(member.awake, member.residue) for member in slot.members]
        number = {"first": 0, "last": len(sizes) - 1}.get(awake)
        for n, (whole, rest) in enumerate(sizes):
            is_awake = n == number
            least += whole if is_awake else 0 if awake == "changing" and n == 0 else rest
            most += whole if is_awake or (awake == "changing" and n == 0) else rest
    assert most <= used
    held = int(real_share * least)
    running = replace(idle, free_bytes=idle.free_bytes - held)
    found = without_own([running], [OwnUse("n", (0,), least, most, idle.free_bytes)])
    assert found == [idle]
    assert plan_recipe(recipe, found) == before


def test_own_engines_are_not_called_programs_of_others() -> None:
    words = (f"GPU 0 has 8.0 of 40.0 {OTHERS}: python (30.0 GiB)", "GPU 0 is old")
    card = replace(CARD, remarks=words)
    assert without_own([card], [])[0].remarks == words
    assert without_own([card], [use(30)])[0].remarks == words[1:]
    assert card == CARD, "what is said of a card makes it no other card, and no other plan"
