"""A placement seen from its nodes: where the replicas of one model may go. Pure.

Ray chooses the node of a replica and nothing else; its seat there is the plan's. So what binds Ray to
the plan is which nodes it may take, and how many replicas each may get.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.cards.card import Card
from cluster.plan.placement import Location, Placement


@dataclass(frozen=True, slots=True)
class Spread:
    """The seats of one model by node. pattern: the node whose seats a node gets that joins later;
    others: nodes of the placement where the model has no seat."""

    seats: Mapping[str, tuple[Location, ...]]
    pattern: str
    others: tuple[str, ...]

    @property
    def joining(self) -> tuple[Location, ...]:
        """The seats of a node that joins; none if the pattern has none of this model."""
        return self.seats.get(self.pattern, ())

    @property
    def most_on_a_node(self) -> int:
        return max(len(seats) for seats in self.seats.values())

    @property
    def allowed(self) -> str | None:
        """The nodes that Ray may take, as the value of a label selector; None for any."""
        if not self.joining:
            return f"in({','.join(self.seats)})"
        return f"!in({','.join(self.others)})" if self.others else None


def spread(placement: Placement, model: str) -> Spread | None:
    """The seats of a model by node; None if it takes no card."""
    seats: dict[str, tuple[Location, ...]] = {}
    for seat in placement.seats(model):
        node = placement.cards[seat.card].card.node
        seats[node] = (*seats.get(node, ()), seat)
    if not seats:
        return None
    nodes = list(dict.fromkeys(placed.card.node for placed in placement.cards))
    used = [n for n in nodes if any(p.slots for p in placement.cards if p.card.node == n)]
    return Spread(seats, used[0], tuple(n for n in nodes if n not in seats))


def cards_on(placement: Placement, node: str) -> tuple[Card, ...]:
    """The cards of a node, in the placement's order."""
    return tuple(placed.card for placed in placement.cards if placed.card.node == node)
