"""What the scheduler tells its keeper to do, and the messages between a keeper and its replicas.

A replica joins its keeper and reports a `Snapshot` of itself whenever it changes. The keeper feeds the
snapshots to the scheduler, which returns actions. The keeper sends each `MemberAction` to its replica
as an `Order`, in the `PollReply` to the replica's next poll.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cluster.residency.state import NO_CALLS, QueueCounts, State, TurnState


class Verb(StrEnum):
    """What the scheduler wants of a member. The replica does all of this but KILL."""

    START = "start"
    """Start the engine, from STOPPED."""
    WAKE = "wake"
    """Wake the engine, from ASLEEP."""
    SLEEP = "sleep"
    """Put the engine to sleep, from RESIDENT."""
    OPEN = "open"
    """Open the turn: from now on, let calls start as they come."""
    CLOSE = "close"
    """Close the turn: start only calls that arrived up to the cutoff; report when all have ended."""
    RESTART = "restart"
    """Free all that the failed engine holds and report STOPPED, or end the process."""
    KILL = "kill"
    """For the keeper: end the replica's process, because it did not restart."""


@dataclass(frozen=True, slots=True)
class MemberAction:
    """From the scheduler to its keeper: what one member has to do."""

    verb: Verb
    member: str
    """The member's name."""
    cutoff: float = -math.inf
    """For CLOSE: only calls that arrived up to this time may start, on the keeper's clock."""
    sole_member: bool = False
    """For OPEN: whether the member has its slot to itself, so that its turn needs no lease."""
    reason: str = field(default="", compare=False)
    """The reason, for the log: text that completes the sentence "... because"."""


@dataclass(frozen=True, slots=True)
class CallAt:
    """From the scheduler to its keeper: call `tick` at this time, unless an event comes first."""

    at: float
    """Time on the keeper's clock."""


Action = MemberAction | CallAt


@dataclass(frozen=True, slots=True)
class Order:
    """From the keeper to a replica: what a `MemberAction` asks of it. Only the latest order counts."""

    number: int
    """Number of the order among those of one registration, from 1."""
    verb: Verb
    cutoff_s: float = -math.inf
    """The cutoff of CLOSE in seconds from now (mostly below 0), because the two clocks differ."""
    sole_member: bool = False
    """As in `MemberAction`."""


@dataclass(frozen=True, slots=True)
class PollReply:
    """From the keeper to a replica, in answer to a poll for the next order."""

    known: bool
    """Whether the keeper knows the replica's ticket. If not, the replica has to join again."""
    order: Order | None = None
    """None if there is no new order."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """From a replica to its keeper: what the replica's engine, turn and calls are doing."""

    state: State
    turn: TurnState = TurnState.CLOSED
    calls: QueueCounts = NO_CALLS
    took_s: float | None = None
    """Seconds that the engine's last start, sleep or wake took; None before the first."""

    def shift_times(self, by_s: float) -> "Snapshot":
        """The same snapshot with the times of its calls shifted, as `QueueCounts.shift_times` does."""
        return replace(self, calls=self.calls.shift_times(by_s))
