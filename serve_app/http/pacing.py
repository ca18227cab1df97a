"""Events in the batches in which they come, with signs of life while none comes."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

T = TypeVar("T")
MOST_AHEAD = 64
"""Events that are taken from their source before anybody reads them."""


async def with_keepalives(events: AsyncGenerator[T], interval_s: float) -> AsyncGenerator[list[T]]:
    """The events in batches: all that have come since the last batch was taken.

    An empty batch says that no event has come for `interval_s` seconds. The first event of a batch
    waits for nothing: a batch has several events only if the source gave them without a pause, or while
    the reader was busy.

    Closing this generator closes the events.
    """
    batches = _Batches[T](interval_s)
    filling = asyncio.create_task(batches.fill(events))
    filling.add_done_callback(lambda _: batches.wake(silent=False))
    try:
        while True:
            batch = await batches.take(filling)
            if batch is None:
                break
            yield batch
        filling.result()
    finally:
        batches.close()
        filling.cancel()
        await asyncio.wait([filling])
        await events.aclose()


class _Batches(Generic[T]):
    """What has come and is not read yet."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._batch: list[T] = []
        self._room = asyncio.Event()
        self._reader: asyncio.Future[bool] | None = None
        """The reader that waits; its result says whether there was silence."""
        self._due_s = 0.0
        """When the reader that waits has waited for the interval."""
        self._timer: asyncio.TimerHandle | None = None

    async def fill(self, events: AsyncGenerator[T]) -> None:
        """Take in all events. Waits while too many are not read."""
        async for event in events:
            self._batch.append(event)
            self.wake(silent=False)
            if len(self._batch) >= MOST_AHEAD:
                self._room.clear()
                await self._room.wait()

    async def take(self, filling: asyncio.Task[None]) -> list[T] | None:
        """Wait for the next batch; None once `filling` has ended and all events are taken."""
        if not self._batch and not filling.done() and await self._wait():
            return []
        batch, self._batch = self._batch, []
        self._room.set()
        return batch or None

    def wake(self, *, silent: bool) -> None:
        """Wake the reader if one waits."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(silent)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    async def _wait(self) -> bool:
        self._reader = self._loop.create_future()
        self._due_s = self._loop.time() + self._interval_s
        if self._timer is None:
            self._timer = self._loop.call_at(self._due_s, self._look)
        try:
            return await self._reader
        finally:
            self._reader = None

    def _look(self) -> None:
        """One timer for all waits: it is set anew only after it has run out."""
        self._timer = None
        if self._reader is None:
            return
        if self._loop.time() < self._due_s:
            self._timer = self._loop.call_at(self._due_s, self._look)
        else:
            self.wake(silent=True)
