"""What is said between a card's keeper and its replicas: orders one way, how things stand the other."""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from cluster.residency.policy import NO_CALLS, QueueCounts, State, Turn


class Verb(StrEnum):
    """What a member can be told to do. CLOSE: start only calls that arrived before the gate, drain,
    report. RESTART: make the engine anew, or die. KILL is for the keeper: it did not restart."""

    START = "start"
    WAKE = "wake"
    SLEEP = "sleep"
    OPEN = "open"
    CLOSE = "close"
    RESTART = "restart"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class MemberAction:
    """An order to a member. before: the gate of CLOSE. sole: of OPEN, the member has the slot to
    itself, so that its turn needs no lease."""

    verb: Verb
    member: str
    before: float = -math.inf
    sole: bool = False


@dataclass(frozen=True, slots=True)
class CallAt:
    """Call `tick` at this time."""

    at: float


Action = MemberAction | CallAt


@dataclass(frozen=True, slots=True)
class Order:
    """A `MemberAction` on its way to the replica. number: the latest one counts; before_s: the gate of
    CLOSE, in seconds from now (so below 0), since clocks differ."""

    number: int
    verb: Verb
    before_s: float = -math.inf
    sole: bool = False


@dataclass(frozen=True, slots=True)
class PollReply:
    """To a poll. known: False if the replica has to join (again)."""

    known: bool
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A replica as it is. took_s: seconds of its last start, sleep or wake."""

    state: State
    turn: Turn = Turn.CLOSED
    calls: QueueCounts = NO_CALLS
    took_s: float | None = None

    def shifted(self, by_s: float) -> "Snapshot":
        """The same with times of another clock, which shows so much more."""
        return replace(self, calls=self.calls.shifted(by_s))
