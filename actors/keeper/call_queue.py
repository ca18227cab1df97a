"""The calls of one replica, first come, first served: which may run, and when a warm-up may."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cluster.residency.state import QueueCounts, TurnState


@dataclass(eq=False, slots=True)
class _Call:
    arrived_at: float
    due_at: float
    """When the call runs out of patience."""
    started: "asyncio.Future[None]"
    """Done when the call may run, or with an error if the call never will."""


class CallQueue:
    """Lets calls run that arrived up to `cutoff`, `concurrency` at a time, until `lease_until`.

    After a change of `cutoff` or `lease_until`, `start_calls` has to be called. All times are those of
    the running event loop.

    Args:
        concurrency: how many calls the engine takes at once.
        on_change: called whenever a count or the turn may have changed.
    """

    def __init__(self, concurrency: int, on_change: Callable[[], None]) -> None:
        self._concurrency = concurrency
        self._on_change = on_change
        self._waiting: deque[_Call] = deque()
        self.in_flight = 0
        """How many calls run now, a warm-up included."""
        self._end_warm_up: Callable[[], object] | None = None
        """Ends the warm-up that runs; None if no warm-up runs."""
        self.cutoff = -math.inf
        """Calls that arrived up to this time may start: infinity for all, minus infinity for none."""
        self.lease_until = -math.inf
        """From this time on no call may start: another replica may have the turn by then."""
        self.drained = asyncio.Event()
        """Set while `turn` is CLOSED: nothing is in flight, and nothing may start."""

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._waiting)

    @property
    def turn(self) -> TurnState:
        """The state of the turn by the cutoff and the calls. The lease does not matter here."""
        if self.cutoff == math.inf:
            return TurnState.OPEN
        may_first_start = bool(self._waiting) and self._waiting[0].arrived_at <= self.cutoff
        return TurnState.CLOSING if self.in_flight or may_first_start else TurnState.CLOSED

    @property
    def counts(self) -> QueueCounts:
        """How many calls wait and run, and when the first of those that wait arrived and is due."""
        first_arrival_at = self._waiting[0].arrived_at if self._waiting else math.inf
        first_due_at = min((call.due_at for call in self._waiting), default=math.inf)
        return QueueCounts(len(self._waiting), self.calls, first_arrival_at, first_due_at)

    @property
    def calls(self) -> int:
        """How many calls run now. A warm-up does not count: no engine stays awake for a warm-up."""
        return self.in_flight - (self._end_warm_up is not None)

    @property
    def has_room(self) -> bool:
        """Whether a call that arrives now starts at once, or as soon as a warm-up has ended."""
        now = asyncio.get_running_loop().time()
        is_turn = now <= self.cutoff and now < self.lease_until
        return not self._waiting and self.calls < self._concurrency and is_turn

    def begin_warm_up(self, end: Callable[[], object], *, alone: bool) -> bool:
        """Let a warm-up begin if it is in no call's way. If it begins, `end_warm_up` must follow.

        A warm-up is in no call's way if the turn is open, no call waits, no other warm-up runs, and
        room for a call is left.

        Args:
            end: ends the warm-up. It is called when a call has no room or the turn has to end.
            alone: whether the warm-up may run only while no call runs.
        """
        left = 0 if alone else self._concurrency - 2
        may_run = self._concurrency > 1 and self.cutoff == math.inf and not self._waiting
        now = asyncio.get_running_loop().time()
        if not may_run or self._end_warm_up or self.in_flight > left or now >= self.lease_until:
            return False
        self.in_flight += 1
        self._end_warm_up = end
        return True

    def end_warm_up(self) -> None:
        """Note that the warm-up that `begin_warm_up` let begin has ended."""
        self._end_warm_up = None
        self.end_call()

    def can_start(self, arrived_at: float) -> bool:
        """Whether a call that arrived at this time may start if no earlier call waits."""
        now = asyncio.get_running_loop().time()
        has_room = self.in_flight < self._concurrency
        return has_room and arrived_at <= self.cutoff and now < self.lease_until

    def start_calls(self) -> None:
        """Let every waiting call run that may, then update `drained` and call `on_change`."""
        while self._waiting and self.can_start(self._waiting[0].arrived_at):
            call = self._waiting.popleft()
            if not call.started.done():  # else it was cancelled, and its task has not run since
                self.in_flight += 1
                call.started.set_result(None)
        if self._end_warm_up is not None and (self._waiting or self.cutoff != math.inf):
            self._end_warm_up()
        if self.turn is TurnState.CLOSED:
            self.drained.set()
        else:
            self.drained.clear()
        self._on_change()

    async def wait_for_start(self, patience_s: float) -> None:
        """Add a call to the queue, and return when the call may run; then `end_call` must follow.

        A call that is cancelled while it waits leaves nothing behind.

        Args:
            patience_s: after waiting this many seconds, the call may end another model's turn.

        Raises:
            Exception: the error that `fail_waiting` was given.
        """
        loop = asyncio.get_running_loop()
        call = _Call(loop.time(), loop.time() + patience_s, loop.create_future())
        self._waiting.append(call)
        self.start_calls()
        try:
            await call.started
        except asyncio.CancelledError:
            if call in self._waiting:
                self._waiting.remove(call)
                self.start_calls()
            elif not call.started.cancelled() and call.started.exception() is None:
                self.end_call()  # it was cancelled in the moment in which it was started
            raise

    def end_call(self) -> None:
        """Note that a call has ended which `wait_for_start` let run."""
        self.in_flight -= 1
        self.start_calls()

    def fail_waiting(self, error: Exception) -> None:
        """Have `wait_for_start` raise `error` for all calls that wait."""
        while self._waiting:
            call = self._waiting.popleft()
            if not call.started.done():
                call.started.set_exception(error)
