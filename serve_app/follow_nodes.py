"""How many replicas a model should have: as many as the nodes that are there now have seats for.

Serve asks in its controller, about once a second, and takes this module there by value.
"""

import time
from typing import Any

LOOK_S = 2.0
"""Nodes are counted no more often."""


class FollowNodes:
    """A Serve autoscaling policy. A model's replicas are all planned for, so load has no say.

    seats: of the model, by node, of all nodes of the plan; joining: seats that any other node has, if
    it offers at least `amount` of Ray's resource `resource`.
    """

    def __init__(self, seats: dict[str, int], joining: int, resource: str, amount: float) -> None:
        self._seats, self._joining = seats, joining
        self._resource, self._amount = resource, amount
        self._count, self._looked = sum(seats.values()), 0.0

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._count = self.count(_alive())
        return max(context.capacity_adjusted_min_replicas, self._count), context.policy_state

    def count(self, alive: dict[str, dict[str, float]]) -> int:
        """Replicas for these nodes: their Ray resources by their IDs."""
        return sum(
            self._seats.get(node, self._joining if has.get(self._resource, 0) >= self._amount else 0)
            for node, has in alive.items()
        )


def _alive() -> dict[str, dict[str, float]]:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
