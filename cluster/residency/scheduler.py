"""Decides which models of one card are awake, which sleep, and whose calls may start.

A card has slots, which are shares of its memory. The members of a slot are replicas of models. They
take turns: a member's calls start only during its turn.

The scheduler is pure and synchronous. It has no clock, no Ray and no I/O: its keeper passes each event
to it with the time, and carries out the actions that it returns. The scheduler's view of a member
changes only with an order to the member, a report of its replica, and the replica's death.

States of a member's engine:

| state          | meaning                            | what leads out of it                          |
| -------------- | ---------------------------------- | --------------------------------------------- |
| ABSENT         | no replica has joined              | a replica joins -> the state that it brings   |
| NOT_STARTED    | the replica is new                 | order START -> STARTING                       |
| STARTING       | the engine loads from disk         | report -> RESIDENT; too late -> FAILED        |
| RESIDENT       | awake; works in its turns          | order SLEEP -> FALLING_ASLEEP, or STOP ->     |
|                |                                    | STOPPING, whichever the plan says             |
| FALLING_ASLEEP | the engine frees the card's memory | report -> ASLEEP; too late -> FAILED          |
| ASLEEP         | its weights wait in host RAM       | order WAKE -> WAKING                          |
| WAKING         | the engine copies its weights back | report -> RESIDENT; too late -> FAILED        |
| STOPPING       | the engine ends                    | report -> STOPPED; too late -> FAILED         |
| STOPPED        | the engine has ended               | order START -> STARTING                       |
| FAILED         | the engine frees what it holds     | report -> STOPPED, or NOT_STARTED if it never |
|                |                                    | took a call; too late -> KILL is ordered      |

From every state, the report of a failure leads to FAILED, and the death of the replica's process leads
to ABSENT.

A NOT_STARTED member wants a turn, because its replica takes no calls before the engine has started.
A STOPPED member wants a turn only when a call waits. If its engine was ended by a failure although the
plan keeps the engine asleep, the engine is also started when the slot has idled for a while. If all
members of a slot are away and no call waits, the first of the recipe comes back.

Before its replica takes the first call, each engine of a shared slot starts and leaves the card once.
So an error shows at deployment, and no user waits for a first sleep, which has to allocate host RAM.
Then the first member of the recipe comes back. An engine that the plan stops stays awake if it is the
last to start.

States of a member's turn; a failure or a death leads to CLOSED at once:

| turn    | meaning                                 | what leads out of it               |
| ------- | --------------------------------------- | ---------------------------------- |
| CLOSED  | nothing is in flight, nothing may start | order OPEN -> OPEN                 |
| OPEN    | each call may start                     | order CLOSE -> CLOSING             |
| CLOSING | calls up to the cutoff may start        | report that none is left -> CLOSED |

Always:
- At most one member of a slot is awake, unless the slot keeps all its members loaded. At most one
  member of a slot has a turn that is not closed.
- At most one engine of the card starts, stops, falls asleep, wakes or restarts at a time, because vLLM
  measures the whole card's memory in these steps. The state of a member is the lock: the lock is free
  again when the member's state changes, also when the member dies. An engine that has failed while it
  slept blocks other steps only while it frees what it holds; the turn of the others goes on meanwhile.
- A member leaves the card only after it has reported that its turn is closed: no call is in flight.

Nobody starves. While nothing fails, a member with a waiting call gets its turn within

    (M - 1) * (Q + D + S) + S

seconds. The seconds count from the moment when that call runs out of patience, or from the end of the
member's last turn if that is later (a backlog can take several turns). M is the number of members in
the slot, Q the shortest turn under rule 3 of `policy`, and D the longest call. S is the longest swap:
the longest sleep or stop, `settle_s` after a stop, and the longest wake or start, together with the
steps of the card's other slots that come before it.
"""

import math
from collections.abc import Sequence

from cluster.residency.closing import closing
from cluster.residency.messages import Action, CallAt, MemberAction, Snapshot, Verb
from cluster.residency.moment import Moment
from cluster.residency.policy import Policy
from cluster.residency.state import NO_CALLS, QueueCounts, Slot, State, TurnState
from cluster.residency.steps import (
    AFTER,
    DURING,
    STEP_IN,
    Step,
    loading_step,
    next_in_turn,
    step_towards,
)
from cluster.residency.view import MemberState, SlotState

BLOCKS_CARD = (*STEP_IN, State.FAILED)
"""States in which an engine's use of memory may change. While one engine of the card is in such a
state, no other engine begins a step."""


class ResidencyScheduler:
    """The scheduler of one card. The method of each event returns the actions that the event calls for.

    In all methods `now` is the time on the keeper's clock in seconds, and `name` is a member's name.
    """

    def __init__(self, slots: Sequence[Slot], policy: Policy | None = None) -> None:
        self._policy = policy or Policy()
        self._slots = [
            SlotState(
                slot,
                [MemberState(member) for member in slot.members],
                not_joined={member.name for member in slot.members},
            )
            for slot in slots
        ]
        self._members = {member.name: member for slot in self._slots for member in slot.members}
        self._slots_by_member = {member.name: slot for slot in self._slots for member in slot.members}
        self._join_wait_ends_at = math.inf
        self._settled_at = -math.inf
        self._actions: list[Action] = []
        self._moment = Moment(-math.inf)

    def snapshots(self) -> dict[str, Snapshot]:
        """The scheduler's view of each member, by the member's name."""
        return {name: member.snapshot() for name, member in self._members.items()}

    def since_s(self, name: str, now: float) -> float:
        """Seconds for which the member's engine has been in its state."""
        return max(0.0, now - self._members[name].state_since)

    def waiting(self, name: str) -> int:
        """How many calls wait for the member, by its last report."""
        return self._members[name].calls.waiting

    def expected_s(self, name: str, step: Verb) -> float:
        """Seconds of the member's last step of this kind; predicted until measured."""
        return self._members[name].seconds[step]

    def longest_s(self, step: Verb) -> float:
        """Seconds after which a step counts as failed."""
        return self._policy.longest_s(step)

    def is_up(self, name: str) -> bool:
        """Whether the member's replica may take its first calls."""
        return self._members[name].is_up

    def on_join(self, now: float, name: str, found: Snapshot) -> list[Action]:
        """A replica joins, for the first time or again.

        Args:
            found: the state that the replica brings. Its turn is open only if `found` says so.
        """
        member, slot = self._members[name], self._slots_by_member[name]
        is_first_news = name in slot.not_joined or member.state not in (State.ABSENT, found.state)
        slot.not_joined.discard(name)
        slot.end_turn(member, now)
        member.enter(found.state, now)
        if member.is_unloaded and is_first_news:
            # Its engine, or that of the replica before it, may have ended a moment ago.
            self._settled_at = now + self._policy.settle_s
        member.has_slept = found.has_slept or found.state is State.ASLEEP
        slot.count(member, found.calls, now)
        member.take_over_turn(found.turn, now)
        if found.state is State.FAILED:
            self._fail(member, now, found.failure)
        elif found.turn is TurnState.OPEN and len(slot.members) > 1:
            member.close_turn(-math.inf)
            self._order(Verb.CLOSE, member, "it joined with an open turn")
        return self._decide(now)

    def on_leave(self, now: float, name: str) -> list[Action]:
        """The replica's process has died."""
        member, slot = self._members[name], self._slots_by_member[name]
        is_unknown = name in slot.not_joined  # it never told this keeper what its engine holds
        slot.not_joined.discard(name)
        if is_unknown or member.state not in (State.ABSENT, State.NOT_STARTED, State.STOPPED):
            self._settled_at = now + self._policy.settle_s
        if member.state in STEP_IN:
            self._back_off(member, now)
        slot.end_turn(member, now)
        member.enter(State.ABSENT, now)
        slot.count(member, NO_CALLS, now)
        return self._decide(now)

    def on_report(self, now: float, name: str, found: Snapshot) -> list[Action]:
        """A replica that has received its latest order reports its state."""
        member, slot = self._members[name], self._slots_by_member[name]
        slot.count(member, found.calls, now)
        step = STEP_IN.get(member.state)
        if found.state is State.FAILED and member.state is not State.FAILED:
            self._fail(member, now, found.failure)
        elif step is not None and found.state is AFTER[step]:
            if found.took_s is not None:
                member.seconds[step] = found.took_s
            self._end_step(member, found.state, now)
        elif member.state is State.FAILED and found.state in (State.STOPPED, State.NOT_STARTED):
            self._end_step(member, found.state, now)
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
        4. A replica whose engine needs no step any more may take its first calls.
        5. If the passing of time alone can change a decision, have the keeper call `tick` at that time.
        """
        if self._join_wait_ends_at == math.inf:
            self._join_wait_ends_at = now + self._policy.join_wait_s
        self._moment = moment = Moment(now)
        for member in self._members.values():  # (1)
            self._give_up(member)
        steps = [self._decide_turn(slot) for slot in self._slots]  # (2)
        self._begin_step(steps)  # (3)
        self._note_who_is_up(steps)  # (4)
        actions, self._actions = self._actions, []
        if moment.call_at < math.inf:  # (5)
            actions.append(CallAt(moment.call_at))
        return actions

    def _give_up(self, member: MemberState) -> None:
        """Order RESTART if a step takes too long, and KILL if a restart does."""
        now, policy = self._moment.now, self._policy
        if member.state is State.FAILED:
            if self._moment.has_reached(member.state_since + policy.restart_timeout_s):
                reason = f"it did not restart within {policy.restart_timeout_s:g} s"
                self._order(Verb.KILL, member, reason)
                member.state_since = now
                self._moment.look_again_at(now + policy.restart_timeout_s)
        elif (step := STEP_IN.get(member.state)) is not None:
            longest_s = policy.longest_s(step)
            if self._moment.has_reached(member.state_since + longest_s):
                self._fail(member, now, f"it was {member.state} for {longest_s:g} s")
                self._moment.look_again_at(now + policy.restart_timeout_s)

    def _decide_turn(self, slot: SlotState) -> Step | None:
        """Open or close a turn of a slot, or return the step that the slot needs from an engine.

        1. A member has not joined yet, and the wait for members is not over: do nothing.
        2. In a slot that keeps all loaded, an engine that is not loaded starts beside the others.
        3. A member holds the turn: close the turn if it is time.
        4. Nobody is next: do nothing.
        5. Before the turn of the next member, an engine has to leave the card or come back.
        6. The next member is awake: open its turn.
        7. The next member is in a step: do nothing until it reports.
        """
        now = self._moment.now
        if slot.not_joined and not self._moment.has_reached(self._join_wait_ends_at):  # (1)
            return None
        for member in slot.members:
            self._moment.has_reached(
                member.retry_at
            )  # requests a tick: the member may want a turn then
        loading = loading_step(slot, now)  # (2)
        if slot.holder is not None:  # (3)
            self._close_if_due(slot, slot.holder)
            return loading
        chosen = next_in_turn(slot, now, self._policy)
        if chosen is None:  # (4)
            return loading
        step = step_towards(slot, chosen.member, chosen.reason)
        if step is not None:  # (5)
            return step
        if chosen.member.state is State.RESIDENT:  # (6)
            self._open(slot, chosen.member, chosen.reason)
        return loading  # (7)

    def _close_if_due(self, slot: SlotState, holder: MemberState) -> None:
        """Close the turn of `holder` if it is time (`closing`).

        If the change of turns needs a step of an engine, and the card is not free, the turn goes on.
        """
        if not slot.keeps_loaded and not self._card_is_free():
            return
        close = closing(slot, holder, self._moment, self._policy)
        if close is not None:
            holder.close_turn(close.cutoff)
            self._order(Verb.CLOSE, holder, close.reason, cutoff=close.cutoff)

    def _begin_step(self, steps: Sequence[Step | None]) -> None:
        """If the card is free, begin the step of the slot that has waited longest for its step.

        Args:
            steps: for each slot, in order, the step that it needs, or None.
        """
        now = self._moment.now
        for slot, step in zip(self._slots, steps, strict=True):
            slot.step_wanted_since = min(slot.step_wanted_since, now) if step else math.inf
        slot, step = min(
            zip(self._slots, steps, strict=True), key=lambda pair: pair[0].step_wanted_since
        )
        if step is None or not self._card_is_free():
            return
        slot.step_wanted_since = math.inf
        self._order(step.verb, step.member, step.reason)
        step.member.enter(DURING[step.verb], now)
        self._give_up(step.member)  # requests the tick at which the step has taken too long

    def _end_step(self, member: MemberState, after: State, now: float) -> None:
        """A step or a restart has ended. If it ended the engine, the card has to settle."""
        member.enter(after, now)
        if member.is_unloaded:
            self._settled_at = now + self._policy.settle_s

    def _note_who_is_up(self, steps: Sequence[Step | None]) -> None:
        wanted = {step.member.name for step in steps if step is not None}
        for name, member in self._members.items():
            if member.state in (State.RESIDENT, State.ASLEEP, State.STOPPED) and name not in wanted:
                member.is_up = True

    def _card_is_free(self) -> bool:
        """Whether an engine of the card may begin a step."""
        not_joined = any(slot.not_joined for slot in self._slots)
        if not_joined and not self._moment.has_reached(self._join_wait_ends_at):
            return False
        blocked = any(member.state in BLOCKS_CARD for member in self._members.values())
        return self._moment.has_reached(self._settled_at) and not blocked

    def _open(self, slot: SlotState, member: MemberState, reason: str) -> None:
        slot.open_turn(member, self._moment.now)
        self._order(Verb.OPEN, member, reason, sole_member=len(slot.members) == 1)
        self._close_if_due(slot, member)

    def _fail(self, member: MemberState, now: float, failure: str) -> None:
        self._back_off(member, now)
        self._slots_by_member[member.name].end_turn(member, now)
        member.failure = failure
        member.enter(State.FAILED, now)
        self._order(Verb.RESTART, member, f"its engine failed: {failure}".removesuffix(": "))

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
