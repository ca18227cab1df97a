"""A placement seen from its nodes."""

from dataclasses import replace

from cluster.cards.card import Card
from cluster.plan.by_node import cards_on, spread
from cluster.plan.placement import PlacedCard, PlacedReplica, Placement, Slot

GIB = 1 << 30


def placed(node: str, number: int, *members: tuple[str, int]) -> PlacedCard:
    slots = tuple(
        Slot((PlacedReplica(model, n, GIB, 0, 0, 0, 4, 1, 0.25, 0.1),), GIB) for model, n in members
    )
    card = Card("gpu", 80 * GIB, kind="gpu", node=node)
    return PlacedCard(replace(card, name=f"gpu {number}"), 78 * GIB, slots)


def plan(*cards: PlacedCard) -> Placement:
    return Placement("mix", cards)


def test_where_every_node_holds_the_model_any_node_may_take_it_and_one_that_joins_too() -> None:
    found = spread(plan(placed("n1", 0, ("a", 0)), placed("n2", 0, ("a", 1))), "a")
    assert found is not None
    assert found.allowed is None
    assert found.most_on_a_node == 1
    assert [seat.member.replica for seat in found.joining] == [0]


def test_a_node_without_a_seat_of_the_model_is_shut_out_and_the_first_node_is_the_pattern() -> None:
    placement = plan(placed("n1", 0, ("a", 0)), placed("n2", 0, ("b", 0)), placed("n3", 0))
    a, b = spread(placement, "a"), spread(placement, "b")
    assert a is not None
    assert b is not None
    assert a.allowed == "!in(n2,n3)"
    assert b.allowed == "in(n2)", "a node that joins becomes as n1, which has no b"
    assert b.joining == ()


def test_seats_are_counted_by_node() -> None:
    placement = plan(placed("n1", 0, ("a", 0)), placed("n1", 1, ("a", 1)), placed("n2", 0, ("a", 2)))
    found = spread(placement, "a")
    assert found is not None
    assert found.most_on_a_node == 2
    assert {node: len(seats) for node, seats in found.seats.items()} == {"n1": 2, "n2": 1}
    assert [card.name for card in cards_on(placement, "n1")] == ["gpu 0", "gpu 1"]


def test_a_model_that_takes_no_card_has_no_spread() -> None:
    assert spread(plan(placed("n1", 0, ("a", 0))), "remote") is None
