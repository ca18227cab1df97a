"""How many replicas a model should have: as many as the present nodes have assignments for.

Serve calls the policy in its controller, about once a second, and pickles this module by value for it.
"""

import time
from typing import Any

LOOK_S = 2.0
"""Seconds between two looks at the nodes of the cluster."""


class FollowNodes:
    """A Serve autoscaling policy. The plan has memory for every replica, so load does not matter.

    Args:
        replicas: planned replicas of the model, by node, for all nodes of the plan.
        joining: replicas for any other node that offers at least `amount` of `resource`.
        resource: Ray's name of what the nodes offer, `GPU` or `CPU`.
        amount: how much of it a node that joins must offer.
    """

    def __init__(self, replicas: dict[str, int], joining: int, resource: str, amount: float) -> None:
        self._replicas = replicas
        self._joining = joining
        self._resource = resource
        self._amount = amount
        self._count = sum(replicas.values())
        self._looked_at = 0.0

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Serve's interface: the number of replicas, and the policy's state, which is unchanged."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._count = self.count(_resources_by_node())
        return max(context.capacity_adjusted_min_replicas, self._count), context.policy_state

    def count(self, nodes: dict[str, dict[str, float]]) -> int:
        """Replicas for the present nodes.

        Args:
            nodes: Ray's resources of each node, by its ID.
        """
        return sum(
            self._replicas[node] if node in self._replicas else self._count_joining(resources)
            for node, resources in nodes.items()
        )

    def _count_joining(self, resources: dict[str, float]) -> int:
        return self._joining if resources.get(self._resource, 0) >= self._amount else 0


def _resources_by_node() -> dict[str, dict[str, float]]:
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
