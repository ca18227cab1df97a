"""A card with its replicas and its keeper, simulated in virtual time: late messages, faults, deaths."""

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
from cluster.residency.steps import AFTER, DURING

CONCURRENCY = 4
"""Calls that an engine takes at once."""
POLICY = Policy(
    join_wait_s=8, step_timeout_s=60, start_timeout_s=60, restart_timeout_s=5, max_retry_s=20
)
IN_A_STEP = (*DURING.values(), State.FAILED)
HOLDS_MEMORY = (*IN_A_STEP, State.RESIDENT)


@dataclass(eq=False)
class Call:
    """A call of a client."""

    work_s: float
    """Seconds that the engine works on it."""
    patience_s: float = math.inf
    then: Callable[[], None] = lambda: None
    """Called when it has been served."""
    arrived_at: float = math.nan
    began_at: float = math.nan
    is_served: bool = False
    is_lost: bool = False
    """It was cancelled, or its replica died."""


@dataclass(eq=False)
class Replica:
    """How a replica really stands, as `actors.keeper.replica_turns` keeps it."""

    member: Member
    state: State = State.NOT_STARTED
    has_slept: bool = False
    has_been_up: bool = False
    """Whether its engine has started once."""
    cutoff: float = -math.inf
    waiting: list[Call] = field(default_factory=list)
    in_flight: list[Call] = field(default_factory=list)
    last_order: int = 0
    took_s: float | None = None
    is_alive: bool = True
    is_registered: bool = False
    had_turn: bool = False
    """Whether its turn was not closed after the last event."""
    turn_closed_at: float = 0.0

    def turn(self) -> TurnState:
        if self.cutoff == math.inf:
            return TurnState.OPEN
        may_start = any(call.arrived_at <= self.cutoff for call in self.waiting)
        return TurnState.CLOSING if self.in_flight or may_start else TurnState.CLOSED

    def snapshot(self) -> Snapshot:
        oldest = min((call.arrived_at for call in self.waiting), default=math.inf)
        due = min((call.arrived_at + call.patience_s for call in self.waiting), default=math.inf)
        calls = QueueCounts(len(self.waiting), len(self.in_flight), oldest, due)
        return Snapshot(self.state, self.turn(), calls, self.took_s, self.has_slept)


@dataclass
class Faults:
    """What goes wrong with the steps of engines, until the time `until`."""

    until: float = 0.0
    fail: float = 0.0
    """Share of steps that fail."""
    hang: float = 0.0
    """Share of steps that never end."""


class World:
    """A card, its keeper and its replicas. After every event, `check` asserts what must never be.

    Args:
        slots: the card's slots and their members.
        seed: of all that is left to chance.
        latency_s: the longest time that a message takes.
        policy: the scheduler's numbers.
    """

    def __init__(
        self, slots: Sequence[Slot], seed: int, latency_s: float = 0.0, policy: Policy = POLICY
    ) -> None:
        self.slots = slots
        self.policy = policy
        self.rng = random.Random(seed)
        self.latency_s = latency_s
        self.faults = Faults()
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        self.keeper_number = 0
        self.replicas = {m.name: Replica(m) for slot in slots for m in slot.members}
        self.last_arrivals: dict[tuple[str, str], float] = {}
        """When the last message of each replica arrives, each way."""
        self.late_s = dict.fromkeys(self.replicas, 0.0)
        """The longest time that a call of each waited for its turn beyond its patience."""
        self.wakes = 0
        self.opens = 0
        self.steps: list[tuple[Verb, str]] = []
        """Every step that an engine began."""
        self.ended_at = dict.fromkeys(self.replicas, -math.inf)
        """When each engine last ended: by a stop or a failure, or by a death, once it was noticed."""
        self.swap_s = 0.0
        """Seconds of all steps."""
        self.new_keeper()

    def after(self, delay_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + delay_s, next(self.numbers), do))

    def send(self, name: str, way: str, do: Callable[[], None]) -> None:
        """Send a message. It takes a random time, but does not overtake the message before it."""
        keeper, replica = self.keeper_number, self.replicas[name]
        if not replica.is_registered and way != "join":
            return
        at = max(
            self.now + self.rng.uniform(0, self.latency_s), self.last_arrivals.get((name, way), 0.0)
        )
        self.last_arrivals[name, way] = at

        def deliver() -> None:
            if keeper == self.keeper_number and self.replicas[name] is replica and replica.is_alive:
                do()

        self.after(at - self.now, deliver)

    def run(self, until: float = 100_000.0) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, do = heapq.heappop(self.events)
            do()
            self.check()

    def check(self) -> None:
        everyone = self.replicas.values()
        assert sum(r.state in IN_A_STEP for r in everyone) <= 1, "two steps on one card"
        for slot in self.slots:
            replicas = [self.replicas[m.name] for m in slot.members]
            awake = [r for r in replicas if r.state in HOLDS_MEMORY]
            assert slot.keeps_loaded or len(awake) <= 1, "two awake"
            turns = [r for r in replicas if r.turn() is not TurnState.CLOSED]
            assert len(turns) <= 1, "two turns"
            for replica in replicas:
                if replica not in turns and replica.had_turn:
                    replica.turn_closed_at = self.now
                replica.had_turn = replica in turns
        asleep = [r for r in everyone if r.state is not State.RESIDENT]
        assert not any(r.in_flight for r in asleep), "in flight without an engine"

    def new_keeper(self) -> None:
        """The keeper dies, and every lease ends with it; the new keeper knows only the slots."""
        self.keeper_number += 1
        self.tick_number = -1
        self.orders = dict.fromkeys(self.replicas, 0)
        self.scheduler = ResidencyScheduler(self.slots, self.policy)
        for name, replica in self.replicas.items():
            replica.cutoff = -math.inf
            replica.last_order = 0
            replica.is_registered = False
            self.send(name, "join", partial(self.join, name))

    def join(self, name: str) -> None:
        if self.replicas[name].is_registered:
            return
        self.replicas[name].is_registered = True
        self.orders[name] = 0
        self.carry_out(self.scheduler.on_join(self.now, name, self.replicas[name].snapshot()))

    def report(self, name: str) -> None:
        snapshot, last_order = self.replicas[name].snapshot(), self.replicas[name].last_order

        def arrive() -> None:
            if last_order == self.orders[name]:
                self.carry_out(self.scheduler.on_report(self.now, name, snapshot))
            else:
                self.carry_out(self.scheduler.on_queue(self.now, name, snapshot.calls))

        self.send(name, "up", arrive)

    def carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case CallAt(at):
                    self.tick_number = number = next(self.numbers)
                    self.after(max(0.0, at - self.now), partial(self.tick, number))
                case MemberAction(Verb.KILL, name):
                    if self.replicas[name].is_registered:
                        self.die(name)
                case MemberAction(verb, name, cutoff):
                    self.orders[name] += 1
                    number = self.orders[name]
                    self.send(name, "down", partial(self.follow, verb, name, cutoff, number))

    def tick(self, number: int) -> None:
        if number == self.tick_number:  # a later decision set another time
            self.carry_out(self.scheduler.tick(self.now))

    def follow(self, verb: Verb, name: str, cutoff: float, number: int) -> None:
        replica = self.replicas[name]
        replica.last_order = number
        match verb:
            case Verb.OPEN:
                assert replica.state is State.RESIDENT
                replica.cutoff = math.inf
                self.opens += 1
                for call in replica.waiting[:1]:
                    impatient_since = max(call.arrived_at + call.patience_s, replica.turn_closed_at)
                    self.late_s[name] = max(self.late_s[name], self.now - impatient_since)
            case Verb.CLOSE:
                replica.cutoff = cutoff
            case Verb.START:
                assert replica.state in (State.NOT_STARTED, State.STOPPED)
                self.wakes += 1
                self.step(replica, verb, replica.member.start_s)
            case Verb.WAKE:
                assert replica.state is State.ASLEEP
                self.wakes += 1
                self.step(replica, verb, replica.member.wake_s)
            case Verb.SLEEP | Verb.STOP:
                assert replica.state is State.RESIDENT
                assert replica.turn() is TurnState.CLOSED, "it leaves the card while it serves"
                assert replica.member.stops is (verb is Verb.STOP), "it leaves in the wrong way"
                stops = verb is Verb.STOP
                self.step(replica, verb, replica.member.stop_s if stops else replica.member.sleep_s)
            case Verb.RESTART:
                self.after(self.rng.choice([0.5, 9.0]), lambda: self.restart(replica))
        self.start_calls(name)

    def step(self, replica: Replica, verb: Verb, seconds: float) -> None:
        settled_at = max(self.ended_at.values()) + self.policy.settle_s
        assert self.now >= settled_at, "a step before the memory is free"
        during, after = DURING[verb], AFTER[verb]
        replica.state = during
        self.steps.append((verb, replica.member.name))
        self.swap_s += seconds
        fails = self.now < self.faults.until and self.rng.random() < self.faults.fail
        hangs = self.now < self.faults.until and self.rng.random() < self.faults.hang

        def end() -> None:
            if replica.is_alive and replica.state is during:
                replica.state = State.FAILED if fails else after
                replica.took_s = seconds
                replica.has_slept = after is State.ASLEEP or (replica.has_slept and verb is Verb.WAKE)
                replica.has_been_up |= replica.state is State.RESIDENT
                if replica.state is State.STOPPED:
                    self.ended_at[replica.member.name] = self.now
                self.report(replica.member.name)

        if not hangs:
            self.after(seconds, end)

    def restart(self, replica: Replica) -> None:
        if replica.is_alive and replica.state is State.FAILED:
            replica.state = State.STOPPED if replica.has_been_up else State.NOT_STARTED
            replica.has_slept = False
            self.ended_at[replica.member.name] = self.now
            self.report(replica.member.name)
        elif replica.is_alive and replica.state in IN_A_STEP:  # it hangs: only death helps
            self.die(replica.member.name)

    def die(self, name: str) -> None:
        """A replica dies: its callers get an error, and Serve makes a new replica."""
        old = self.replicas[name]
        old.is_alive = False
        for call in old.waiting + old.in_flight:
            call.is_lost = True
        self.replicas[name] = Replica(old.member)

        def notice() -> None:
            # Until then the keeper refuses the new replica.
            if not self.replicas[name].is_registered:
                if old.state not in (State.NOT_STARTED, State.STOPPED):
                    self.ended_at[name] = self.now
                self.carry_out(self.scheduler.on_leave(self.now, name))
                self.join(name)

        self.after(self.rng.uniform(0.1, 3), notice)

    def ask(self, name: str, call: Call) -> None:
        call.arrived_at = self.now
        self.replicas[name].waiting.append(call)
        self.start_calls(name)

    def cancel(self, name: str, call: Call) -> None:
        if call in self.replicas[name].waiting:
            self.replicas[name].waiting.remove(call)
            call.is_lost = True
            self.report(name)

    def start_calls(self, name: str) -> None:
        replica = self.replicas[name]
        while (
            replica.waiting
            and len(replica.in_flight) < CONCURRENCY
            and replica.waiting[0].arrived_at <= replica.cutoff
        ):
            call = replica.waiting.pop(0)
            assert replica.state is State.RESIDENT, "started without an engine"
            replica.in_flight.append(call)
            call.began_at = self.now
            self.after(call.work_s, partial(self.end, replica, call))
        self.report(name)

    def end(self, replica: Replica, call: Call) -> None:
        replica.in_flight.remove(call)
        if replica.is_alive:
            call.is_served = True
            self.start_calls(replica.member.name)
            call.then()
