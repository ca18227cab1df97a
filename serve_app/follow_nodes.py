"""How many replicas a model should have: as many as the present nodes have assignments for.

Serve calls the policy in its controller, about once a second. Serve sends this module to the controller
pickled by value.
"""

import time
from typing import Any

LOOK_S = 2.0
"""Least seconds between two looks at the nodes of the cluster."""


class FollowNodes:
    """A Serve autoscaling policy for one model. The policy does not look at the load, because the plan
    has memory for every replica.

    Args:
        replicas: how many replicas of the model the plan has on each of its nodes, by Ray's node ID.
        joining: how many replicas any other node gets that offers at least `amount` of `resource`.
        resource: Ray's name of the resource, `GPU` or `CPU`.
        amount: how many GPUs or CPUs a node outside of the plan must offer to get replicas.
    """

    def __init__(self, replicas: dict[str, int], joining: int, resource: str, amount: float) -> None:
        self._replicas = replicas
        self._joining = joining
        self._resource = resource
        self._amount = amount
        self._count = sum(replicas.values())
        self._looked_at = 0.0

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Serve's interface: return how many replicas the model should have, and the policy's state
        unchanged."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._count = self.count(_resources_by_node())
        return max(context.capacity_adjusted_min_replicas, self._count), context.policy_state

    def count(self, nodes: dict[str, dict[str, float]]) -> int:
        """How many replicas the present nodes get together.

        Args:
            nodes: Ray's resources of each present node, by Ray's node ID.
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
