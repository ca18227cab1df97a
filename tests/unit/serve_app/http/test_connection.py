"""Clients that leave: nothing works for them any longer. And keep-alives while an answer is silent."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import openai
import pytest

from serve_app.http.api import create_api
from serve_app.http.connection import with_keepalives
from tests.unit.scripts import JumpingLoop
from tests.unit.serve_app.conftest import MIXTURE, Exchange, Puppets, recipe

Ask = Callable[..., Exchange]
LONG_S = 60
"""Seconds that no test here waits for."""
DIRECT = MIXTURE | {"model": "one", "stream": True}


@pytest.mark.parametrize("fields", [{"stream": True}, {}], ids=["streamed", "whole"])
@pytest.mark.parametrize("cancelled", [False, True], ids=["disconnect", "cancellation by Ray Serve"])
@pytest.mark.parametrize("phase", ["proposers", "aggregator", "direct"])
async def test_a_client_that_leaves_closes_every_call(
    puppets: Puppets, ask: Ask, phase: str, cancelled: bool, fields: dict[str, Any]
) -> None:
    exchange = ask(model="one" if phase == "direct" else "mix", **fields)
    if phase == "direct":
        calls = [await puppets.call("one")]
    elif phase == "proposers":
        calls = [await puppets.call("one"), await puppets.call("two")]
    else:
        await puppets.answer("one")
        await puppets.answer("two")
        calls = [await puppets.call("writer")]
        calls[0].say("some text")
    if cancelled:
        exchange.app.cancel()
    else:
        exchange.leave()
    await asyncio.wait([exchange.app])
    assert [call.closed.is_set() for call in calls] == [True] * len(calls)
    assert exchange.app.cancelled() is cancelled
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("at", ["http.response.start", "http.response.body"])
async def test_a_client_that_leaves_while_it_is_sent_to_closes_every_call(
    puppets: Puppets, ask: Ask, at: str
) -> None:
    stuck = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == at:
            stuck.set()
            await asyncio.Event().wait()

    exchange = ask(stream=True, model="one", send=send)
    call = await puppets.call("one")
    call.say("some text")
    await stuck.wait()
    exchange.leave()
    await exchange.app
    assert call.closed.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_real_server_closes_every_call_of_a_client_that_leaves(
    puppets: Puppets, listen: Callable[..., Any], stream: bool
) -> None:
    client: openai.AsyncOpenAI = await listen(create_api(recipe(), puppets))
    asking = asyncio.create_task(client.chat.completions.create(**MIXTURE, stream=stream))
    calls = [await puppets.call("one"), await puppets.call("two")]
    if stream:
        response: Any = await asking
        await response.close()
    else:
        asking.cancel()
    for call in calls:
        await call.closed.wait()


@pytest.mark.parametrize("at", ["http.response.start", "http.response.body"])
async def test_a_client_that_reads_nothing_for_too_long_closes_every_call(
    puppets: Puppets, ask: Ask, at: str
) -> None:
    async def send(message: Any) -> None:
        if message["type"] == at:
            await asyncio.Event().wait()

    exchange = ask({"write_timeout_s": 0.01}, stream=True, model="one", send=send)
    call = await puppets.call("one")
    call.say("some text")
    await exchange.app
    assert call.closed.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_client_that_reads_slowly_but_in_time_is_waited_for() -> None:
    """Each send takes nearly as long as the limit, and all of them take many times as long."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        await asyncio.sleep(9)
        sent.append(message)

    async def scene() -> None:
        puppets = Puppets()
        exchange = Exchange(create_api(recipe(write_timeout_s=10), puppets), DIRECT, send)
        call = await puppets.call("one")
        for _ in range(4):
            call.say("text")
        call.end()
        await exchange.app

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(scene())
    assert sum(b'"text"' in message.get("body", b"") for message in sent) == 4
    assert sent[-1]["more_body"] is False


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
    sent, seen = 0, []
    async for event in with_keepalives(source.events(), 0.0001):
        if event is not None:
            seen.append(event)
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
        assert await anext(pacing) is None
    elif where == "between":
        source.queue.put_nowait(1)
        assert await anext(pacing) == 1
    await pacing.aclose()
    assert source.closed is (where != "unstarted")
    assert asyncio.all_tasks() == {asyncio.current_task()}
