"""When a turn ends, and whose turn is next: the rules of `residency`, without its bookkeeping.

1. Collate: an open turn goes on while nobody else in the slot waits. When another waits, the calls
   that are here already are still served; later ones wait for the next turn.
2. Do not swap to save a fraction of a swap: that gate falls no sooner than `linger_share` of the
   swap's cost after the other began to wait, and a turn that has work lasts `least_costs` swaps,
   counted from the first call to the slot if it idled before: the rest of a batch comes a moment
   after that. A turn that has run dry lingers for `linger_share` only.
3. A call out of patience ends the turn after the calls in flight, but not before the turn has
   lasted one swap and `least_turn_s`: under overload nobody is patient, and there must be progress.
4. Next is the longest queue, ties in the order of the recipe: proposers come before the
   aggregator that waits for them. Two kinds of members come before that, the one whose last turn
   is longest ago first: out of patience, or passed over as often as the slot has members.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class State(StrEnum):
    """Where a member's engine is. ABSENT: there is no replica. FAILED: it must be made anew."""

    ABSENT = "absent"
    STOPPED = "stopped"
    WAKING = "waking"
    RESIDENT = "resident"
    FALLING_ASLEEP = "falling asleep"
    ASLEEP = "asleep"
    FAILED = "failed"


class Turn(StrEnum):
    """CLOSING: some calls may still run or start. CLOSED: nothing is in flight, nothing may start."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers of the rules, and how long to wait for what may never come."""

    linger_share: float = 0.1
    """Rule 2, as a share of a swap's cost."""
    least_costs: float = 2.0
    """Rule 2, in swaps."""
    least_turn_s: float = 1.0
    """Rule 3."""
    absent_s: float = 8.0
    """A new keeper waits so long for members to show themselves. Longer than their lease."""
    settle_s: float = 0.0
    """A dead engine's memory comes back so much later: no step on the card before that."""
    stuck_s: float = 300.0
    """Longest sleep or wake; then it has failed."""
    start_stuck_s: float = 3600.0
    """Longest start; then it has failed."""
    restart_s: float = 10.0
    """A failed replica that has not restarted by then is killed."""
    retry_s: float = 1.0
    """Wait before a failed member is started again; doubles with each failure in a row."""
    retry_most_s: float = 60.0
    """Longest such wait."""


@dataclass(frozen=True, slots=True)
class Member:
    """One replica of one model. order: its place in the recipe; seconds are estimates at first."""

    name: str
    order: int = 0
    wake_s: float = 0.0
    sleep_s: float = 0.0


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """A member's queue. oldest: arrival of the first waiting call; due: when the first of them runs
    out of patience, infinity for a batch."""

    waiting: int = 0
    in_flight: int = 0
    oldest: float = math.inf
    due: float = math.inf

    @property
    def any(self) -> bool:
        return self.waiting + self.in_flight > 0

    def shifted(self, by_s: float) -> "QueueCounts":
        """The same with times of another clock, which shows so much more."""
        return replace(self, oldest=self.oldest + by_s, due=self.due + by_s)


NO_CALLS = QueueCounts()


@dataclass(slots=True)
class MemberState:
    """What is believed of a member. since: of its state; opened, dry, ended: of its turns.
    opened is later than the turn's begin if the slot idled: rule 2."""

    member: Member
    wake_s: float
    sleep_s: float
    state: State = State.ABSENT
    turn: Turn = Turn.CLOSED
    gate: float = -math.inf
    calls: QueueCounts = NO_CALLS
    since: float = 0.0
    opened: float = 0.0
    dry: float = 0.0
    ended: float = -math.inf
    passed: int = 0
    cold: bool = False
    failures: int = 0
    retry_at: float = -math.inf

    def wants(self, now: float) -> bool:
        """Whether it should get a turn: calls wait, or its engine was never started."""
        if self.state in (State.ABSENT, State.FAILED) or now < self.retry_at:
            return False
        return self.calls.waiting > 0 or self.state is State.STOPPED

    @property
    def waits_since(self) -> float:
        return self.calls.oldest if self.calls.waiting else self.since


def next_turn(
    standings: Sequence[MemberState], last: MemberState | None, now: float
) -> MemberState | None:
    """Rule 4. `last` had the last turn, and gets the next one only if nobody else wants it."""
    wanting = [standing for standing in standings if standing.wants(now)]
    others = [standing for standing in wanting if standing is not last] or wanting
    first = [
        standing
        for standing in others
        if standing.calls.due <= now or standing.passed >= len(standings)
    ]
    if first:
        return min(
            first, key=lambda standing: (standing.ended, standing.waits_since, standing.member.order)
        )
    return max(others, key=_pull, default=None)


def _pull(standing: MemberState) -> tuple[int, int]:
    # Engines that nobody waits for yet start backwards, so that the first proposer is left awake.
    return (
        standing.calls.waiting,
        -standing.member.order if standing.calls.waiting else standing.member.order,
    )


@dataclass(frozen=True, slots=True)
class Ending:
    """soft_at: when the gate falls behind the present queue (rules 1 and 2); hard_at: when nothing
    more may start (rule 3)."""

    soft_at: float
    hard_at: float


def ending(holder: MemberState, rivals: Sequence[MemberState], cost_s: float, policy: Policy) -> Ending:
    """When the turn of `holder` ends, if `rivals` want the slot and a swap costs `cost_s`."""
    linger_s = policy.linger_share * cost_s
    waited_since = min(standing.waits_since for standing in rivals)
    if holder.calls.any:
        soft_at = max(waited_since + linger_s, holder.opened + policy.least_costs * cost_s)
    else:
        soft_at = max(waited_since, holder.dry) + linger_s
    due = min(standing.calls.due for standing in rivals)
    return Ending(soft_at, max(due, holder.opened + max(policy.least_turn_s, cost_s)))
