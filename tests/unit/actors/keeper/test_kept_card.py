"""A keeper's name, the other keepers that have a part of its card, and what its engines hold."""

from dataclasses import replace

import pytest

from actors.keeper.kept_card import KeptCard, MemberBytes, card_of
from cluster.cards.own_memory import OwnUse
from cluster.residency.state import Member, Slot, State

SLOT = Slot("0", (Member("a/0", 0), Member("b/0", 1)))
CARD = KeptCard(
    app="runs:first",
    node="n1",
    gpus=(0, 1),
    slots=(SLOT,),
    members=(("a/0", MemberBytes(100, 10, 110)), ("b/0", MemberBytes(70, 7, 70))),
    free_bytes=500,
)


def test_the_name_tells_the_card_and_differs_with_the_plan() -> None:
    assert card_of(CARD.actor_name) == ("n1", (0, 1))
    assert CARD.actor_name.startswith("keeper:runs:first:n1:0+1:")
    assert card_of(replace(CARD, gpus=None).actor_name) == ("n1", None)
    others = [
        replace(CARD, slots=(replace(SLOT, keeps_loaded=True),)),
        replace(CARD, members=(("a/0", MemberBytes(101, 10, 110)), CARD.members[1])),
        replace(CARD, free_bytes=400),
        replace(CARD, gpus=(0,)),
        replace(CARD, node="n2"),
    ]
    assert len({card.actor_name for card in [CARD, *others]}) == 6
    assert replace(CARD, handover_s=1).actor_name == CARD.actor_name


@pytest.mark.parametrize(
    ("other", "overlaps"),
    [
        (replace(CARD, free_bytes=400), True),
        (replace(CARD, gpus=(1,)), True),
        (replace(CARD, gpus=(1, 2)), True),
        (replace(CARD, gpus=(2, 3)), False),
        (replace(CARD, node="n2"), False),
        (replace(CARD, gpus=None), False),
    ],
)
def test_keepers_of_any_of_its_gpus_have_a_part_of_its_card(other: KeptCard, overlaps: bool) -> None:
    assert CARD.overlaps(other.actor_name) is overlaps
    assert other.overlaps(CARD.actor_name) is overlaps


def test_a_node_has_one_cpu() -> None:
    cpu = replace(CARD, gpus=None)
    assert cpu.overlaps(replace(cpu, free_bytes=400).actor_name)


@pytest.mark.parametrize(
    ("states", "least", "most"),
    [
        ({}, 0, 0),
        ({"a/0": State.RESIDENT, "b/0": State.ASLEEP}, 107, 107),
        ({"a/0": State.STOPPED, "b/0": State.RESIDENT}, 70, 70),
        ({"a/0": State.FALLING_ASLEEP, "b/0": State.ASLEEP}, 7, 117),
        ({"a/0": State.ASLEEP, "b/0": State.WAKING}, 10, 80),
        ({"a/0": State.FAILED}, 0, 110),
        ({"a/0": State.STARTING}, 0, 110),
    ],
)
def test_engines_hold_what_the_plan_says_for_their_state(
    states: dict[str, State], least: int, most: int
) -> None:
    assert CARD.use(states) == OwnUse("n1", (0, 1), least, most, 500)
    assert replace(CARD, gpus=None).use(states) is None
