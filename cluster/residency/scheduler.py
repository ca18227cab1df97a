"""Decides which models of one card are awake, which sleep, and whose calls may start.

A card has slots, which are shares of its memory. The members of a slot are replicas of models. They
take turns: a member's calls start only during its turn.

The scheduler is pure and synchronous. It has no clock, no Ray and no I/O: its keeper passes each event
to it with the time, and carries out the actions that it returns. The scheduler's view of a member
changes only with an order to the member, a report of its replica, and the replica's death.

States of a member's engine:

| state          | meaning                     | what leads out of it                             |
| -------------- | --------------------------- | ------------------------------------------------ |
| ABSENT         | no replica has joined       | a replica joins -> the state that it brings      |
| STOPPED        | the engine is not started   | order START -> WAKING                            |
| WAKING         | the engine starts or wakes  | report -> RESIDENT; it takes too long -> FAILED  |
| RESIDENT       | awake; works in its turns   | order SLEEP -> FALLING_ASLEEP                    |
| FALLING_ASLEEP | the engine frees its memory | report -> ASLEEP; it takes too long -> FAILED    |
| ASLEEP         | waits for its next turn     | order WAKE -> WAKING                             |
| FAILED         | the engine has to restart   | report -> STOPPED; too late -> KILL is ordered   |

From every state, the report of a failure leads to FAILED, and the death of the replica's process leads
to ABSENT.

States of a member's turn; a failure or a death leads to CLOSED at once:

| turn    | meaning                                 | what leads out of it               |
| ------- | --------------------------------------- | ---------------------------------- |
| CLOSED  | nothing is in flight, nothing may start | order OPEN -> OPEN                 |
| OPEN    | each call may start                     | order CLOSE -> CLOSING             |
| CLOSING | calls up to the cutoff may start        | report that none is left -> CLOSED |

Always:
- At most one member of a slot is awake, unless the slot keeps all its members loaded. At most one
  member of a slot has a turn that is not closed.
- At most one engine of the card starts, falls asleep, wakes or restarts at a time, because vLLM
  measures the whole card's memory in these steps. The state of a member is the lock: the lock is free
  again when the member's state changes, also when the member dies.
- A member is put to sleep only after it has reported that its turn is closed: no call is in flight.

Nobody starves. While nothing fails, a member with a waiting call gets its turn within

    (M - 1) * (Q + D + S) + S

seconds. The seconds count from the moment when that call runs out of patience, or from the end of the
member's last turn if that is later (a backlog can take several turns). M is the number of members in
the slot, Q the shortest turn under rule 3 of `policy`, and D the longest call. S is the longest swap,
together with the steps of the card's other slots that come before it.
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
"""States in which an engine's use of memory may change. While one engine of the card is in such a
state, no other engine begins a step."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A step that a slot needs from an engine before the next turn can open."""

    verb: Verb
    """SLEEP, WAKE or START."""
    member: MemberState
    """The member whose engine takes the step."""
    reason: str
    """Why, for the log (`MemberAction.reason`)."""


class ResidencyScheduler:
    """The scheduler of one card. The method of each event returns the actions that the event calls for.

    In all methods `now` is the time on the keeper's clock in seconds, and `name` is a member's name.
    """

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
        """The scheduler's view of each member, by the member's name."""
        return {name: Snapshot(m.state, m.turn, m.calls) for name, m in self._members.items()}

    def on_join(self, now: float, name: str, found: Snapshot) -> list[Action]:
        """A replica joins, for the first time or again.

        Args:
            found: the state that the replica brings. Its turn is open only if `found` says so.
        """
        member, slot = self._members[name], self._slots_by_member[name]
        slot.not_joined.discard(name)
        # If another keeper ordered WAKING, it may be a start: the member gets the time of a start.
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
        """The replica's process has died."""
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
        """A replica that has received its latest order reports its state."""
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
        """A replica that may not have received its latest order yet reports its calls."""
        self._slots_by_member[name].count(self._members[name], calls, now)
        return self._decide(now)

    def tick(self, now: float) -> list[Action]:
        """The time of the last `CallAt` has come."""
        return self._decide(now)

    def _decide(self, now: float) -> list[Action]:
        """Decide what to do now; every event ends with this.

        1. Order RESTART for engines that have taken too long, and KILL for replicas that have not
           restarted in time.
        2. For each slot, open or close a turn, or find out which step the slot needs from an engine.
        3. If the card is free, begin the step of the slot that has waited longest for its step.
        4. If the passing of time alone can change a decision, have the keeper call `tick` at that time.
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
        """Order RESTART if a start, sleep or wake takes too long, and KILL if a restart does."""
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
        """Open or close a turn of a slot, or return the step that the slot needs from an engine.

        1. A member has not joined yet, and the wait for members is not over: do nothing.
        2. A member holds the turn: close the turn if it is time.
        3. No member wants a turn, and no member is awake: do nothing.
        4. A member is awake that is not the next one, and the slot has room for only one: put the awake
           member to sleep.
        5. The next member sleeps, or its engine is stopped: wake or start the engine.
        6. The next member is awake: open its turn.
        7. The next member is waking or falling asleep: do nothing until it reports.
        """
        if slot.not_joined and not self._is_reached(now, self._join_wait_ends_at):  # (1)
            return None
        for member in slot.members:
            self._is_reached(now, member.retry_at)  # requests a tick: the member may want a turn then
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
        """The awake member that gets a turn while no member wants one, so that its calls start at once.

        None if no member is awake.
        """
        awake = [member for member in slot.members if member.state is State.RESIDENT]
        return slot.last_holder if slot.last_holder in awake else next(iter(awake), None)

    def _close_if_due(self, slot: SlotState, holder: MemberState, now: float) -> None:
        """Close the turn of `holder` if it is time: by case 3, or by case 4 and later by case 3.

        1. No other member wants the slot: the turn goes on.
        2. The change of turns needs a step of an engine, and the card is not free: the turn goes on.
        3. A rival's call is out of patience: from now on no call of the holder may start.
        4. A rival has waited long enough: only calls of the holder that have arrived may still start.
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
        """If the card is free, begin the step of the slot that has waited longest for its step.

        Args:
            steps: for each slot, in order, the step that it needs, or None.
        """
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
        """Whether an engine of the card may begin a step."""
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
        """Whether `now` has reached `at`. If not, this asks the keeper to call `tick` at `at`."""
        if now >= at:
            return True
        self._request_tick(at)
        return False

    def _request_tick(self, at: float) -> None:
        self._call_at = min(self._call_at, at)


def _waiting(member: MemberState) -> str:
    count = member.calls.waiting
    return "1 call waits for it" if count == 1 else f"{count} calls wait for it"
