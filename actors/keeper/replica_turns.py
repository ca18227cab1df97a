"""Holds back the calls of a replica until the keeper of its card gives the replica a turn.

Replicas that share a slot of a card are awake in turns, and the keeper decides whose turn it is. A
replica joins the keeper, polls it for orders, and reports its own state after each change. A turn is a
lease that each answered poll renews. When the lease has run out, no further call starts; a replica that
has its slot to itself needs no lease. A call that arrives during the replica's turn starts without a
message to the keeper. A later report tells the keeper of many such calls at once.
"""

import asyncio
import logging
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol

from actors.keeper.call_queue import CallQueue
from actors.keeper.first_start import FIRST_TRIES, FirstStart
from actors.keeper.protocol import LEASE_S, Keeper, wait_for_answer
from cluster.residency.messages import Order, Snapshot, Verb
from cluster.residency.state import State, TurnState
from cluster.residency.steps import AFTER, DURING
from configs.errors import EngineUnavailable

REPORT_EVERY_S = 1.0
"""Least seconds between two reports if only the numbers of calls have changed, because a report costs
milliseconds that the engines need. A change that the keeper acts on is reported at once: the end of a
step or of a turn, the first waiting or running call, and the end of the last such call."""
REJOIN_S = 0.05, 1.0
"""First and longest wait between attempts to join, in seconds. The wait doubles with each attempt."""

logger = logging.getLogger(__name__)


class Steps(Protocol):
    """The steps of an engine that the keeper may order. After any error the engine has to restart."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def sleep(self) -> None: ...
    async def wake(self) -> None: ...

    async def restart(self) -> None:
        """Free all that the engine holds, so that the engine can be started; or end the process."""


class TurnClient:
    """One replica's part in the turns of its slot.

    Starts the replica's calls during its turns, and has its engine start, stop, sleep, wake and restart
    as the keeper orders.

    Args:
        member: the replica's name as a member of its slot.
        steps: the engine's steps.
        keeper: the keeper of the card. None for an engine that computes on no card: the engine starts
            at once, and its turn never ends.
        concurrency: how many calls the engine works on at once.
        patience_s: seconds that a call waits before the keeper ends another member's turn for it.
        replica: the actor handle by which the keeper watches and kills this process.
        claimant_id: the identity under which this process has joined before, if it has.
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
        claimant_id: str | None = None,
    ) -> None:
        self._member = member
        self._steps = steps
        self._keeper = keeper
        self._replica = replica
        self._patience_s = patience_s
        self._claimant_id = claimant_id or uuid.uuid4().hex
        self._queue = CallQueue(concurrency, self._on_queue_change)

        self._state = State.NOT_STARTED
        self._step_took_s: float | None = None
        self._has_slept = False
        self._failure = ""
        self._first_start = FirstStart(member, FIRST_TRIES if keeper else 1)

        self._is_registered = False
        self._is_sole_member = False
        self._last_order = 0
        self._report_due = asyncio.Event()
        self._report_now = asyncio.Event()
        self._last_reported: tuple[State, TurnState, bool, bool] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def turn(self, patience_s: float | None = None) -> AsyncIterator[None]:
        """Run one call inside this context.

        On entry the call waits for this replica's turn, and until fewer than `concurrency` calls are in
        flight. On exit the call counts as ended.

        Args:
            patience_s: seconds that this call waits before the keeper ends another member's turn for
                it; None for the `patience_s` of the constructor, infinity for a call of a batch.

        Raises:
            EngineUnavailable: the engine fails while the call waits.
        """
        await self._queue.wait_for_start(self._patience_s if patience_s is None else patience_s)
        try:
            yield
        finally:
            self._queue.end_call()

    @property
    def state(self) -> State:
        return self._state

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    @property
    def oldest_wait_s(self) -> float:
        """Seconds for which the oldest of the waiting calls has waited; 0 if none waits."""
        if not self._queue.waiting:
            return 0.0
        return asyncio.get_running_loop().time() - self._queue.counts.first_arrival_at

    @property
    def in_flight(self) -> int:
        return self._queue.in_flight

    @property
    def has_room(self) -> bool:
        """Whether a call that arrives now starts at once, or as soon as a warm-up has ended."""
        return self._queue.has_room

    @contextmanager
    def warm_up(self, end: Callable[[], object], *, alone: bool) -> Iterator[bool]:
        """Give true if a warm-up may run inside this context, and false if it may not.

        Args:
            end, alone: see `CallQueue.begin_warm_up`.
        """
        if self._state is not State.RESIDENT or not self._queue.begin_warm_up(end, alone=alone):
            yield False
            return
        try:
            yield True
        finally:
            self._queue.end_warm_up()

    def start(self) -> None:
        """Join the keeper and take part in the turns, until `stop`."""
        self._tasks["member"] = asyncio.create_task(self._run())
        self._tasks["member"].add_done_callback(self._on_run_end)

    async def wait_until_up(self) -> None:
        """Return when the replica may take its first calls.

        The engine has been started by then, and it has left the card once if others need the card. If
        the first start fails, the keeper orders it again, up to FIRST_TRIES times in all.

        Raises:
            EngineUnavailable: the engine could not be started, or no further try can help.
        """
        await self._first_start.wait()

    def mark_engine_failed(self, cause: str = "") -> None:
        """Tell the keeper that the engine has failed outside of any step.

        The engine may be awake or asleep. A sleeping engine is started again while nobody asks, or when
        the next call waits for it.

        Args:
            cause: why, for the log and for the callers whose calls wait.
        """
        if self._state is not State.FAILED:
            self._failure = cause or self._failure
            self._enter(State.FAILED)

    async def stop(self) -> None:
        """End the part in the turns. When this returns, no step runs; the engine stays as it is."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_run_end(self, run: "asyncio.Task[None]") -> None:
        if not run.cancelled() and (error := run.exception()) is not None:
            logger.error("member %s can have no more turns", self._member, exc_info=error)
            self._failure = str(error)
            self._first_start.give_up(f"cannot take part in the turns of its card: {error}")
            self._enter(State.FAILED)

    async def _run(self) -> None:
        if self._keeper is None:
            self._carry_out(Order(0, Verb.START))
            return
        wait_s, longest_s = REJOIN_S
        while True:
            try:
                await self._stay_registered(self._keeper)
            except* (ConnectionError, TimeoutError) as lost:
                level = logging.WARNING if self._is_registered else logging.DEBUG
                cause = lost.exceptions[0]
                logger.log(level, "member %s: the keeper is out of reach: %s", self._member, cause)
            if self._is_registered:
                self._is_registered = False
                wait_s = REJOIN_S[0]
            if not self._is_sole_member:
                # A new keeper must not find a turn that it has not given.
                self._queue.cutoff = -math.inf
                self._queue.start_calls()
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, longest_s)

    async def _stay_registered(self, keeper: Keeper) -> None:
        """Join the keeper, then report to it and follow its orders, until an error ends that.

        Raises:
            ConnectionError, TimeoutError: the keeper is out of reach, does not know this replica, or
                still has another replica as this member.
        """
        sent_at = asyncio.get_running_loop().time()
        self._last_order = 0
        joining = keeper.join(self._member, self._claimant_id, self._snapshot(), self._replica)
        ticket = await wait_for_answer(joining)
        if ticket is None:
            raise ConnectionError("another replica still is this member")
        self._is_registered = True
        self._renew_lease(sent_at)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._report(keeper, ticket))
            both.create_task(self._follow_orders(keeper, ticket))

    async def _report(self, keeper: Keeper, ticket: str) -> None:
        while True:
            await self._report_due.wait()
            self._report_due.clear()
            self._report_now.clear()
            self._last_reported = self._report_key()
            if not await wait_for_answer(keeper.report(ticket, self._last_order, self._snapshot())):
                raise ConnectionError("the keeper does not know this replica")
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_EVERY_S):
                    await self._report_now.wait()

    async def _follow_orders(self, keeper: Keeper, ticket: str) -> None:
        while True:
            sent_at = asyncio.get_running_loop().time()
            reply = await wait_for_answer(keeper.poll(ticket, self._last_order))
            if not reply.known:
                raise ConnectionError("the keeper does not know this replica")
            self._renew_lease(sent_at)
            if reply.is_up:
                self._first_start.note_up()
            if reply.order is not None:
                self._carry_out(reply.order)

    def _renew_lease(self, sent_at: float) -> None:
        self._queue.lease_until = math.inf if self._is_sole_member else sent_at + LEASE_S
        self._queue.start_calls()

    def _snapshot(self) -> Snapshot:
        """This replica's state, turn and calls. Times count from now: the keeper has another clock."""
        now = asyncio.get_running_loop().time()
        counts = self._queue.counts.shift_times(-now)
        return Snapshot(
            self._state,
            self._queue.turn,
            counts,
            self._step_took_s,
            has_slept=self._has_slept,
            failure=self._failure,
        )

    def _on_queue_change(self) -> None:
        self._report_due.set()
        if self._last_reported != self._report_key():
            self._report_now.set()

    def _report_key(self) -> tuple[State, TurnState, bool, bool]:
        """The part of the state that the keeper acts on. When it changes, a report is sent at once."""
        return self._state, self._queue.turn, self._queue.waiting > 0, self._queue.calls > 0

    def _carry_out(self, order: Order) -> None:
        """Carry out an order, and send its number with every report from now on."""
        self._last_order = order.number
        match order.verb:
            case Verb.OPEN:
                self._is_sole_member = order.sole_member
                self._queue.cutoff = math.inf
            case Verb.CLOSE:
                self._is_sole_member = order.sole_member
                self._queue.cutoff = asyncio.get_running_loop().time() + order.cutoff_s
            case Verb.RESTART:
                # An engine that has never been up has to be tried again before any call can come.
                after = State.STOPPED if self._first_start.is_up else State.NOT_STARTED
                self._begin_step(State.FAILED, self._steps.restart, after)
            case Verb.START | Verb.STOP | Verb.SLEEP | Verb.WAKE as verb:
                step: Callable[[], Awaitable[None]] = getattr(self._steps, verb)
                self._begin_step(DURING[verb], step, AFTER[verb])
        if self._is_sole_member:
            self._queue.lease_until = math.inf
        self._queue.start_calls()

    def _begin_step(self, during: State, step: Callable[[], Awaitable[None]], after: State) -> None:
        if (stuck := self._tasks.get("step")) is not None:
            stuck.cancel()
        self._enter(during)
        self._tasks["step"] = asyncio.create_task(self._run_step(step, after))

    async def _run_step(self, step: Callable[[], Awaitable[None]], after: State) -> None:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            if self._state in (State.FALLING_ASLEEP, State.STOPPING):
                await self._queue.drained.wait()
            await step()
        except Exception as error:  # after any error in a step the engine must not be used again
            logger.exception("member %s: the engine failed on its way to %s", self._member, after)
            self._failure = str(error)
            self._first_start.note_failure(error)
            self._enter(State.FAILED)
        else:
            self._step_took_s = loop.time() - began_at
            self._has_slept = after is State.ASLEEP or (self._has_slept and after is State.RESIDENT)
            if self._keeper is None:
                self._first_start.note_up()
                self._carry_out(Order(0, Verb.OPEN, sole_member=True))
            self._enter(after)

    def _enter(self, state: State) -> None:
        before = self._state
        self._state = state
        if state is State.FAILED and before is not State.FAILED:
            self._queue.cutoff = -math.inf
            self._queue.fail_waiting(self._unavailable())
        self._queue.start_calls()

    def _unavailable(self) -> EngineUnavailable:
        message = f"the engine of {self._member!r} failed and is being restarted"
        return EngineUnavailable(f"{message}: {self._failure}" if self._failure else message)
