"""Works on many items with a limited number of workers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


async def work_on_all(items: Iterable[T], work: Callable[[T], Awaitable[None]], in_flight: int) -> None:
    """Do `work` on each item, on at most `in_flight` items at once.

    An item is drawn from `items` only when work on it starts.

    Raises:
        Exception: `work` raised it first. Then work under way is cancelled, and no other item is drawn.
    """
    remaining = iter(items)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(_work_on_next(remaining, work))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _work_on_next(remaining: Iterator[T], work: Callable[[T], Awaitable[None]]) -> None:
    """One worker: takes the next item until none is left; all workers share the iterator."""
    for item in remaining:
        await work(item)
