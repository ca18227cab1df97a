"""Limits of time: for one block, and for many waits of one task."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType


@asynccontextmanager
async def until(limit: float) -> AsyncGenerator[None]:
    """Raise TimeoutError in the block at the limit, a time on the event loop's clock.

    If the limit has passed already, the block does not begin. With asyncio's timeout alone, the block
    would begin and would be cancelled at its first wait.
    """
    if asyncio.get_running_loop().time() >= limit:
        raise TimeoutError
    async with asyncio.timeout_at(limit):
        yield


class TimeLimit:
    """Ends waits that last beyond a limit: `with limit: await ...`, as often as needed.

    All waits share one timer. `asyncio.timeout_at` would set a timer for each of them. Between the
    waits the limit ends nothing, so a generator may yield there. After the last wait, `close` stops the
    timer.

    Args:
        when: the limit, in seconds on the event loop's clock. It may be moved to a later time.

    Raises:
        TimeoutError: in the block, when the limit passes. If it has passed already, the block does not
            begin.
    """

    def __init__(self, when: float) -> None:
        self.when = when
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        """The task that waits."""
        self._cancelling = 0
        """How often the task was cancelled before its wait began."""
        self._has_cancelled = False

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> None:
        if self._loop.time() >= self.when:
            raise TimeoutError
        self._task = task = asyncio.current_task()
        assert task is not None
        self._cancelling = task.cancelling()
        if self._timer is None:
            self._timer = self._loop.call_at(self.when, self._look)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if not self._has_cancelled:
            return
        assert task is not None
        self._has_cancelled = False
        # Somebody else may have cancelled the task at the same time; that goes first.
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _look(self) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self.when:
            self._timer = self._loop.call_at(self.when, self._look)
        else:
            self._has_cancelled = True
            self._task.cancel()
