"""How many replicas a model should have: as many as its calls need.

Serve calls the policy in its controller, about once a second. Serve sends this module to the controller
pickled by value.
"""

import math
from typing import Any

CALLS = "calls"
"""Name under which a replica reports how many calls run and wait there."""
EQUAL = 1e-6
"""Calls by which an average may be off. Without it, a rounding error could ask for a replica."""


class FollowLoad:
    """A Serve autoscaling policy for one model. The model's calls do not pass Serve, so Serve cannot
    count them. The replicas report them.

    Serve changes the number of replicas only after the policy has wanted a change for some time:
    `upscale_delay_s` and `downscale_delay_s` of the deployment's options.

    Args:
        target: how many calls a replica should have, those that run and those that wait together.
    """

    def __init__(self, target: float) -> None:
        self._target = target

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Serve's interface: return how many replicas the model should have, and the policy's state
        unchanged.

        The context has the reports of the replicas that run, each averaged over the time that the
        deployment's options give. A replica that stops is not among them.
        """
        reports = (context.aggregated_metrics or {}).get(CALLS, {})
        if not reports:  # a new controller has none at first
            return context.target_num_replicas, context.policy_state
        wanted = self.count(sum(reports.values()))
        least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        return min(max(wanted, least), most), context.policy_state

    def count(self, calls: float) -> int:
        """How many replicas so many calls need.

        Args:
            calls: the calls that run and wait at all replicas together.
        """
        return math.ceil((calls - EQUAL) / self._target)
