"""Clients that leave: nothing works for them any longer."""

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest

from serve_app.http.api import create_api
from tests.unit.scripts import JumpingLoop
from tests.unit.serve_app.conftest import MIXTURE, Exchange, Puppets, recipe

Ask = Callable[..., Exchange]
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
            await asyncio.sleep(30)
        call.end()
        await exchange.app

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(scene())
    assert sum(b'"text"' in message.get("body", b"") for message in sent) == 4
    assert sent[-1]["more_body"] is False
