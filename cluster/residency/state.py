"""What the scheduler knows of a card: its slots, and the engine, turn and calls of each member.

The classes are plain data. A method makes each change of several fields, so that no field is forgotten.
Times are seconds on the keeper's clock, unless a docstring says otherwise.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum


class State(StrEnum):
    """What a member's engine is doing; `scheduler` has the table of what leads from state to state."""

    ABSENT = "absent"
    """There is no replica."""
    STOPPED = "stopped"
    """The engine is not started."""
    WAKING = "waking"
    """The engine starts or wakes."""
    RESIDENT = "resident"
    """The engine is awake."""
    FALLING_ASLEEP = "falling asleep"
    """The engine frees its memory."""
    ASLEEP = "asleep"
    """The engine has freed its memory."""
    FAILED = "failed"
    """The engine has failed and is being stopped."""


class TurnState(StrEnum):
    """Whether a member may start calls; `scheduler` has the table of what leads from state to state."""

    OPEN = "open"
    """Every call may start."""
    CLOSING = "closing"
    """Calls that arrived up to the cutoff may start, or calls are still in flight."""
    CLOSED = "closed"
    """Nothing is in flight, and no call may start."""


@dataclass(frozen=True, slots=True)
class Member:
    """A replica in the plan. It takes turns with the other members of its slot."""

    name: str
    """A name, unique on the card. The name stays when another process takes the replica's place."""
    recipe_index: int = 0
    """Position of its model in the recipe. Where all else is equal, the lowest position comes first."""
    wake_s: float = 0.0
    """Estimated seconds of a wake, until one has been measured."""
    sleep_s: float = 0.0
    """Estimated seconds of falling asleep, until a sleep has been measured."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A part of a card's memory. One member at a time is awake in it, unless it keeps all loaded."""

    name: str
    """The slot's name."""
    members: tuple[Member, ...]
    """The replicas that take turns in the slot."""
    keeps_loaded: bool = False
    """Whether all members stay awake, because sleep would free no memory. They still take turns."""


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """The calls of one member: how many there are, and the two times that the policy needs."""

    waiting: int = 0
    """Calls that have not started."""
    in_flight: int = 0
    """Calls that have started and not ended."""
    first_arrival_at: float = math.inf
    """When the oldest waiting call arrived; infinity if none waits."""
    first_due_at: float = math.inf
    """When the first waiting call runs out of patience; infinity if none ever does, as in a batch."""

    @property
    def has_any(self) -> bool:
        """Whether a call waits or is in flight."""
        return self.waiting + self.in_flight > 0

    def shift_times(self, by_s: float) -> "QueueCounts":
        """The same counts with `by_s` seconds added to both times.

        Clocks of two machines differ. So a sender subtracts its present time: then the times count from
        the sending. The receiver adds its own present time.
        """
        return replace(
            self,
            first_arrival_at=self.first_arrival_at + by_s,
            first_due_at=self.first_due_at + by_s,
        )


NO_CALLS = QueueCounts()
"""The counts of a member without calls."""


@dataclass(slots=True)
class MemberState:
    """The scheduler's view of a member, from the member's reports and from the orders to the member."""

    member: Member
    """The member's data in the plan."""
    wake_s: float
    """Seconds of the engine's last wake, or the estimate. A start from STOPPED does not count."""
    sleep_s: float
    """Seconds that the engine last took to fall asleep, or the estimate."""
    state: State = State.ABSENT
    """What the member's engine is doing."""
    state_since: float = 0.0
    """When it entered `state`, or if later, when a KILL was ordered in state FAILED."""
    calls: QueueCounts = NO_CALLS
    """The member's calls, by its last report."""
    queue_empty_at: float = 0.0
    """When the member's last call ended, or its turn opened, whichever is later."""
    turn: TurnState = TurnState.CLOSED
    """Whether the member may start calls."""
    cutoff: float = -math.inf
    """Calls that arrived up to this time may start: infinity for all calls, minus infinity for none."""
    turn_opened_at: float = 0.0
    """When its turn opened; if the slot idled after that, when the first call came to the slot."""
    turn_ended_at: float = -math.inf
    """When the member's last turn ended."""
    times_passed_over: int = 0
    """How often another member got a turn while this one wanted a turn, since its own last turn."""
    cold_start: bool = False
    """Whether WAKING is a start from STOPPED, which takes longer than a wake."""
    failures: int = 0
    """Failures in a row."""
    retry_at: float = -math.inf
    """The member has failed and gets no turn before this time."""

    @property
    def name(self) -> str:
        return self.member.name

    @property
    def waits_since(self) -> float:
        """When its oldest waiting call arrived; if no call waits, when its engine entered its state."""
        return self.calls.first_arrival_at if self.calls.waiting else self.state_since

    def wants_turn(self, now: float) -> bool:
        """Whether it should get a turn: calls wait, or its engine is stopped and has to be started."""
        if self.state in (State.ABSENT, State.FAILED) or now < self.retry_at:
            return False
        return self.calls.waiting > 0 or self.state is State.STOPPED

    def enter(self, state: State, now: float) -> None:
        """Set the state of the member's engine. `state_since` stays if the state is not new."""
        if self.state is not state:
            self.state = state
            self.state_since = now

    def take_over_turn(self, turn: TurnState, now: float) -> None:
        """Set the turn with which the member joined, as an earlier keeper of the card had left it."""
        self.turn = turn
        self.turn_opened_at = now

    def open_turn(self, now: float) -> None:
        """Set the turn to OPEN: every call of the member may start."""
        self.turn = TurnState.OPEN
        self.cutoff = math.inf
        self.turn_opened_at = now
        self.queue_empty_at = now
        self.times_passed_over = 0

    def close_turn(self, cutoff: float) -> None:
        """Set the turn to CLOSING: only calls of the member that arrived up to `cutoff` may start."""
        self.turn = TurnState.CLOSING
        self.cutoff = cutoff

    def end_turn(self, now: float) -> None:
        """Set the turn to CLOSED: no call of the member is in flight, and no call may start."""
        self.turn = TurnState.CLOSED
        self.cutoff = -math.inf
        self.turn_ended_at = now

    def back_off(self, wait_s: float, now: float) -> None:
        """Count a failure; the member gets no turn for `wait_s` seconds."""
        self.failures = min(self.failures + 1, 30)
        self.retry_at = now + wait_s


@dataclass(slots=True)
class SlotState:
    """A slot and the state of its members."""

    slot: Slot
    """The slot in the plan."""
    members: list[MemberState]
    """The state of each member, in the order of `slot.members`."""
    last_holder: MemberState | None = None
    """The member that had the last turn."""
    not_joined: set[str] = field(default_factory=set)
    """Names of members that have neither joined this keeper nor been reported dead."""
    step_wanted_since: float = math.inf
    """Since when the slot needs an engine to start, wake or fall asleep; infinity if it needs none."""

    @property
    def keeps_loaded(self) -> bool:
        """As in `Slot`."""
        return self.slot.keeps_loaded

    @property
    def holder(self) -> MemberState | None:
        """The member whose turn is not closed; None if there is none."""
        return next((m for m in self.members if m.turn is not TurnState.CLOSED), None)

    def is_idle(self, now: float) -> bool:
        """Whether no member has a call or wants a turn."""
        return not any(m.calls.has_any or m.wants_turn(now) for m in self.members)

    def swap_s(self, holder: MemberState, rival: MemberState) -> float:
        """Seconds to put `holder` to sleep and wake `rival`; 0 if the slot keeps all loaded."""
        return 0.0 if self.keeps_loaded else holder.sleep_s + rival.wake_s

    def open_turn(self, member: MemberState, now: float) -> None:
        """Open the turn of `member`; the others that want a turn are passed over."""
        for other in self.members:
            if other is not member and other.wants_turn(now):
                other.times_passed_over += 1
        member.open_turn(now)

    def end_turn(self, member: MemberState, now: float) -> None:
        """End the turn of `member`, if it has one."""
        if member.turn is not TurnState.CLOSED:
            member.end_turn(now)
            self.last_holder = member

    def count(self, member: MemberState, calls: QueueCounts, now: float) -> None:
        """Replace the counts of a member's calls by new ones."""
        if member.calls.has_any and not calls.has_any:
            member.queue_empty_at = now
        elif calls.has_any and self.is_idle(now):
            # Rule 2 of `policy`: the slot idled, so the time of its turn counts from now.
            for holder in self.members:
                holder.turn_opened_at = now
        member.calls = calls
