"""Who is awake, who sleeps, who waits: one card, its slots, and the turns of their members.

Pure and synchronous: events come in with the time, orders come out. No clock, no Ray, no I/O. What
is believed of a member changes only by what was ordered and by what its replica reports.

Always:
- at most one member of a slot is awake (unless the slot keeps all loaded), and at most one has a
  turn that is not closed;
- at most one engine of the card starts, falls asleep, wakes or restarts at a time, because vLLM's
  memory steps read the whole card. Nothing holds this lock but the state of a member, so it cannot
  outlive the member;
- a member is put to sleep only after it has said that its turn is closed: nothing is in flight.

Nobody starves. While nothing fails, a member with a waiting call gets its turn no later than

    (M - 1) * (Q + D + S) + S

after that call ran out of patience, or after the end of the member's last turn if that is later (a
backlog can take several turns): M members in the slot, Q the least turn under rule 3 of `policy`, D
the longest call, S the longest swap, with the steps of the card's other slots that come before it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cluster.residency.messages import Action, CallAt, MemberAction, Snapshot, Verb
from cluster.residency.policy import (
    Member,
    MemberState,
    Policy,
    QueueCounts,
    State,
    Turn,
    ending,
    next_turn,
)

MOVING = (State.WAKING, State.FALLING_ASLEEP, State.FAILED)


@dataclass(frozen=True, slots=True)
class Slot:
    """A share of a card. keeps_loaded: sleeping gives nothing back, so a turn ends without it."""

    name: str
    members: tuple[Member, ...]
    keeps_loaded: bool = False


@dataclass(slots=True)
class SlotState:
    """A slot with its standings. last: who had the last turn; missing: who has not shown itself to this
    keeper; asked: since when it needs a step of an engine."""

    slot: Slot
    standings: list[MemberState]
    last: MemberState | None = None
    missing: set[str] = field(default_factory=set)
    asked: float = math.inf

    def is_idle(self, now: float) -> bool:
        """Nobody has or wants a call."""
        return not any(standing.calls.any or standing.wants(now) for standing in self.standings)

    def cost_s(self, holder: MemberState, rival: MemberState) -> float:
        return 0.0 if self.slot.keeps_loaded else holder.sleep_s + rival.wake_s


_Step = tuple[Callable[[MemberState, float], None], MemberState]


class ResidencyScheduler:
    """One card."""

    def __init__(self, slots: Sequence[Slot], policy: Policy | None = None) -> None:
        self._policy = policy or Policy()
        self._benches = [
            SlotState(slot, [MemberState(m, m.wake_s, m.sleep_s) for m in slot.members])
            for slot in slots
        ]
        self._standings = {s.member.name: (b, s) for b in self._benches for s in b.standings}
        for bench in self._benches:
            bench.missing = {standing.member.name for standing in bench.standings}
        self._absent_at = math.inf
        self._settled_at = -math.inf
        self._actions: list[Action] = []
        self._check_at = math.inf

    def standing(self) -> dict[str, Snapshot]:
        """What is believed of every member."""
        return {name: Snapshot(s.state, s.turn, s.calls) for name, (_, s) in self._standings.items()}

    def on_join(self, now: float, name: str, found: Snapshot) -> list[Action]:
        """A replica shows itself, new or not, as it is: its turn is open only if `found` says so."""
        bench, standing = self._standings[name]
        bench.missing.discard(name)
        standing.cold = found.state is State.WAKING and (
            standing.cold or standing.state is not State.WAKING
        )
        self._end(bench, standing, now)
        self._enter(standing, found.state, now)
        self._count(bench, standing, found.calls, now)
        standing.turn, standing.opened = found.turn, now
        if found.state is State.FAILED:
            self._fail(bench, standing, now)
        elif found.turn is Turn.OPEN and len(bench.standings) > 1:
            self._close(standing, -math.inf)
        return self._decide(now)

    def on_leave(self, now: float, name: str) -> list[Action]:
        """The replica is dead."""
        bench, standing = self._standings[name]
        bench.missing.discard(name)
        if standing.state not in (State.ABSENT, State.STOPPED):
            self._settled_at = now + self._policy.settle_s
        if standing.state is State.WAKING:
            self._back_off(standing, now)
        self._end(bench, standing, now)
        self._enter(standing, State.ABSENT, now)
        self._count(bench, standing, QueueCounts(), now)
        return self._decide(now)

    def on_report(self, now: float, name: str, found: Snapshot) -> list[Action]:
        """A replica that knows of its last order tells how it is."""
        bench, standing = self._standings[name]
        self._count(bench, standing, found.calls, now)
        match standing.state, found.state:
            case before, State.FAILED if before is not State.FAILED:
                self._fail(bench, standing, now)
            case State.WAKING, State.RESIDENT:
                if found.took_s is not None and not standing.cold:
                    standing.wake_s = found.took_s
                standing.failures = 0
                self._enter(standing, State.RESIDENT, now)
            case State.FALLING_ASLEEP, State.ASLEEP:
                standing.sleep_s = standing.sleep_s if found.took_s is None else found.took_s
                self._enter(standing, State.ASLEEP, now)
            case State.FAILED, State.STOPPED:
                self._settled_at = now + self._policy.settle_s
                self._enter(standing, State.STOPPED, now)
        if standing.turn is Turn.CLOSING and found.turn is Turn.CLOSED:
            self._end(bench, standing, now)
        return self._decide(now)

    def on_queue(self, now: float, name: str, calls: QueueCounts) -> list[Action]:
        """The queue of a replica that may not know of its last order yet."""
        self._count(*self._standings[name], calls, now)
        return self._decide(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        return self._decide(now)

    def _decide(self, now: float) -> list[Action]:
        if self._absent_at == math.inf:
            self._absent_at = now + self._policy.absent_s
        self._check_at = math.inf
        for bench in self._benches:
            for standing in bench.standings:
                self._give_up(bench, standing, now)
        self._step(now, {id(bench): self._turns(bench, now) for bench in self._benches})
        actions, self._actions = self._actions, []
        return actions + ([CallAt(self._check_at)] if self._check_at < math.inf else [])

    def _step(self, now: float, needed: dict[int, _Step | None]) -> None:
        """One step of one engine, if the card is free: the slot that asked first."""
        for bench in self._benches:
            bench.asked = min(bench.asked, now) if needed[id(bench)] else math.inf
        first = min(self._benches, key=lambda bench: bench.asked)
        if (step := needed[id(first)]) and self._card_is_free(now):
            first.asked = math.inf
            step[0](step[1], now)

    def _turns(self, bench: SlotState, now: float) -> _Step | None:
        """Open and close turns of a slot. Returns the step of an engine that it needs next."""
        if bench.missing and not self._is_due(now, self._absent_at):
            return None
        holder = next(
            (standing for standing in bench.standings if standing.turn is not Turn.CLOSED), None
        )
        for standing in bench.standings:
            self._is_due(now, standing.retry_at)
        if holder is not None:
            self._end_turn(bench, holder, now)
            return None
        chosen = next_turn(bench.standings, bench.last, now) or self._idle_choice(bench)
        if chosen is None:
            return None
        surplus = [s for s in bench.standings if s is not chosen and s.state is State.RESIDENT]
        if surplus and not bench.slot.keeps_loaded:
            return self._sleep, surplus[0]
        if chosen.state in (State.ASLEEP, State.STOPPED):
            return self._wake, chosen
        if chosen.state is State.RESIDENT:
            self._open(bench, chosen, now)
        return None

    def _idle_choice(self, bench: SlotState) -> MemberState | None:
        """Whose turn is open while nobody wants one: calls that come then need not wait for us."""
        awake = [standing for standing in bench.standings if standing.state is State.RESIDENT]
        return bench.last if bench.last in awake else next(iter(awake), None)

    def _end_turn(self, bench: SlotState, holder: MemberState, now: float) -> None:
        rivals = [s for s in bench.standings if s is not holder and s.wants(now)]
        chosen = next_turn(rivals, None, now)
        swaps = not bench.slot.keeps_loaded or (chosen and chosen.state is State.STOPPED)
        if chosen is None or (swaps and not self._card_is_free(now)):
            return
        end = ending(holder, rivals, bench.cost_s(holder, chosen), self._policy)
        if holder.gate > -math.inf and self._is_due(now, end.hard_at):
            self._close(holder, -math.inf)
        elif holder.turn is Turn.OPEN and self._is_due(now, end.soft_at):
            self._close(holder, now)

    def _card_is_free(self, now: float) -> bool:
        missing = any(bench.missing for bench in self._benches)
        if missing and not self._is_due(now, self._absent_at):
            return False
        moving = any(standing.state in MOVING for _, standing in self._standings.values())
        return self._is_due(now, self._settled_at) and not moving

    def _open(self, bench: SlotState, standing: MemberState, now: float) -> None:
        for other in bench.standings:
            other.passed = (
                other.passed + 1 if other is not standing and other.wants(now) else other.passed
            )
        standing.turn, standing.gate, standing.opened, standing.dry, standing.passed = (
            Turn.OPEN,
            math.inf,
            now,
            now,
            0,
        )
        self._do(Verb.OPEN, standing, sole=len(bench.standings) == 1)
        self._end_turn(bench, standing, now)

    def _close(self, standing: MemberState, before: float) -> None:
        standing.turn, standing.gate = Turn.CLOSING, before
        self._do(Verb.CLOSE, standing, before=before)

    def _end(self, bench: SlotState, standing: MemberState, now: float) -> None:
        if standing.turn is not Turn.CLOSED:
            standing.turn, standing.gate, standing.ended, bench.last = (
                Turn.CLOSED,
                -math.inf,
                now,
                standing,
            )

    def _wake(self, standing: MemberState, now: float) -> None:
        standing.cold = standing.state is State.STOPPED
        self._do(Verb.START if standing.cold else Verb.WAKE, standing)
        self._enter(standing, State.WAKING, now)
        self._give_up(self._standings[standing.member.name][0], standing, now)

    def _sleep(self, standing: MemberState, now: float) -> None:
        self._do(Verb.SLEEP, standing)
        self._enter(standing, State.FALLING_ASLEEP, now)
        self._give_up(self._standings[standing.member.name][0], standing, now)

    def _fail(self, bench: SlotState, standing: MemberState, now: float) -> None:
        self._back_off(standing, now)
        self._end(bench, standing, now)
        self._enter(standing, State.FAILED, now)
        self._do(Verb.RESTART, standing)

    def _back_off(self, standing: MemberState, now: float) -> None:
        wait_s = min(self._policy.retry_most_s, self._policy.retry_s * 2.0**standing.failures)
        standing.failures, standing.retry_at = min(standing.failures + 1, 30), now + wait_s

    def _give_up(self, bench: SlotState, standing: MemberState, now: float) -> None:
        """Nothing is waited for without end: not a start, sleep or wake, and not a restart."""
        policy = self._policy
        if standing.state is State.FAILED and self._is_due(now, standing.since + policy.restart_s):
            self._do(Verb.KILL, standing)
            standing.since = now
            self._is_due(now, now + policy.restart_s)
        elif standing.state in (State.WAKING, State.FALLING_ASLEEP):
            longest_s = policy.start_stuck_s if standing.cold else policy.stuck_s
            if self._is_due(now, standing.since + longest_s):
                self._fail(bench, standing, now)
                self._is_due(now, now + policy.restart_s)

    def _enter(self, standing: MemberState, state: State, now: float) -> None:
        if standing.state is not state:
            standing.state, standing.since = state, now

    def _count(self, bench: SlotState, standing: MemberState, calls: QueueCounts, now: float) -> None:
        if standing.calls.any and not calls.any:
            standing.dry = now
        elif calls.any and bench.is_idle(now):
            for holder in bench.standings:  # whoever it is: a turn that idled begins now, by rule 2
                holder.opened = now
        standing.calls = calls

    def _do(
        self, verb: Verb, standing: MemberState, *, before: float = -math.inf, sole: bool = False
    ) -> None:
        self._actions.append(MemberAction(verb, standing.member.name, before, sole))

    def _is_due(self, now: float, at: float) -> bool:
        """Whether `at` has come; if not, asks to be called then."""
        if now >= at:
            return True
        self._check_at = min(self._check_at, at)
        return False
