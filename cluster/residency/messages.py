"""The actions that the scheduler returns to its keeper, and the messages between keeper and replicas.

The keeper of a card runs the scheduler and talks with the card's replicas. A replica joins its keeper
and reports a `Snapshot` whenever its own state changes. The keeper passes the snapshots to the
scheduler, which returns actions. The keeper sends each `MemberAction` to the member's replica as an
`Order`, in the `PollReply` to the replica's next poll.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cluster.residency.state import NO_CALLS, QueueCounts, State, TurnState


class Verb(StrEnum):
    """What the scheduler wants of a member. The replica does all of this but KILL."""

    START = "start"
    """Start the engine from disk, from NOT_STARTED or STOPPED."""
    STOP = "stop"
    """End the engine in good order, from RESIDENT."""
    WAKE = "wake"
    """Wake the engine, from ASLEEP."""
    SLEEP = "sleep"
    """Put the engine to sleep, from RESIDENT."""
    OPEN = "open"
    """Open the turn: from now on, let calls start as they come."""
    CLOSE = "close"
    """Close the turn: start only calls that arrived up to the cutoff; report when all have ended."""
    RESTART = "restart"
    """Free all that the failed engine holds and report that it is stopped, or end the process."""
    KILL = "kill"
    """The keeper ends the replica's process, because its engine did not restart in time."""


BRINGS_BACK = (Verb.START, Verb.WAKE)
"""The orders that end a swap: an engine comes back to the card."""


@dataclass(frozen=True, slots=True)
class MemberAction:
    """The scheduler tells its keeper to have `member` carry out `verb`."""

    verb: Verb
    """What the member has to do."""
    member: str
    """The member's name."""
    cutoff: float = -math.inf
    """For CLOSE: only calls that arrived up to this time on the keeper's clock may start."""
    sole_member: bool = False
    """For OPEN: whether the member has its slot to itself, so that its turn needs no lease."""
    reason: str = field(default="", compare=False)
    """The reason, for the log: text that completes the sentence "... because"."""


@dataclass(frozen=True, slots=True)
class CallAt:
    """The scheduler asks its keeper to call `tick` at the time `at`, unless an event comes before."""

    at: float
    """Time on the keeper's clock."""


Action = MemberAction | CallAt


@dataclass(frozen=True, slots=True)
class Order:
    """From the keeper to a replica: what a `MemberAction` asks of it. Only the latest order counts."""

    number: int
    """Number of the order among those of one registration, from 1."""
    verb: Verb
    """What the replica has to do."""
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
    is_up: bool = False
    """Whether the replica may take its first calls. All engines of a slot are tried before that."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State, turn and calls of one replica at one moment.

    A replica reports a snapshot to its keeper. The keeper also describes each member by a snapshot to
    whoever asks for the state of the card.
    """

    state: State
    """What the replica's engine is doing."""
    turn: TurnState = TurnState.CLOSED
    """Whether the replica may start calls."""
    calls: QueueCounts = NO_CALLS
    """The replica's calls."""
    took_s: float | None = None
    """Seconds that the engine's last step took; None before the first."""
    has_slept: bool = False
    """Whether the engine has slept since its last start."""
    failure: str = ""
    """Why the engine failed the last time; empty if it never did."""

    def shift_times(self, by_s: float) -> "Snapshot":
        """The same snapshot with `by_s` seconds added to the two times in its `calls`."""
        return replace(self, calls=self.calls.shift_times(by_s))
