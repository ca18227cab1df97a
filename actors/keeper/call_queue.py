"""The calls of one replica, first come first served: which of them may run now."""

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
    """When it runs out of patience."""
    started: "asyncio.Future[None]"
    """Done when the call may run; its error if it never will."""


class CallQueue:
    """Runs calls that arrived up to `cutoff`, `concurrency` at a time, while the lease lasts.

    Whoever changes `cutoff` or `lease_until` calls `start_calls` afterwards. All times are those of the
    running event loop.

    Args:
        concurrency: how many calls the engine takes at once.
        on_change: called whenever a count or the turn may have changed.
    """

    def __init__(self, concurrency: int, on_change: Callable[[], None]) -> None:
        self._concurrency = concurrency
        self._on_change = on_change
        self._waiting: deque[_Call] = deque()
        self.in_flight = 0
        self.cutoff = -math.inf
        self.lease_until = -math.inf
        self.drained = asyncio.Event()
        """Set while nothing is in flight and nothing may start."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def turn(self) -> TurnState:
        if self.cutoff == math.inf:
            return TurnState.OPEN
        may_first_start = bool(self._waiting) and self._waiting[0].arrived_at <= self.cutoff
        return TurnState.CLOSING if self.in_flight or may_first_start else TurnState.CLOSED

    @property
    def counts(self) -> QueueCounts:
        first_arrival_at = self._waiting[0].arrived_at if self._waiting else math.inf
        first_due_at = min((call.due_at for call in self._waiting), default=math.inf)
        return QueueCounts(len(self._waiting), self.in_flight, first_arrival_at, first_due_at)

    def can_start(self, arrived_at: float) -> bool:
        """Whether a call that arrived then, and is the first of those that wait, may run."""
        now = asyncio.get_running_loop().time()
        has_room = self.in_flight < self._concurrency
        return has_room and arrived_at <= self.cutoff and now < self.lease_until

    def start_calls(self) -> None:
        """Start each call that may start."""
        while self._waiting and self.can_start(self._waiting[0].arrived_at):
            call = self._waiting.popleft()
            if not call.started.done():  # else it was cancelled, and its task has not run since
                self.in_flight += 1
                call.started.set_result(None)
        if self.turn is TurnState.CLOSED:
            self.drained.set()
        else:
            self.drained.clear()
        self._on_change()

    async def wait_for_start(self, patience_s: float) -> None:
        """Return when the call may run; then `end_call` must follow.

        A call that is cancelled while it waits leaves nothing behind.
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
        """A call that ran has ended."""
        self.in_flight -= 1
        self.start_calls()

    def fail_waiting(self, error: Exception) -> None:
        """End the wait of all calls that wait with an error."""
        while self._waiting:
            call = self._waiting.popleft()
            if not call.started.done():
                call.started.set_exception(error)
