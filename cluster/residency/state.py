"""What the scheduler knows of a card: its slots, their members, and how each member stands.

Plain data. Each change of several fields is a method, so that no field is forgotten. Times are seconds
on the keeper's clock, unless a docstring says otherwise.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum


class State(StrEnum):
    """What a member's engine is doing; `scheduler` has the table of what leads from state to state."""

    ABSENT = "absent"
    STOPPED = "stopped"
    WAKING = "waking"
    RESIDENT = "resident"
    FALLING_ASLEEP = "falling asleep"
    ASLEEP = "asleep"
    FAILED = "failed"


class TurnState(StrEnum):
    """Whether a member may start calls; `scheduler` has the table of what leads from state to state."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Member:
    """A replica as the plan has it: it takes turns with the other members of its slot."""

    name: str
    """Unique on its card. It stays the same when another process takes the replica's place."""
    recipe_index: int = 0
    """Position of its model in the recipe. The lower one comes first where all else is equal."""
    wake_s: float = 0.0
    """Estimated seconds of a wake, until one has been measured."""
    sleep_s: float = 0.0
    """Estimated seconds of falling asleep, until they have been measured."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A share of a card's memory, which houses one awake member at a time."""

    name: str
    members: tuple[Member, ...]
    keeps_loaded: bool = False
    """All members stay awake, because sleeping would free no memory. They still take turns."""


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """The calls of one member: how many there are, and the two times that the policy needs."""

    waiting: int = 0
    in_flight: int = 0
    first_arrival_at: float = math.inf
    """When the oldest waiting call arrived; infinity if none waits."""
    first_due_at: float = math.inf
    """When the first waiting call runs out of patience; infinity if all calls are of a batch."""

    @property
    def has_any(self) -> bool:
        return self.waiting + self.in_flight > 0

    def shift_times(self, by_s: float) -> "QueueCounts":
        """The same counts with `by_s` seconds added to both times.

        Clocks of two machines differ. A sender subtracts its own time, so that the times count from the
        sending; the receiver adds its own.
        """
        return replace(
            self,
            first_arrival_at=self.first_arrival_at + by_s,
            first_due_at=self.first_due_at + by_s,
        )


NO_CALLS = QueueCounts()


@dataclass(slots=True)
class MemberState:
    """What is believed of a member, from its reports and from the orders that it was given."""

    member: Member
    wake_s: float
    """Seconds of its last wake, or the estimate. A start from STOPPED does not count."""
    sleep_s: float
    """Seconds that it last took to fall asleep, or the estimate."""
    state: State = State.ABSENT
    state_since: float = 0.0
    """When it entered `state`; for FAILED also when its last KILL was ordered."""
    calls: QueueCounts = NO_CALLS
    queue_empty_at: float = 0.0
    """When its last call ended, or its turn opened, whichever is later."""
    turn: TurnState = TurnState.CLOSED
    cutoff: float = -math.inf
    """Calls that arrived up to this time may start: infinity for all calls, minus infinity for none."""
    turn_opened_at: float = 0.0
    """When its turn opened; later, if the slot then idled: when the first call came to the slot."""
    turn_ended_at: float = -math.inf
    """When its last turn ended."""
    times_passed_over: int = 0
    """How often another member got a turn while this one wanted it, since its own last turn."""
    cold_start: bool = False
    """Whether WAKING is a start from STOPPED, which takes longer than a wake."""
    failures: int = 0
    """Failures in a row."""
    retry_at: float = -math.inf
    """It gets no turn before this time, because it failed."""

    @property
    def name(self) -> str:
        return self.member.name

    @property
    def waits_since(self) -> float:
        """When its oldest call arrived, or since when its engine waits for its first start."""
        return self.calls.first_arrival_at if self.calls.waiting else self.state_since

    def wants_turn(self, now: float) -> bool:
        """Whether it should get a turn: calls wait, or its engine has not been started yet."""
        if self.state in (State.ABSENT, State.FAILED) or now < self.retry_at:
            return False
        return self.calls.waiting > 0 or self.state is State.STOPPED

    def enter(self, state: State, now: float) -> None:
        if self.state is not state:
            self.state = state
            self.state_since = now

    def take_over_turn(self, turn: TurnState, now: float) -> None:
        """It joined with a turn that another keeper gave."""
        self.turn = turn
        self.turn_opened_at = now

    def open_turn(self, now: float) -> None:
        self.turn = TurnState.OPEN
        self.cutoff = math.inf
        self.turn_opened_at = now
        self.queue_empty_at = now
        self.times_passed_over = 0

    def close_turn(self, cutoff: float) -> None:
        """From now on only calls that arrived up to `cutoff` may start."""
        self.turn = TurnState.CLOSING
        self.cutoff = cutoff

    def end_turn(self, now: float) -> None:
        """Nothing is in flight, and nothing may start."""
        self.turn = TurnState.CLOSED
        self.cutoff = -math.inf
        self.turn_ended_at = now

    def back_off(self, wait_s: float, now: float) -> None:
        """It failed: give it no turn for `wait_s`."""
        self.failures = min(self.failures + 1, 30)
        self.retry_at = now + wait_s


@dataclass(slots=True)
class SlotState:
    """A slot and how its members stand."""

    slot: Slot
    members: list[MemberState]
    last_holder: MemberState | None = None
    """The member that had the last turn."""
    not_joined: set[str] = field(default_factory=set)
    """Members that have neither joined this keeper nor been reported dead."""
    step_wanted_since: float = math.inf
    """Since when the slot needs a step of an engine; infinity if it needs none."""

    @property
    def keeps_loaded(self) -> bool:
        return self.slot.keeps_loaded

    @property
    def holder(self) -> MemberState | None:
        """The member whose turn is not closed."""
        return next((m for m in self.members if m.turn is not TurnState.CLOSED), None)

    def is_idle(self, now: float) -> bool:
        """Whether no member has or wants a call."""
        return not any(m.calls.has_any or m.wants_turn(now) for m in self.members)

    def swap_s(self, holder: MemberState, rival: MemberState) -> float:
        """Seconds to put `holder` to sleep and to wake `rival`."""
        return 0.0 if self.keeps_loaded else holder.sleep_s + rival.wake_s

    def open_turn(self, member: MemberState, now: float) -> None:
        for other in self.members:
            if other is not member and other.wants_turn(now):
                other.times_passed_over += 1
        member.open_turn(now)

    def end_turn(self, member: MemberState, now: float) -> None:
        if member.turn is not TurnState.CLOSED:
            member.end_turn(now)
            self.last_holder = member

    def count(self, member: MemberState, calls: QueueCounts, now: float) -> None:
        """Take over a member's new counts."""
        if member.calls.has_any and not calls.has_any:
            member.queue_empty_at = now
        elif calls.has_any and self.is_idle(now):
            for holder in self.members:  # rule 2 of `policy`: a turn that idled begins now
                holder.turn_opened_at = now
        member.calls = calls
