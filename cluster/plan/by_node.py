"""Groups the replicas of a model in a placement by node. Pure.

Ray chooses the node of a replica; the plan has the replica's card and slot on that node. So Ray has to
know which nodes may get replicas of a model, and how many each.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.cards.card import Card
from cluster.plan.placement import PlacedReplica, Placement


@dataclass(frozen=True, slots=True)
class ReplicasByNode:
    """The replicas of one model, by the node that the plan puts them on."""

    nodes: Mapping[str, tuple[PlacedReplica, ...]]
    """The model's replicas on each node that has any."""
    pattern: str
    """The first node that has replicas of any model. Nodes that join the cluster later get the same."""
    without: tuple[str, ...]
    """Names of the placement's nodes that have no replica of this model."""

    @property
    def on_joining_node(self) -> tuple[PlacedReplica, ...]:
        """The model's replicas for a node that joins later; empty if the node `pattern` has none."""
        return self.nodes.get(self.pattern, ())

    @property
    def all(self) -> tuple[PlacedReplica, ...]:
        """The model's replicas on all nodes."""
        return tuple(replica for replicas in self.nodes.values() for replica in replicas)

    @property
    def most_on_a_node(self) -> int:
        """How many replicas of the model the node with the most of them has."""
        return max(len(replicas) for replicas in self.nodes.values())

    @property
    def node_selector(self) -> str | None:
        """The nodes that Ray may choose, as the value of a label selector; None for any node."""
        if not self.on_joining_node:
            return f"in({','.join(self.nodes)})"
        return f"!in({','.join(self.without)})" if self.without else None


def replicas_by_node(placement: Placement, model: str) -> ReplicasByNode | None:
    """Group the replicas of a model by node; None if the model takes no card."""
    by_node: dict[str, tuple[PlacedReplica, ...]] = {}
    for replica in placement.replicas(model):
        node = placement.cards[replica.card].card.node
        by_node[node] = (*by_node.get(node, ()), replica)
    if not by_node:
        return None
    nodes = list(dict.fromkeys(placed.card.node for placed in placement.cards))
    used = {placed.card.node for placed in placement.cards if placed.slots}
    return ReplicasByNode(
        nodes=by_node,
        pattern=next(node for node in nodes if node in used),
        without=tuple(node for node in nodes if node not in by_node),
    )


def cards_on(placement: Placement, node: str) -> tuple[Card, ...]:
    """The cards of a node, in the placement's order."""
    return tuple(placed.card for placed in placement.cards if placed.card.node == node)
