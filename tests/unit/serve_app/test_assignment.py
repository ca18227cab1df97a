"""The seats of a model on nodes of the plan, and on nodes that join."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from actors.engine import Share
from cluster.cards.card import Card
from cluster.cards.catalog import card_by_name
from cluster.residency.state import Member, Slot
from configs.errors import EngineUnavailable
from serve_app.assignment import Detect, ModelAssignments, PlannedAssignment

LARGE, SMALL = card_by_name("A100-80GB"), card_by_name("RTX-4090")


def berth(member: str, card: int, *gpus: int) -> PlannedAssignment:
    return PlannedAssignment(member, card, (Slot("0", (Member(member),)),), Share(), 30.0, gpus)


SEATING = ModelAssignments(
    berths={"n1": (berth("a/0", 0, 0, 1), berth("a/1", 1, 2, 3))},
    joining=(berth("a/0", 0, 0, 1), berth("a/1", 1, 2, 3)),
    cards=tuple(
        replace(LARGE, total_bytes=2 * LARGE.total_bytes, indices=pair) for pair in ((0, 1), (2, 3))
    ),
)


def having(*cards: Card) -> Detect:
    async def detect(node: str) -> Sequence[Card]:
        assert node == "new"
        return [replace(card, indices=(2 * n,)) for n, card in enumerate(cards)]

    return detect


async def nobody_looks(_node: str) -> Sequence[Card]:
    raise AssertionError


async def test_a_node_of_the_plan_has_the_seats_that_were_planned() -> None:
    seats = await SEATING.on("n1", "app", nobody_looks)
    assert [(seat.member, seat.gpus) for seat in seats] == [("a/0", (0, 1)), ("a/1", (2, 3))]


async def test_a_node_that_joins_has_the_same_on_its_own_gpus_joined_as_the_plan_joins_them() -> None:
    seats = await SEATING.on("new", "app", having(LARGE, LARGE, LARGE, LARGE))
    assert [(seat.member, seat.gpus) for seat in seats] == [("a/0", (0, 2)), ("a/1", (4, 6))]


@pytest.mark.parametrize("cards", [(SMALL,) * 4, (LARGE,) * 2, ()])
async def test_a_node_whose_cards_hold_less_is_refused_by_name(cards: tuple[Card, ...]) -> None:
    with pytest.raises(EngineUnavailable, match="that are planned for") as told:
        await SEATING.on("new", "app", having(*cards))
    assert "deploy with another `replan`" in told.value.message
