"""The scheduler's view of a card: what it knows of each member and each slot, as plain data.

A method makes each change of several fields, so that no field is forgotten. Times are seconds on the
keeper's clock.
"""

import math
from dataclasses import dataclass, field

from cluster.residency.messages import Snapshot, Verb
from cluster.residency.state import NO_CALLS, Member, QueueCounts, Slot, State, TurnState


@dataclass(slots=True)
class MemberState:
    """The scheduler's view of a member, from the member's reports and from the orders to the member."""

    member: Member
    """The member's data in the plan."""
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
    has_slept: bool = False
    """Whether the engine has slept since its last start, so that its host RAM is allocated."""
    is_up: bool = False
    """Whether the replica may take its first calls: its engine has been started and has slept once."""
    failures: int = 0
    """Failures in a row."""
    failure: str = ""
    """Why the engine failed the last time."""
    retry_at: float = -math.inf
    """The member has failed and gets no turn before this time."""
    seconds: dict[Verb, float] = field(default_factory=dict)
    """Seconds of the engine's last start, stop, sleep and wake; predicted until measured."""

    def __post_init__(self) -> None:
        planned = self.member
        self.seconds = {
            Verb.START: planned.start_s,
            Verb.STOP: planned.stop_s,
            Verb.SLEEP: planned.sleep_s,
            Verb.WAKE: planned.wake_s,
        } | self.seconds

    @property
    def name(self) -> str:
        return self.member.name

    @property
    def is_unloaded(self) -> bool:
        """Whether its engine has to be started from disk before it can have a turn."""
        return self.state in (State.NOT_STARTED, State.STOPPED)

    @property
    def has_lost_engine(self) -> bool:
        """Whether its engine failed and was ended, although the plan keeps the engine asleep."""
        return self.state is State.STOPPED and not self.member.stops

    @property
    def waits_since(self) -> float:
        """When its oldest waiting call arrived; if no call waits, when its engine entered its state."""
        return self.calls.first_arrival_at if self.calls.waiting else self.state_since

    @property
    def leave_verb(self) -> Verb:
        """The order by which its engine leaves the card: STOP or SLEEP, by the plan."""
        return Verb.STOP if self.member.stops else Verb.SLEEP

    @property
    def return_verb(self) -> Verb:
        """The order by which its engine comes back: START if it is stopped or will be, else WAKE."""
        return Verb.START if self.is_unloaded or self.member.stops else Verb.WAKE

    def may_step(self, now: float) -> bool:
        """Whether there is a replica whose engine has not failed just now."""
        return self.state not in (State.ABSENT, State.FAILED) and now >= self.retry_at

    def snapshot(self) -> Snapshot:
        """The member's state for whoever asks for the state of the card."""
        return Snapshot(
            self.state,
            self.turn,
            self.calls,
            has_slept=self.has_slept,
            failure=self.failure,
        )

    def enter(self, state: State, now: float) -> None:
        """Set the state of the member's engine. `state_since` stays if the state is not new."""
        if self.state is not state:
            self.state = state
            self.state_since = now
        if state is State.RESIDENT:
            self.failures = 0
        if state in (State.ABSENT, State.NOT_STARTED):
            self.is_up = False
        if state is State.ASLEEP:
            self.has_slept = True
        elif self.is_unloaded or state is State.ABSENT:
            self.has_slept = False

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
    """Since when the slot needs a step of an engine; infinity if it needs none."""

    @property
    def keeps_loaded(self) -> bool:
        """As in `Slot`."""
        return self.slot.keeps_loaded

    @property
    def is_shared(self) -> bool:
        """Whether its members leave the card for each other."""
        return len(self.members) > 1 and not self.keeps_loaded

    @property
    def holder(self) -> MemberState | None:
        """The member whose turn is not closed; None if there is none."""
        return next((m for m in self.members if m.turn is not TurnState.CLOSED), None)

    @property
    def awake(self) -> list[MemberState]:
        """The members whose engines are awake. The member that had the last turn comes first."""
        found = [member for member in self.members if member.state is State.RESIDENT]
        return sorted(found, key=lambda member: member is not self.last_holder)

    def wants_turn(self, member: MemberState, now: float) -> bool:
        """Whether a member should get a turn: calls wait for it, or its replica is new.

        A stopped member wants no turn until a call waits. Where all stay loaded, an engine starts
        beside the others and needs no turn for that.
        """
        if self.keeps_loaded and member.state is not State.RESIDENT:
            return False
        has_need = member.calls.waiting > 0 or member.state is State.NOT_STARTED
        return has_need and member.may_step(now)

    def wanting(self, now: float) -> list[MemberState]:
        """The members that should get a turn."""
        return [member for member in self.members if self.wants_turn(member, now)]

    def to_load(self, now: float) -> list[MemberState]:
        """In a slot that keeps all loaded: the members whose engines are not loaded."""
        if not self.keeps_loaded:
            return []
        unloaded = [m for m in self.members if m.is_unloaded or m.state is State.ASLEEP]
        return [member for member in unloaded if member.may_step(now)]

    def owes_sleep(self, member: MemberState) -> bool:
        """Whether an awake engine has to sleep once before its replica takes calls.

        The first sleep takes much longer than the others, because it allocates host RAM. No user
        should wait for that, and the plan's predicted seconds are replaced by measured ones.
        """
        is_settled = member.has_slept or member.member.stops or member.calls.has_any
        return self.is_shared and member.state is State.RESIDENT and not is_settled

    def idle_since(self) -> float:
        """Since when no call has waited or been in flight; infinity if there is such a call now."""
        if any(member.calls.has_any for member in self.members):
            return math.inf
        return max(member.queue_empty_at for member in self.members)

    def to_restore(self, now: float) -> list[MemberState]:
        """The members to start again while nobody asks, because they have lost their engines."""
        if self.keeps_loaded:
            return []  # their engines start beside the others
        return [m for m in self.members if m.has_lost_engine and m.may_step(now)]

    def first_to_return(self, now: float) -> MemberState | None:
        """The first member of the recipe, to bring it back when no call waits and all members are away.

        A new question begins with that member. None if a member is not away: its engine is awake or in
        a step, or its replica is about to start one. None also while the first member has just failed.
        """
        away = (State.ASLEEP, State.STOPPED) if self.is_shared else (State.STOPPED,)
        if any(member.state not in away for member in self.members):
            return None
        first = min(self.members, key=lambda member: member.member.recipe_index)
        return first if first.may_step(now) else None

    def swap_s(self, holder: MemberState, rival: MemberState) -> float:
        """Seconds until `holder` has left the card and `rival` is back; 0 if all stay loaded."""
        if self.keeps_loaded:
            return 0.0
        return holder.seconds[holder.leave_verb] + rival.seconds[rival.return_verb]

    def open_turn(self, member: MemberState, now: float) -> None:
        """Open the turn of `member`; the others that want a turn are passed over."""
        for other in self.wanting(now):
            if other is not member:
                other.times_passed_over += 1
        member.open_turn(now)

    def end_turn(self, member: MemberState, now: float) -> None:
        """End the turn of `member`, if it has one."""
        if member.turn is not TurnState.CLOSED:
            member.end_turn(now)
            self.last_holder = member

    def count(self, member: MemberState, calls: QueueCounts, now: float) -> None:
        """Replace the counts of a member's calls by new ones."""
        was_idle = not self.wanting(now) and self.idle_since() < math.inf
        if member.calls.has_any and not calls.has_any:
            member.queue_empty_at = now
        elif calls.has_any and was_idle:
            # Rule 2 of `policy`: the slot idled, so the time of its turn counts from now.
            for holder in self.members:
                holder.turn_opened_at = now
        member.calls = calls
