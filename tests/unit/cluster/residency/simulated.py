"""Replicas as they really are, in virtual time: messages that take time, and faults."""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from cluster.residency.messages import Action, CallAt, MemberAction, Snapshot, Verb
from cluster.residency.policy import Policy
from cluster.residency.scheduler import ResidencyScheduler
from cluster.residency.state import Member, QueueCounts, Slot, State, TurnState

LEASE_S = 4.0
CONCURRENCY = 4
POLICY = Policy(
    join_wait_s=8, step_timeout_s=60, start_timeout_s=60, restart_timeout_s=5, max_retry_s=20
)
AWAKE = (State.WAKING, State.RESIDENT, State.FALLING_ASLEEP, State.FAILED)
MOVING = (State.WAKING, State.FALLING_ASLEEP, State.FAILED)


@dataclass(eq=False)
class Call:
    """One call. then: what happens when it has been served."""

    work_s: float
    patience_s: float = math.inf
    then: Callable[[], None] = lambda: None
    arrived: float = math.nan
    begun: float = math.nan
    served: bool = False
    lost: bool = False


@dataclass(eq=False)
class Replica:
    """The truth: an engine with its queue and its gate, as `actors.keeper.replica_turns` keeps them."""

    member: Member
    state: State = State.STOPPED
    gate: float = -math.inf
    waiting: list[Call] = field(default_factory=list)
    running: list[Call] = field(default_factory=list)
    seen: int = 0
    took_s: float | None = None
    alive: bool = True
    known: bool = False
    had_turn: bool = False
    closed: float = 0.0

    def turn(self) -> TurnState:
        if self.gate == math.inf:
            return TurnState.OPEN
        admissible = any(call.arrived <= self.gate for call in self.waiting)
        return TurnState.CLOSING if self.running or admissible else TurnState.CLOSED

    def snapshot(self) -> Snapshot:
        oldest = min((call.arrived for call in self.waiting), default=math.inf)
        due = min((call.arrived + call.patience_s for call in self.waiting), default=math.inf)
        calls = QueueCounts(len(self.waiting), len(self.running), oldest, due)
        return Snapshot(self.state, self.turn(), calls, self.took_s)


@dataclass
class Faults:
    """Shares of starts, sleeps and wakes that fail or never end, until `until`."""

    until: float = 0.0
    fail: float = 0.0
    hang: float = 0.0


class World:
    """One card. Every event asserts what must never be."""

    def __init__(self, slots: Sequence[Slot], seed: int, latency_s: float = 0.0) -> None:
        self.slots, self.rng, self.latency_s = slots, random.Random(seed), latency_s
        self.now, self.faults, self.boot = 0.0, Faults(), 0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        self.replicas = {m.name: Replica(m) for slot in slots for m in slot.members}
        self.lanes: dict[tuple[str, str], float] = {}
        self.late_s = dict.fromkeys(self.replicas, 0.0)
        self.wakes = self.opens = 0
        self.swap_s = 0.0
        self.new_keeper()

    def after(self, delay_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + delay_s, next(self.numbers), what))

    def send(self, name: str, way: str, what: Callable[[], None]) -> None:
        """A message: late by a random time, but never before the one sent before it."""
        boot, replica = self.boot, self.replicas[name]
        if not replica.known and way != "join":
            return
        at = max(self.now + self.rng.uniform(0, self.latency_s), self.lanes.get((name, way), 0.0))
        self.lanes[name, way] = at

        def deliver() -> None:
            if boot == self.boot and self.replicas[name] is replica and replica.alive:
                what()

        self.after(at - self.now, deliver)

    def run(self, until: float = 100_000.0) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            what()
            self.check()

    def check(self) -> None:
        everyone = self.replicas.values()
        assert sum(r.state in MOVING for r in everyone) <= 1, "two steps on one card"
        for slot in self.slots:
            seats = [self.replicas[m.name] for m in slot.members]
            assert slot.keeps_loaded or sum(r.state in AWAKE for r in seats) <= 1, "two awake"
            turns = [r for r in seats if r.turn() is not TurnState.CLOSED]
            assert len(turns) <= 1, "two turns"
            for replica in seats:
                if replica not in turns and replica.had_turn:
                    replica.closed = self.now
                replica.had_turn = replica in turns
        asleep = [r for r in everyone if r.state is not State.RESIDENT]
        assert not any(r.running for r in asleep), "in flight without an engine"

    def new_keeper(self) -> None:
        """The keeper dies, and with it every lease; a new one knows only the slots."""
        self.boot += 1
        self.check_no = -1
        self.issued = dict.fromkeys(self.replicas, 0)
        self.residency = ResidencyScheduler(self.slots, POLICY)
        for name, replica in self.replicas.items():
            replica.gate, replica.seen, replica.known = -math.inf, 0, False
            self.send(name, "join", partial(self.join, name))

    def join(self, name: str) -> None:
        if self.replicas[name].known:
            return
        self.replicas[name].known, self.issued[name] = True, 0
        self.carry_out(self.residency.on_join(self.now, name, self.replicas[name].snapshot()))

    def report(self, name: str) -> None:
        snapshot, seen = self.replicas[name].snapshot(), self.replicas[name].seen

        def arrive() -> None:
            if seen == self.issued[name]:
                self.carry_out(self.residency.on_report(self.now, name, snapshot))
            else:
                self.carry_out(self.residency.on_queue(self.now, name, snapshot.calls))

        self.send(name, "up", arrive)

    def carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case CallAt(at):
                    self.check_no = number = next(self.numbers)
                    self.after(max(0.0, at - self.now), partial(self.tick, number))
                case MemberAction(Verb.KILL, name):
                    if self.replicas[name].known:
                        self.die(name)
                case MemberAction(verb, name, before):
                    self.issued[name] += 1
                    number = self.issued[name]
                    self.send(name, "down", partial(self.take, verb, name, before, number))

    def tick(self, number: int) -> None:
        if number == self.check_no:  # a later decision set another time
            self.carry_out(self.residency.tick(self.now))

    def take(self, verb: Verb, name: str, before: float, number: int) -> None:
        replica = self.replicas[name]
        replica.seen = number
        match verb:
            case Verb.OPEN:
                assert replica.state is State.RESIDENT
                replica.gate = math.inf
                self.opens += 1
                for call in replica.waiting[:1]:
                    waits_since = max(call.arrived + call.patience_s, replica.closed)
                    self.late_s[name] = max(self.late_s[name], self.now - waits_since)
            case Verb.CLOSE:
                replica.gate = before
            case Verb.START | Verb.WAKE:
                assert replica.state is (State.STOPPED if verb is Verb.START else State.ASLEEP)
                self.wakes += 1
                self.step(replica, State.WAKING, State.RESIDENT, replica.member.wake_s)
            case Verb.SLEEP:
                assert replica.state is State.RESIDENT
                assert replica.turn() is TurnState.CLOSED, "put to sleep while serving"
                self.step(replica, State.FALLING_ASLEEP, State.ASLEEP, replica.member.sleep_s)
            case Verb.RESTART:
                self.after(self.rng.choice([0.5, 9.0]), lambda: self.restart(replica))
        self.admit(name)

    def step(self, replica: Replica, while_: State, then: State, seconds: float) -> None:
        replica.state = while_
        self.swap_s += seconds
        fails = self.now < self.faults.until and self.rng.random() < self.faults.fail
        hangs = self.now < self.faults.until and self.rng.random() < self.faults.hang

        def end() -> None:
            if replica.alive and replica.state is while_:
                replica.state, replica.took_s = State.FAILED if fails else then, seconds
                self.report(replica.member.name)

        if not hangs:
            self.after(seconds, end)

    def restart(self, replica: Replica) -> None:
        if replica.alive and replica.state is State.FAILED:
            replica.state = State.STOPPED
            self.report(replica.member.name)
        elif replica.alive and replica.state in MOVING:  # it hangs: only death helps
            self.die(replica.member.name)

    def die(self, name: str) -> None:
        """Callers of a dead replica get an error; Serve makes a new one."""
        old = self.replicas[name]
        old.alive = False
        for call in old.waiting + old.running:
            call.lost = True
        self.replicas[name] = Replica(old.member)

        def notice() -> None:
            if not self.replicas[name].known:  # the keeper refuses the new one until the old one left
                self.carry_out(self.residency.on_leave(self.now, name))
                self.join(name)

        self.after(self.rng.uniform(0.1, 3), notice)

    def ask(self, name: str, call: Call) -> None:
        call.arrived = self.now
        self.replicas[name].waiting.append(call)
        self.admit(name)

    def cancel(self, name: str, call: Call) -> None:
        if call in self.replicas[name].waiting:
            self.replicas[name].waiting.remove(call)
            call.lost = True
            self.report(name)

    def admit(self, name: str) -> None:
        replica = self.replicas[name]
        while (
            replica.waiting
            and len(replica.running) < CONCURRENCY
            and replica.waiting[0].arrived <= replica.gate
        ):
            call = replica.waiting.pop(0)
            assert replica.state is State.RESIDENT, "started without an engine"
            replica.running.append(call)
            call.begun = self.now
            self.after(call.work_s, partial(self.end, replica, call))
        self.report(name)

    def end(self, replica: Replica, call: Call) -> None:
        replica.running.remove(call)
        if replica.alive:
            call.served = True
            self.admit(replica.member.name)
            call.then()
