"""Who is awake, who sleeps, who waits: one card, its slots, and the turns of their members.

Pure and synchronous: events come in with the time, actions come out. No clock, no Ray, no I/O. What
is believed of a member changes only by what was ordered and by what its replica reports.

States of a member's engine:

| state          | meaning                     | what leads out of it                             |
| -------------- | --------------------------- | ------------------------------------------------ |
| ABSENT         | no replica has joined       | a replica joins -> the state that it brings      |
| STOPPED        | the engine is not started   | order START -> WAKING                            |
| WAKING         | the engine starts or wakes  | report -> RESIDENT; it takes too long -> FAILED  |
| RESIDENT       | awake; serves in its turn   | order SLEEP -> FALLING_ASLEEP                    |
| FALLING_ASLEEP | the engine frees its memory | report -> ASLEEP; it takes too long -> FAILED    |
| ASLEEP         | waits for its next turn     | order WAKE -> WAKING                             |
| FAILED         | ordered to RESTART          | report -> STOPPED; too late -> KILL is ordered   |

From every state the report of a failure leads to FAILED, and the death of the process to ABSENT.

States of its turn; a failure or a death leads to CLOSED at once:

| turn    | meaning                                 | what leads out of it               |
| ------- | --------------------------------------- | ---------------------------------- |
| CLOSED  | nothing is in flight, nothing may start | order OPEN -> OPEN                 |
| OPEN    | each call may start                     | order CLOSE -> CLOSING             |
| CLOSING | calls up to the cutoff may start        | report that none is left -> CLOSED |

Always:
- at most one member of a slot is awake (unless the slot keeps all loaded), and at most one has a
  turn that is not closed;
- at most one engine of the card starts, falls asleep, wakes or restarts at a time, because vLLM's
  memory steps read the whole card. Nothing holds this lock but the state of a member, so it cannot
  outlive the member;
- a member is put to sleep only after it has reported that its turn is closed: nothing is in flight.

Nobody starves. While nothing fails, a member with a waiting call gets its turn no later than

    (M - 1) * (Q + D + S) + S

after that call ran out of patience, or after the end of the member's last turn if that is later (a
backlog can take several turns): M members in the slot, Q the least turn under rule 3 of `policy`, D
the longest call, S the longest swap, with the steps of the card's other slots that come before it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.residency.messages import Action, CallAt, MemberAction, Snapshot, Verb
from cluster.residency.policy import Policy, choose_next, turn_end
from cluster.residency.state import (
    NO_CALLS,
    MemberState,
    QueueCounts,
    Slot,
    SlotState,
    State,
    TurnState,
)

BLOCKS_CARD = (State.WAKING, State.FALLING_ASLEEP, State.FAILED)
"""States of an engine whose use of memory is in motion."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A step that a slot needs of an engine: SLEEP, WAKE or START."""

    verb: Verb
    member: MemberState
    reason: str


class ResidencyScheduler:
    """Decides for one card. Each event returns the actions that follow from it."""

    def __init__(self, slots: Sequence[Slot], policy: Policy | None = None) -> None:
        self._policy = policy or Policy()
        self._slots = [
            SlotState(
                slot,
                [MemberState(member, member.wake_s, member.sleep_s) for member in slot.members],
                not_joined={member.name for member in slot.members},
            )
            for slot in slots
        ]
        self._members = {member.name: member for slot in self._slots for member in slot.members}
        self._slots_by_member = {member.name: slot for slot in self._slots for member in slot.members}
        self._join_wait_ends_at = math.inf
        self._settled_at = -math.inf
        self._actions: list[Action] = []
        self._call_at = math.inf

    def snapshots(self) -> dict[str, Snapshot]:
        """What is believed of every member."""
        return {name: Snapshot(m.state, m.turn, m.calls) for name, m in self._members.items()}

    def on_join(self, now: float, name: str, found: Snapshot) -> list[Action]:
        """A replica joins, new or not, as it is: its turn is open only if `found` says so."""
        member, slot = self._members[name], self._slots_by_member[name]
        slot.not_joined.discard(name)
        # A wake that another keeper ordered may be a start: it gets the longer time.
        was_waking = member.state is State.WAKING
        member.cold_start = found.state is State.WAKING and (member.cold_start or not was_waking)
        slot.end_turn(member, now)
        member.enter(found.state, now)
        slot.count(member, found.calls, now)
        member.take_over_turn(found.turn, now)
        if found.state is State.FAILED:
            self._fail(member, now, "its engine failed")
        elif found.turn is TurnState.OPEN and len(slot.members) > 1:
            self._close(member, -math.inf, "it joined with an open turn")
        return self._decide(now)

    def on_leave(self, now: float, name: str) -> list[Action]:
        """The replica's process is dead."""
        member, slot = self._members[name], self._slots_by_member[name]
        slot.not_joined.discard(name)
        if member.state not in (State.ABSENT, State.STOPPED):
            self._settled_at = now + self._policy.settle_s
        if member.state is State.WAKING:
            self._back_off(member, now)
        slot.end_turn(member, now)
        member.enter(State.ABSENT, now)
        slot.count(member, NO_CALLS, now)
        return self._decide(now)

    def on_report(self, now: float, name: str, found: Snapshot) -> list[Action]:
        """A replica that knows its last order reports how it stands."""
        member, slot = self._members[name], self._slots_by_member[name]
        slot.count(member, found.calls, now)
        match member.state, found.state:
            case before, State.FAILED if before is not State.FAILED:
                self._fail(member, now, "its engine failed")
            case State.WAKING, State.RESIDENT:
                if found.took_s is not None and not member.cold_start:
                    member.wake_s = found.took_s
                member.failures = 0
                member.enter(State.RESIDENT, now)
            case State.FALLING_ASLEEP, State.ASLEEP:
                member.sleep_s = member.sleep_s if found.took_s is None else found.took_s
                member.enter(State.ASLEEP, now)
            case State.FAILED, State.STOPPED:
                self._settled_at = now + self._policy.settle_s
                member.enter(State.STOPPED, now)
        if member.turn is TurnState.CLOSING and found.turn is TurnState.CLOSED:
            slot.end_turn(member, now)
        return self._decide(now)

    def on_queue(self, now: float, name: str, calls: QueueCounts) -> list[Action]:
        """A replica that may not know its last order yet reports its calls."""
        self._slots_by_member[name].count(self._members[name], calls, now)
        return self._decide(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        return self._decide(now)

    def _decide(self, now: float) -> list[Action]:
        """Every event ends here.

        1. Engines that have taken too long fail, and replicas that have not restarted are killed.
        2. Each slot opens or closes a turn, or else names the step that it needs of an engine.
        3. If the card is free, one such step begins: that of the slot that has waited longest for one.
        4. If the passing of time alone can change a decision, the keeper is to call `tick` then.
        """
        if self._join_wait_ends_at == math.inf:
            self._join_wait_ends_at = now + self._policy.join_wait_s
        self._call_at = math.inf
        for member in self._members.values():  # (1)
            self._give_up(member, now)
        steps = [self._decide_turn(slot, now) for slot in self._slots]  # (2)
        self._begin_step(steps, now)  # (3)
        actions, self._actions = self._actions, []
        if self._call_at < math.inf:  # (4)
            actions.append(CallAt(self._call_at))
        return actions

    def _give_up(self, member: MemberState, now: float) -> None:
        """Nothing is waited for without end: not a start, sleep or wake, and not a restart."""
        policy = self._policy
        if member.state is State.FAILED:
            if self._is_reached(now, member.state_since + policy.restart_timeout_s):
                reason = f"it did not restart within {policy.restart_timeout_s:g} s"
                self._order(Verb.KILL, member, reason)
                member.state_since = now
                self._request_tick(now + policy.restart_timeout_s)
        elif member.state in (State.WAKING, State.FALLING_ASLEEP):
            longest_s = policy.start_timeout_s if member.cold_start else policy.step_timeout_s
            if self._is_reached(now, member.state_since + longest_s):
                self._fail(member, now, f"it was {member.state} for {longest_s:g} s")
                self._request_tick(now + policy.restart_timeout_s)

    def _decide_turn(self, slot: SlotState, now: float) -> _Step | None:
        """Open or close a turn of a slot, or return the step that it needs of an engine.

        1. A member has not joined yet, and the wait for it is not over: nothing.
        2. A member holds the turn: close it, if it is time.
        3. No member wants a turn, and none is awake: nothing.
        4. Another member than the next one is awake, and both do not fit: it has to sleep.
        5. The next member sleeps, or has no engine yet: it has to wake.
        6. The next member is awake: its turn opens.
        7. The next member is waking or falling asleep: nothing, until it reports.
        """
        if slot.not_joined and not self._is_reached(now, self._join_wait_ends_at):  # (1)
            return None
        for member in slot.members:
            self._is_reached(now, member.retry_at)  # it wants a turn from then on
        if slot.holder is not None:  # (2)
            self._close_if_due(slot, slot.holder, now)
            return None
        wanting = choose_next(slot.members, slot.last_holder, now)
        chosen = wanting or self._idle_choice(slot)
        if chosen is None:  # (3)
            return None
        awake = [m for m in slot.members if m is not chosen and m.state is State.RESIDENT]
        if awake and not slot.keeps_loaded:  # (4)
            return _Step(Verb.SLEEP, awake[0], f"{chosen.name} is next")
        if chosen.state is State.STOPPED:  # (5)
            return _Step(Verb.START, chosen, "its engine is stopped")
        if chosen.state is State.ASLEEP:  # (5)
            return _Step(Verb.WAKE, chosen, _waiting(chosen))
        if chosen.state is State.RESIDENT:  # (6)
            self._open(slot, chosen, now, _waiting(chosen) if wanting else "no other member has calls")
        return None  # (7)

    def _idle_choice(self, slot: SlotState) -> MemberState | None:
        """A member whose turn is open while nobody wants one, so that its calls start at once."""
        awake = [member for member in slot.members if member.state is State.RESIDENT]
        return slot.last_holder if slot.last_holder in awake else next(iter(awake), None)

    def _close_if_due(self, slot: SlotState, holder: MemberState, now: float) -> None:
        """Close the turn of `holder`, in one or two stages.

        1. No other member wants the slot: the turn goes on.
        2. The turn change needs a step of an engine, and the card is not free: the turn goes on.
        3. A rival's call is out of patience: no call may start any more.
        4. A rival has waited long enough: only calls that have arrived may still start.
        """
        rivals = [member for member in slot.members if member is not holder and member.wants_turn(now)]
        chosen = choose_next(rivals, None, now)
        if chosen is None:  # (1)
            return
        needs_step = not slot.keeps_loaded or chosen.state is State.STOPPED
        if needs_step and not self._card_is_free(now):  # (2)
            return
        end = turn_end(holder, rivals, slot.swap_s(holder, chosen), self._policy)
        if holder.cutoff > -math.inf and self._is_reached(now, end.stop_at):  # (3)
            self._close(holder, -math.inf, "a call to another member is out of patience")
        elif holder.turn is TurnState.OPEN and self._is_reached(now, end.cutoff_at):  # (4)
            self._close(holder, now, f"{chosen.name} waits")

    def _begin_step(self, steps: Sequence[_Step | None], now: float) -> None:
        """Begin one of the steps that the slots need, if the card is free."""
        for slot, step in zip(self._slots, steps, strict=True):
            slot.step_wanted_since = min(slot.step_wanted_since, now) if step else math.inf
        slot, step = min(
            zip(self._slots, steps, strict=True), key=lambda pair: pair[0].step_wanted_since
        )
        if step is None or not self._card_is_free(now):
            return
        slot.step_wanted_since = math.inf
        self._order(step.verb, step.member, step.reason)
        if step.verb is Verb.SLEEP:
            step.member.enter(State.FALLING_ASLEEP, now)
        else:
            step.member.cold_start = step.verb is Verb.START
            step.member.enter(State.WAKING, now)
        self._give_up(step.member, now)  # requests the tick at which the step has taken too long

    def _card_is_free(self, now: float) -> bool:
        not_joined = any(slot.not_joined for slot in self._slots)
        if not_joined and not self._is_reached(now, self._join_wait_ends_at):
            return False
        blocked = any(member.state in BLOCKS_CARD for member in self._members.values())
        return self._is_reached(now, self._settled_at) and not blocked

    def _open(self, slot: SlotState, member: MemberState, now: float, reason: str) -> None:
        slot.open_turn(member, now)
        self._order(Verb.OPEN, member, reason, sole_member=len(slot.members) == 1)
        self._close_if_due(slot, member, now)

    def _close(self, member: MemberState, cutoff: float, reason: str) -> None:
        member.close_turn(cutoff)
        self._order(Verb.CLOSE, member, reason, cutoff=cutoff)

    def _fail(self, member: MemberState, now: float, reason: str) -> None:
        self._back_off(member, now)
        self._slots_by_member[member.name].end_turn(member, now)
        member.enter(State.FAILED, now)
        self._order(Verb.RESTART, member, reason)

    def _back_off(self, member: MemberState, now: float) -> None:
        member.back_off(self._policy.retry_wait_s(member.failures), now)

    def _order(
        self,
        verb: Verb,
        member: MemberState,
        reason: str,
        *,
        cutoff: float = -math.inf,
        sole_member: bool = False,
    ) -> None:
        self._actions.append(MemberAction(verb, member.name, cutoff, sole_member, reason))

    def _is_reached(self, now: float, at: float) -> bool:
        """Whether `at` has come; if not, `tick` is to be called then."""
        if now >= at:
            return True
        self._request_tick(at)
        return False

    def _request_tick(self, at: float) -> None:
        self._call_at = min(self._call_at, at)


def _waiting(member: MemberState) -> str:
    count = member.calls.waiting
    return "1 call waits for it" if count == 1 else f"{count} calls wait for it"
