"""A moment at which the scheduler decides: the time, and when to decide again without an event."""

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Moment:
    """The time of a decision. It collects the times at which that decision can change by itself."""

    now: float
    """Time on the keeper's clock."""
    call_at: float = math.inf
    """The earliest time that was asked about and not reached."""

    def has_reached(self, at: float) -> bool:
        """Whether the time has reached `at`. If not, the scheduler has to decide again at `at`."""
        if self.now >= at:
            return True
        self.look_again_at(at)
        return False

    def look_again_at(self, at: float) -> None:
        """The scheduler has to decide again at `at`, unless an event comes before."""
        self.call_at = min(self.call_at, at)
