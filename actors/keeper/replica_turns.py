"""The replica's side of its turns: calls wait here until it is this replica's turn.

The way of a turn: the replica joins the keeper of its card, polls it for orders, and tells it what
it has become. A turn is a lease that each answered poll renews: without the keeper no call is
started, except by a replica that has its slot to itself. A call whose turn is open already costs no
message before it starts; the keeper hears of it later, of many calls at once.
"""

import asyncio
import logging
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

from actors.keeper.call_queue import CallQueue
from cluster.residency.messages import Order, PollReply, Snapshot, Verb
from cluster.residency.policy import State, Turn
from configs.errors import EngineUnavailable

POLL_S = 2.0
"""The keeper answers a poll by then, with or without an order."""
CONTACT_S = 4.0
"""A keeper that has not answered by then is out of reach: a busy machine may take seconds."""
LEASE_S = 6.0
"""From the sending of an answered poll. Shorter than `Policy.absent_s`: before a new keeper gives
out a turn, every lease of the old one has run out."""
REPORT_EVERY_S = 1.0
"""Counts go out no more often, because a report costs milliseconds that the engines need. What the
keeper acts on goes out at once: the end of a step or of a turn, the first call, the last one gone."""
REJOIN_S = 0.05, 1.0
"""First and longest wait between attempts to join."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Keeper(Protocol):
    """The keeper of a card, as replicas see it. Times in a snapshot count from its sending.

    Raises ConnectionError where it cannot be reached.
    """

    async def join(self, member: str, who: str, found: Snapshot, replica: Any) -> str | None:
        """A ticket; None while another replica is this member. who: names this process."""

    async def report(self, ticket: str, number: int, found: Snapshot) -> bool:
        """How the replica is, after the order of that number. False if it has to join (again)."""

    async def order(self, ticket: str, after: int) -> PollReply:
        """The latest order, once its number is above `after`."""


class Steps(Protocol):
    """What the keeper makes an engine do, one at a time on its card. Any error means: restart."""

    async def start(self) -> None: ...
    async def sleep(self) -> None: ...
    async def wake(self) -> None: ...

    async def restart(self) -> None:
        """Free all that the engine holds, so that it can be started; or end the process."""


class TurnClient:
    """Lets the calls of one member run in its turns, and its engine start, sleep and wake on order.

    keeper: None for an engine that computes on no card: it starts at once and its turn never ends.
    replica: what the keeper watches and, if need be, kills; an actor's handle; who: under which it
    has joined before, if it has.
    """

    def __init__(
        self,
        member: str,
        steps: Steps,
        keeper: Keeper | None,
        *,
        concurrency: int,
        patience_s: float = math.inf,
        replica: Any = None,
        who: str | None = None,
    ) -> None:
        self._member, self._steps, self._keeper, self._replica = member, steps, keeper, replica
        self._patience_s = patience_s
        self._who = who or uuid.uuid4().hex
        self._line = CallQueue(concurrency, self._tell)
        self._state = State.STOPPED
        self._sole = False
        self._seen = 0
        self._belongs = False
        self._told: tuple[State, Turn, bool, bool] | None = None
        self._news, self._urgent, self._moved = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._took_s: float | None = None
        self._cause = ""
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def turn(self, patience_s: float | None = None) -> AsyncIterator[None]:
        """Around one call: waits for this replica's turn, and for room among those in flight.

        patience_s: in place of the member's own; infinity for a batch.

        Raises:
            EngineUnavailable: the engine failed while the call waited.
        """
        await self._line.enter(self._patience_s if patience_s is None else patience_s)
        try:
            yield
        finally:
            self._line.leave()

    @property
    def state(self) -> State:
        return self._state

    @property
    def waiting(self) -> int:
        return self._line.waiting

    @property
    def in_flight(self) -> int:
        return self._line.running

    @property
    def has_room(self) -> bool:
        """Whether a call would start at once."""
        return not self._line.waiting and self._line.may_start(asyncio.get_running_loop().time())

    def start(self) -> None:
        """Take part from now on."""
        self._tasks["member"] = asyncio.create_task(self._run())
        self._tasks["member"].add_done_callback(self._ended)

    async def started(self) -> None:
        """Returns when the engine is up, awake or asleep.

        Raises:
            EngineUnavailable: it failed.
        """
        while self._state in (State.STOPPED, State.WAKING):
            self._moved.clear()
            await self._moved.wait()
        if self._state is State.FAILED:
            raise self._unavailable()

    def engine_failed(self) -> None:
        """The engine is found dead outside of any step."""
        if self._state is not State.FAILED:
            self._enter(State.FAILED)

    async def stop(self) -> None:
        """Take part no longer; the engine stays as it is."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, member: "asyncio.Task[None]") -> None:
        if not member.cancelled() and (error := member.exception()) is not None:
            logger.error("member %s can have no more turns", self._member, exc_info=error)
            self._enter(State.FAILED)

    async def _run(self) -> None:
        if self._keeper is None:
            self._take(Order(0, Verb.START))
            return
        wait_s, longest_s = REJOIN_S
        while True:
            try:
                await self._belong(self._keeper)
            except* (ConnectionError, TimeoutError) as lost:
                level = logging.WARNING if self._belongs else logging.DEBUG
                cause = lost.exceptions[0]
                logger.log(level, "member %s: the keeper is out of reach: %s", self._member, cause)
            if self._belongs:
                self._belongs, wait_s = False, REJOIN_S[0]
            # A new keeper must find no turn that it did not give.
            if not self._sole:
                self._line.gate = -math.inf
                self._line.admit()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, longest_s)

    async def _belong(self, keeper: Keeper) -> None:
        """Join, then report and obey until the keeper is out of reach or does not know us."""
        sent, self._seen = asyncio.get_running_loop().time(), 0
        joining = keeper.join(self._member, self._who, self._snapshot(), self._replica)
        ticket = await in_time(joining)
        if ticket is None:
            raise ConnectionError("another replica still has this place")
        self._belongs = True
        self._renew(sent)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._report(keeper, ticket))
            both.create_task(self._obey(keeper, ticket))

    async def _report(self, keeper: Keeper, ticket: str) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            self._urgent.clear()
            self._told = self._essence()
            if not await in_time(keeper.report(ticket, self._seen, self._snapshot())):
                raise ConnectionError("the keeper does not know this replica")
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_EVERY_S):
                    await self._urgent.wait()

    async def _obey(self, keeper: Keeper, ticket: str) -> None:
        while True:
            sent = asyncio.get_running_loop().time()
            reply = await in_time(keeper.order(ticket, self._seen))
            if not reply.known:
                raise ConnectionError("the keeper does not know this replica")
            self._renew(sent)
            if reply.order is not None:
                self._take(reply.order)

    def _renew(self, sent: float) -> None:
        self._line.lease_until = math.inf if self._sole else sent + LEASE_S
        self._line.admit()

    def _snapshot(self) -> Snapshot:
        now = asyncio.get_running_loop().time()
        return Snapshot(self._state, self._line.turn, self._line.calls.shifted(-now), self._took_s)

    def _tell(self) -> None:
        self._news.set()
        if self._told != self._essence():
            self._urgent.set()

    def _essence(self) -> tuple[State, Turn, bool, bool]:
        return self._state, self._line.turn, self._line.waiting > 0, self._line.running > 0

    def _take(self, order: Order) -> None:
        """From here on, reports are of a replica that knows this order."""
        self._seen = order.number
        match order.verb:
            case Verb.OPEN | Verb.CLOSE:
                now = asyncio.get_running_loop().time()
                self._sole = order.sole
                self._line.gate = math.inf if order.verb is Verb.OPEN else now + order.before_s
                self._line.lease_until = math.inf if order.sole else self._line.lease_until
            case Verb.START:
                self._begin(State.WAKING, self._steps.start, State.RESIDENT)
            case Verb.WAKE:
                self._begin(State.WAKING, self._steps.wake, State.RESIDENT)
            case Verb.SLEEP:
                self._begin(State.FALLING_ASLEEP, self._steps.sleep, State.ASLEEP)
            case Verb.RESTART:
                self._begin(State.FAILED, self._steps.restart, State.STOPPED)
        self._line.admit()

    def _begin(self, during: State, step: Callable[[], Awaitable[None]], after: State) -> None:
        if (stuck := self._tasks.get("step")) is not None:
            stuck.cancel()
        self._enter(during)
        self._tasks["step"] = asyncio.create_task(self._do(step, after))

    async def _do(self, step: Callable[[], Awaitable[None]], after: State) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            if after is State.ASLEEP:
                await self._line.drained.wait()
            await step()
        except Exception as error:  # whatever an engine raises here, it is not to be used again
            logger.exception("member %s: the engine failed on its way to %s", self._member, after)
            self._cause = str(error)
            self._enter(State.FAILED)
        else:
            self._took_s = loop.time() - began
            if self._keeper is None:
                self._take(Order(0, Verb.OPEN, sole=True))
            self._enter(after)

    def _enter(self, state: State) -> None:
        before, self._state = self._state, state
        if state is State.FAILED and before is not State.FAILED:
            self._line.gate = -math.inf
            self._line.refuse(self._unavailable())
        self._moved.set()
        self._line.admit()

    def _unavailable(self) -> EngineUnavailable:
        message = f"the engine of {self._member!r} failed and is being restarted"
        return EngineUnavailable(f"{message}: {self._cause}" if self._cause else message)


async def in_time(answer: Awaitable[T]) -> T:
    """A keeper's answer; TimeoutError after CONTACT_S."""
    async with asyncio.timeout(CONTACT_S):  # Python 3.11's wait_for can swallow a cancellation
        return await answer
