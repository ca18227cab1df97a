"""Merged deltas: when they come, that nothing is lost, and that closing waits."""

import asyncio
from collections.abc import AsyncGenerator
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.coalesce import coalesce
from actors.engine import Delta

HOUR = 3600.0


class Source:
    """Gives the deltas that a test sends. An exception that is sent is raised; None is the end."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[Delta | Exception | None] = asyncio.Queue()
        self.may_close = asyncio.Event()
        self.closed = False

    def send(self, *items: Delta | Exception | None) -> None:
        for item in items:
            self.items.put_nowait(item)

    async def deltas(self) -> AsyncGenerator[Delta]:
        try:
            while (item := await self.items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            await self.may_close.wait()
            self.closed = True


@pytest.fixture
def source() -> Source:
    source = Source()
    source.may_close.set()
    return source


async def settle() -> None:
    """Let all tasks run as far as they get without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_first_delta_comes_at_once(source: Source) -> None:
    merged = coalesce(source.deltas(), HOUR)
    source.send(Delta(text="a"))
    assert await anext(merged) == Delta(text="a")
    await merged.aclose()


async def test_later_deltas_come_merged_and_once_an_interval(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    merged = coalesce(source.deltas(), HOUR)
    source.send(Delta(text="a"))
    await anext(merged)

    second = asyncio.ensure_future(anext(merged))
    await settle()
    source.send(Delta(text="b"), Delta(text="c"))
    now += HOUR - 1
    await settle()
    assert not second.done()
    source.send(Delta(text="d"))
    now += 1
    await settle()
    assert second.result() == Delta(text="bcd")
    await merged.aclose()


async def test_the_end_does_not_wait_for_the_interval(source: Source) -> None:
    source.send(Delta(text="a"))
    merged = coalesce(source.deltas(), HOUR)
    await anext(merged)
    source.send(Delta(text="b"), Delta(finish_reason="stop", completion_tokens=2), None)
    rest = [delta async for delta in merged]
    assert rest == [Delta(text="b", finish_reason="stop", completion_tokens=2)]


async def test_an_error_comes_after_all_that_was_received(source: Source) -> None:
    source.send(Delta(text="a"), Delta(text="b"), RuntimeError("broken"))
    merged = coalesce(source.deltas(), HOUR)
    assert (await anext(merged)).text == "ab"
    with pytest.raises(RuntimeError, match="broken"):
        await anext(merged)


async def test_closing_waits_until_the_source_is_closed(source: Source) -> None:
    source.may_close.clear()
    source.send(Delta(text="a"))
    merged = coalesce(source.deltas(), HOUR)
    await anext(merged)
    closing = asyncio.ensure_future(merged.aclose())
    await settle()
    assert not closing.done()
    source.may_close.set()
    await closing
    assert source.closed


async def test_cancelling_again_does_not_cut_the_closing_short() -> None:
    """As the stream of llama.cpp does: when it is closed, it waits for its native call in any case."""
    begun, may_close, closed = asyncio.Event(), asyncio.Event(), False

    async def stubborn() -> AsyncGenerator[Delta]:
        nonlocal closed
        try:
            yield Delta(text="a")
            begun.set()
            await asyncio.Event().wait()
        finally:
            waiting = asyncio.create_task(may_close.wait())
            while not waiting.done():
                try:
                    await asyncio.wait([waiting])
                except asyncio.CancelledError:
                    continue
            closed = True

    async def consume() -> None:
        async for _ in coalesce(stubborn(), HOUR):
            pass

    consumer = asyncio.create_task(consume())
    await begun.wait()
    for _ in range(2):
        consumer.cancel()
        await settle()
        assert not consumer.done()
    may_close.set()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert closed


async def test_a_source_that_was_never_asked_is_left_alone(source: Source) -> None:
    merged = coalesce(source.deltas(), HOUR)
    await merged.aclose()
    assert not source.closed


DELTAS = st.builds(
    Delta,
    text=st.text(max_size=3),
    reasoning=st.text(max_size=3),
    completion_tokens=st.integers(0, 3),
    logprobs=st.sampled_from([(), ({"token": "a"},), ({"token": "b"}, {"token": "c"})]),
)


@given(st.lists(st.tuples(DELTAS, st.integers(0, 3)), min_size=1), st.sampled_from([0, 1e-4]))
def test_nothing_is_lost_or_reordered(sent: list[tuple[Delta, int]], interval_s: float) -> None:
    async def deltas() -> AsyncGenerator[Delta]:
        for delta, pauses in sent:
            for _ in range(pauses):
                await asyncio.sleep(0)
            yield delta

    async def received() -> list[Delta]:
        return [delta async for delta in coalesce(deltas(), interval_s)]

    merged = asyncio.run(received())
    assert reduce(Delta.plus, merged) == reduce(Delta.plus, [delta for delta, _ in sent])
    assert len(merged) <= len(sent)
