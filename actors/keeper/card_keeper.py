"""The keeper of one card: it alone decides which engines are awake there, and whose turn it is.

A bare class around `cluster.residency.scheduler`; `ray_keeper.py` puts it on Ray. A keeper has no data
that must outlive it: a new keeper learns the state of its card from the replicas that join.
"""

import asyncio
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from actors.keeper.protocol import POLL_S
from actors.keeper.step_lines import StepLines
from cluster.residency.messages import Action, CallAt, MemberAction, Order, PollReply, Snapshot, Verb
from cluster.residency.policy import Policy
from cluster.residency.scheduler import ResidencyScheduler
from cluster.residency.state import Slot, State
from cluster.residency.steps import AFTER, STEP_IN

PING_S = 2.0
"""Seconds between two checks that a replica lives. So its death is noticed about this late."""
EMPTY_S = 30.0
"""A keeper ends this many seconds after its last replica has gone. A replica's restart takes less."""


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Times of one member's engine, in seconds."""

    since_s: float
    """For how long the engine has been in its state."""
    expected_s: float | None
    """How long the step takes in which it is now, as measured the last time, or else as predicted; None
    if it is in no step."""
    last_s: float | None
    """How long its last step took; None before the first."""


@dataclass(slots=True)
class _Registration:
    """A replica that has joined. Four identities belong to it:

    - the member is its place in the plan, whichever process fills that place;
    - the claimant is its process, by which the keeper sees whether this process has joined before;
    - the ticket stands for this one registration: the keeper refuses messages with an older ticket;
    - the replica is the actor that the keeper watches and kills. If Ray restarts the actor, it is
      the same replica with a new process.
    """

    member: str
    claimant_id: str
    replica: Any
    state: State
    """The state that the replica last reported."""
    number: int = 0
    """Number of the latest order; 0 before the first."""
    order: MemberAction | None = None
    """The latest order; None before the first."""
    new_order: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a newer order has replaced `order`, or the registration has ended."""
    watch: "asyncio.Task[None] | None" = None


class CardKeeper:
    """Feeds the reports of a card's replicas to the scheduler, and its orders to the replicas.

    Args:
        slots: the card's slots and their members.
        policy: the scheduler's numbers; None for the defaults.
        is_alive: tells whether a replica lives, by the handle with which the replica joined.
        kill: ends a replica's process, by the same handle.
        retire: called EMPTY_S after the last replica has gone, if none has joined since.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        policy: Policy | None,
        is_alive: Callable[[Any], Awaitable[bool]],
        kill: Callable[[Any], Awaitable[None]],
        retire: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._scheduler = ResidencyScheduler(slots, policy)
        self._is_alive = is_alive
        self._kill = kill
        self._retire = retire
        self._names = {member.name for slot in slots for member in slot.members}
        self._by_member: dict[str, _Registration] = {}
        self._by_ticket: dict[str, _Registration] = {}
        self._tick_timer: asyncio.TimerHandle | None = None
        self._retire_timer: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Future[None]] = set()
        self._order_counts: Counter[tuple[str, str]] = Counter()
        self._step_seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._last_step_s: dict[str, float] = {}
        scheduler = self._scheduler
        self._lines = StepLines(scheduler.waiting, scheduler.expected_s, scheduler.longest_s)

    async def join(self, member: str, claimant_id: str, found: Snapshot, replica: Any) -> str | None:
        """See `protocol.Keeper`. A new process of the same actor replaces the one that had joined.

        Raises:
            ValueError: no slot of this card has such a member.
        """
        if member not in self._names:
            raise ValueError(f"no slot of this card has a member {member!r}")
        old = self._by_member.get(member)
        if old is not None:
            if old.claimant_id != claimant_id and old.replica != replica:
                return None
            self._forget(old)
            if old.claimant_id != claimant_id:
                self._carry_out(self._scheduler.on_leave(self._now(), member))
        if self._retire_timer is not None:
            self._retire_timer.cancel()
        ticket = uuid.uuid4().hex
        registration = _Registration(member, claimant_id, replica, found.state)
        self._by_member[member] = registration
        self._by_ticket[ticket] = registration
        registration.watch = asyncio.create_task(self._watch(registration))
        now = self._now()
        self._carry_out(self._scheduler.on_join(now, member, found.shift_times(now)))
        return ticket

    async def report(self, ticket: str, number: int, found: Snapshot) -> bool:
        """See `protocol.Keeper`.

        If the replica has not seen its latest order yet, the snapshot's state and turn are those from
        before that order. Then only its counts of calls go to the scheduler.
        """
        registration = self._by_ticket.get(ticket)
        now = self._now()
        if registration is None:
            return False
        if found.state is not registration.state:
            was_failed = registration.state is State.FAILED
            registration.state = found.state
            if found.state in AFTER.values() and not was_failed:
                self._step_seconds[registration.member, found.state] += found.took_s or 0.0
                if found.took_s is not None:
                    self._last_step_s[registration.member] = found.took_s
        found = found.shift_times(now)
        if number == registration.number:
            self._lines.entered(registration.member, found.state, found.took_s)
            self._carry_out(self._scheduler.on_report(now, registration.member, found))
        else:
            self._carry_out(self._scheduler.on_queue(now, registration.member, found.calls))
        return True

    async def poll(self, ticket: str, after: int) -> PollReply:
        """See `protocol.Keeper`; answers within POLL_S."""
        registration = self._by_ticket.get(ticket)
        if registration is not None and registration.number <= after:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await registration.new_order.wait()
        if self._by_ticket.get(ticket) is not registration or registration is None:
            return PollReply(known=False)
        action = registration.order
        is_up = self._scheduler.is_up(registration.member)
        if action is None or registration.number <= after:
            return PollReply(known=True, is_up=is_up)
        cutoff_s = action.cutoff - self._now()
        order = Order(registration.number, action.verb, cutoff_s, action.sole_member)
        return PollReply(known=True, order=order, is_up=is_up)

    async def snapshots(self) -> dict[str, Snapshot]:
        """The last known snapshot of every member, by name. Times in them are seconds from now."""
        now = self._now()
        return {name: found.shift_times(-now) for name, found in self._scheduler.snapshots().items()}

    async def order_counts(self) -> dict[tuple[str, str], int]:
        """How many orders each member was given, by (member, `Verb`). WAKE or START ends a swap."""
        return dict(self._order_counts)

    async def step_seconds(self) -> dict[tuple[str, str], float]:
        """Seconds that all steps into RESIDENT, ASLEEP or STOPPED took, by (member, `State`)."""
        return dict(self._step_seconds)

    async def step_times(self) -> dict[str, StepTimes]:
        """How long each member has been in its state, and how long its steps take, by name."""
        now = self._now()
        return {
            name: StepTimes(
                since_s=self._scheduler.since_s(name, now),
                expected_s=self._scheduler.expected_s(name, step)
                if (step := STEP_IN.get(found.state))
                else None,
                last_s=self._last_step_s.get(name),
            )
            for name, found in self._scheduler.snapshots().items()
        }

    async def _watch(self, registration: _Registration) -> None:
        while True:
            if not await self._is_alive(registration.replica):
                break
            await asyncio.sleep(PING_S)
        self._by_member.pop(registration.member)
        registration.watch = None
        self._forget(registration)
        self._lines.gone(registration.member)
        self._carry_out(self._scheduler.on_leave(self._now(), registration.member))
        if not self._by_member:
            loop = asyncio.get_running_loop()
            self._retire_timer = loop.call_later(EMPTY_S, self._retire_empty)

    def _forget(self, registration: _Registration) -> None:
        if registration.watch is not None:
            registration.watch.cancel()
        self._by_ticket = {
            ticket: other for ticket, other in self._by_ticket.items() if other is not registration
        }
        registration.new_order.set()

    def _carry_out(self, actions: Sequence[Action]) -> None:
        if self._tick_timer is not None:
            self._tick_timer.cancel()
            self._tick_timer = None
        for action in actions:
            match action:
                case CallAt(at):
                    self._tick_timer = asyncio.get_running_loop().call_at(at, self._tick)
                case MemberAction(_, member) if (found := self._by_member.get(member)) is not None:
                    self._send(found, action)

    def _send(self, registration: _Registration, action: MemberAction) -> None:
        self._lines.ordered(action)
        self._order_counts[action.member, action.verb] += 1
        if action.verb is Verb.KILL:
            self._run_in_background(self._kill(registration.replica))
            return
        registration.number += 1
        registration.order = action
        registration.new_order.set()
        registration.new_order = asyncio.Event()

    def _retire_empty(self) -> None:
        if self._retire is not None:
            self._run_in_background(self._retire())

    def _run_in_background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _tick(self) -> None:
        self._carry_out(self._scheduler.tick(self._now()))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
