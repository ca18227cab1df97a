"""The calls of one replica, first come first served: which may run now."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cluster.residency.policy import QueueCounts, Turn


@dataclass(eq=False, slots=True)
class _Call:
    arrived: float
    due: float
    admitted: "asyncio.Future[None]"


class CallQueue:
    """Calls that arrived up to `gate` may run, `concurrency` at a time, before `lease_until`.

    changed: called whenever a count or the turn may have changed.
    """

    def __init__(self, concurrency: int, changed: Callable[[], None]) -> None:
        self._concurrency, self._changed = concurrency, changed
        self._calls: deque[_Call] = deque()
        self.running = 0
        self.gate = -math.inf
        self.lease_until = -math.inf
        self.drained = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._calls)

    @property
    def turn(self) -> Turn:
        if self.gate == math.inf:
            return Turn.OPEN
        may_start = bool(self._calls) and self._calls[0].arrived <= self.gate
        return Turn.CLOSING if self.running or may_start else Turn.CLOSED

    @property
    def calls(self) -> QueueCounts:
        oldest = self._calls[0].arrived if self._calls else math.inf
        due = min((call.due for call in self._calls), default=math.inf)
        return QueueCounts(len(self._calls), self.running, oldest, due)

    def may_start(self, arrived: float) -> bool:
        """Whether a call that arrived then, and is the first in the line, may run."""
        now = asyncio.get_running_loop().time()
        return self.running < self._concurrency and arrived <= self.gate and now < self.lease_until

    def admit(self) -> None:
        """Start what may start."""
        while self._calls and self.may_start(self._calls[0].arrived):
            call = self._calls.popleft()
            if not call.admitted.done():  # else cancelled, and its task has not run since
                self.running += 1
                call.admitted.set_result(None)
        if self.turn is Turn.CLOSED:
            self.drained.set()
        else:
            self.drained.clear()
        self._changed()

    async def enter(self, patience_s: float) -> None:
        """Returns when the call may run; then `leave` must follow. Cancelled, it is as never made."""
        loop = asyncio.get_running_loop()
        call = _Call(loop.time(), loop.time() + patience_s, loop.create_future())
        self._calls.append(call)
        self.admit()
        try:
            await call.admitted
        except asyncio.CancelledError:
            if call in self._calls:
                self._calls.remove(call)
                self.admit()
            elif not call.admitted.cancelled() and call.admitted.exception() is None:
                self.leave()  # cancelled in the moment in which it was admitted
            raise

    def leave(self) -> None:
        """A call that ran has ended."""
        self.running -= 1
        self.admit()

    def refuse(self, error: Exception) -> None:
        """End the wait of all that wait."""
        while self._calls:
            call = self._calls.popleft()
            if not call.admitted.done():
                call.admitted.set_exception(error)
