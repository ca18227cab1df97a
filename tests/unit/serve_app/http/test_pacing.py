"""Batches of events, and the signs of life between them."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from serve_app.http.pacing import MOST_AHEAD, with_keepalives

LONG_S = 60
"""Seconds that no test here waits for."""


class Source:
    """Numbers as events, and errors, which a test puts into `queue`; 0 is the end."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[int | Exception] = asyncio.Queue()
        self.closed = False
        """Whether the generator of the events has ended."""

    async def events(self) -> AsyncGenerator[int]:
        try:
            while item := await self.queue.get():
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


async def test_no_event_is_lost_between_signs_of_life() -> None:
    source = Source()
    sent, seen = 0, list[int]()
    async for batch in with_keepalives(source.events(), 0.0001):
        if batch:
            seen += batch
        elif sent == len(seen):  # only once the interval is over, so that each wait was cut short
            sent += 1
            source.queue.put_nowait(sent % 100)
    assert seen == list(range(1, 100))
    assert source.closed


async def test_an_error_passes_through_once() -> None:
    source = Source()
    source.queue.put_nowait(ValueError("wrong"))
    pacing = with_keepalives(source.events(), LONG_S)
    with pytest.raises(ValueError, match="wrong"):
        await anext(pacing)
    assert source.closed
    assert await anext(pacing, "end") == "end"


@pytest.mark.parametrize("where", ["unstarted", "waiting", "between"])
async def test_closing_the_paced_events_closes_the_events(where: str) -> None:
    source = Source()
    pacing = with_keepalives(source.events(), 0.0001 if where == "waiting" else LONG_S)
    if where == "waiting":
        assert await anext(pacing) == []
    elif where == "between":
        source.queue.put_nowait(1)
        assert await anext(pacing) == [1]
    await pacing.aclose()
    assert source.closed is (where != "unstarted")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_events_that_come_at_once_are_one_batch() -> None:
    source = Source()
    for number in (1, 2, 3):
        source.queue.put_nowait(number)
    pacing = with_keepalives(source.events(), LONG_S)
    assert await anext(pacing) == [1, 2, 3]
    source.queue.put_nowait(4)
    assert await anext(pacing) == [4]
    await pacing.aclose()


async def test_an_error_comes_after_the_events_before_it() -> None:
    source = Source()
    for item in (1, ValueError("wrong")):
        source.queue.put_nowait(item)
    pacing = with_keepalives(source.events(), LONG_S)
    assert await anext(pacing) == [1]
    with pytest.raises(ValueError, match="wrong"):
        await anext(pacing)


async def test_a_slow_reader_holds_up_the_source() -> None:
    taken = 0

    async def events() -> AsyncGenerator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    pacing = with_keepalives(events(), LONG_S)
    seen = await anext(pacing)
    for _ in range(20):
        await asyncio.sleep(0)
    assert taken <= len(seen) + MOST_AHEAD + 1
    await pacing.aclose()


@pytest.mark.virtual_time
async def test_silence_is_counted_from_the_last_event() -> None:
    loop = asyncio.get_running_loop()

    async def events() -> AsyncGenerator[int]:
        await asyncio.sleep(3)
        yield 1
        await asyncio.sleep(11)
        yield 2

    began = loop.time()
    seen = [(loop.time() - began, batch) async for batch in with_keepalives(events(), 5)]
    assert seen == [(3, [1]), (8, []), (13, []), (14, [2])]
