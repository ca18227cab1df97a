"""The keeper of one card: the single writer of who is awake there, and whose turn it is.

A bare class around `cluster.residency.scheduler`; `ray_keeper.py` puts it on Ray. It keeps
nothing that must outlive it: a new keeper learns how things stand from the replicas that join.
"""

import asyncio
import logging
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from actors.keeper.replica_turns import POLL_S
from cluster.residency.messages import Action, CallAt, MemberAction, Order, PollReply, Snapshot, Verb
from cluster.residency.policy import Policy, State
from cluster.residency.scheduler import ResidencyScheduler, Slot

logger = logging.getLogger(__name__)

PING_S = 2.0
"""A dead replica is noticed by then."""
EMPTY_S = 30.0
"""A keeper without replicas ends after that."""


@dataclass(slots=True)
class _Seated:
    """A replica that has joined. state: as it last said; news: set when `order` is no longer the
    latest."""

    member: str
    who: str
    replica: Any
    state: State
    number: int = 0
    order: MemberAction | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    watch: "asyncio.Task[None] | None" = None


class CardKeeper:
    """Feeds what the replicas of a card tell to `ResidencyScheduler`, and its orders to the replicas.

    alive, kill: how to look after a replica by the handle that it gave; retire: what to do when none
    has been here for EMPTY_S.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        policy: Policy | None,
        alive: Callable[[Any], Awaitable[bool]],
        kill: Callable[[Any], Awaitable[None]],
        retire: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._residency = ResidencyScheduler(slots, policy)
        self._names = {member.name for slot in slots for member in slot.members}
        self._alive, self._kill, self._retire = alive, kill, retire
        self._empty: asyncio.TimerHandle | None = None
        self._seated: dict[str, _Seated] = {}
        self._tickets: dict[str, _Seated] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._deeds: set[asyncio.Future[None]] = set()
        self._orders: Counter[tuple[str, str]] = Counter()
        self._step_s: defaultdict[tuple[str, str], float] = defaultdict(float)

    async def join(self, member: str, who: str, found: Snapshot, replica: Any) -> str | None:
        """See `turns.Keeper`; a process that has died without notice is forgotten first."""
        if member not in self._names:
            raise ValueError(f"no slot of this card has a member {member!r}")
        old = self._seated.get(member)
        if old is not None:
            if old.who != who and old.replica != replica:
                return None
            self._forget(old)
            if old.who != who:
                self._carry_out(self._residency.on_leave(self._now(), member))
        if self._empty is not None:
            self._empty.cancel()
        ticket, seated = uuid.uuid4().hex, _Seated(member, who, replica, found.state)
        self._seated[member] = self._tickets[ticket] = seated
        seated.watch = asyncio.create_task(self._watch(seated))
        now = self._now()
        self._carry_out(self._residency.on_join(now, member, found.shifted(now)))
        return ticket

    async def report(self, ticket: str, number: int, found: Snapshot) -> bool:
        """See `turns.Keeper`. Only the queue counts of one that does not know its last order."""
        seated, now = self._tickets.get(ticket), self._now()
        if seated is None:
            return False
        if found.state is not seated.state:
            seated.state = found.state
            if found.state in (State.RESIDENT, State.ASLEEP):
                self._step_s[seated.member, found.state] += found.took_s or 0.0
        found = found.shifted(now)
        if number == seated.number:
            self._carry_out(self._residency.on_report(now, seated.member, found))
        else:
            self._carry_out(self._residency.on_queue(now, seated.member, found.calls))
        return True

    async def order(self, ticket: str, after: int) -> PollReply:
        """See `turns.Keeper`; answers within POLL_S."""
        seated = self._tickets.get(ticket)
        if seated is not None and seated.number <= after:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await seated.news.wait()
        if self._tickets.get(ticket) is not seated or seated is None:
            return PollReply(known=False)
        if seated.order is None or seated.number <= after:
            return PollReply(known=True)
        order = seated.order
        before_s = order.before - self._now()
        return PollReply(True, Order(seated.number, order.verb, before_s, order.sole))

    async def standing(self) -> dict[str, Snapshot]:
        """What is believed of every member. Times in it count from now."""
        now = self._now()
        return {name: found.shifted(-now) for name, found in self._residency.standing().items()}

    async def orders(self) -> dict[tuple[str, str], int]:
        """How often each member was given each order (its `Verb`): the swaps are the wakes."""
        return dict(self._orders)

    async def step_seconds(self) -> dict[tuple[str, str], float]:
        """How long each member's engine took to become awake, and asleep (its `State`), in all."""
        return dict(self._step_s)

    async def _watch(self, seated: _Seated) -> None:
        while True:
            if not await self._alive(seated.replica):
                break
            await asyncio.sleep(PING_S)
        self._seated.pop(seated.member)
        seated.watch = None
        self._forget(seated)
        self._carry_out(self._residency.on_leave(self._now(), seated.member))
        if not self._seated:
            self._empty = asyncio.get_running_loop().call_later(EMPTY_S, self._leave)

    def _forget(self, seated: _Seated) -> None:
        if seated.watch is not None:
            seated.watch.cancel()
        self._tickets = {
            ticket: other for ticket, other in self._tickets.items() if other is not seated
        }
        seated.news.set()

    def _carry_out(self, actions: Sequence[Action]) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for action in actions:
            match action:
                case CallAt(at):
                    self._timer = asyncio.get_running_loop().call_at(at, self._tick)
                case MemberAction(verb, member) if (seated := self._seated.get(member)) is not None:
                    self._orders[member, verb] += 1
                    if verb is Verb.KILL:
                        self._do(self._kill(seated.replica))
                        continue
                    seated.number, seated.order = seated.number + 1, action
                    seated.news.set()
                    seated.news = asyncio.Event()

    def _leave(self) -> None:
        if self._retire is not None:
            self._do(self._retire())

    def _do(self, deed: Awaitable[None]) -> None:
        doing = asyncio.ensure_future(deed)
        self._deeds.add(doing)
        doing.add_done_callback(self._deeds.discard)

    def _tick(self) -> None:
        self._carry_out(self._residency.tick(self._now()))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
