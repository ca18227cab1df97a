"""Clients that send a FIN: the ones that left cost nothing any more, the ones that still read get their
answer."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, cast
from unittest.mock import Mock

import h11
import pytest
from starlette.types import Receive, Scope, Send

from serve_app.http import half_closed
from serve_app.http.api import create_api
from serve_app.http.exchange import Exchange, Flow, asgi_scope
from serve_app.http.half_closed import QUICK_S
from tests.unit.serve_app.conftest import CHAT, MIXTURE, Puppets, Scripted, listening, recipe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the state of a socket")

FAST_S = 0.5
"""Seconds in which a client that left is noticed even on a busy machine; 1 ms on a quiet one."""


class Connection:
    """A client's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def ask(self, version: str = "1.1", **fields: Any) -> None:
        body = json.dumps(MIXTURE | fields)
        lines = (
            f"POST {CHAT} HTTP/{version}",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        self.writer.write(("\r\n".join([*lines, "", ""]) + body).encode())

    async def rest(self) -> str:
        return (await self.reader.read()).decode()


async def connect(url: str) -> Connection:
    host, port = url.removeprefix("http://").split(":")
    return Connection(*await asyncio.open_connection(host, int(port)))


@pytest.fixture
async def connection(puppets: Puppets) -> AsyncIterator[Connection]:
    async with listening(create_api(recipe(keepalive_s=60), puppets)) as url:
        connected = await connect(url)
        yield connected
        connected.writer.close()


async def until_left(puppets: Puppets, connection: Connection, phase: str) -> float:
    """Have the client leave in a phase; the seconds until no call works for it."""
    calls = [await puppets.call("one"), await puppets.call("two")]
    if phase != "proposers":
        for call in calls:
            call.say("text")
            call.end()
        calls = [await puppets.call("writer")]
        calls[0].say("some text")
        if phase == "text":
            await connection.reader.readuntil(b"some text")
    left = asyncio.get_running_loop().time()
    connection.writer.close()
    async with asyncio.timeout(FAST_S):
        for call in calls:
            await call.closed.wait()
    return asyncio.get_running_loop().time() - left


@pytest.mark.parametrize("phase", ["proposers", "aggregator", "text"])
async def test_a_client_that_leaves_its_stream_is_noticed_fast(
    puppets: Puppets, connection: Connection, phase: str
) -> None:
    connection.ask(stream=True)
    await until_left(puppets, connection, phase)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("phase", ["proposers", "aggregator"])
async def test_a_client_that_leaves_before_its_answer_is_noticed_fast(
    puppets: Puppets, connection: Connection, phase: str, version: str
) -> None:
    connection.ask(version)
    await until_left(puppets, connection, phase)


async def test_a_client_that_leaves_before_the_first_event_is_noticed_fast(
    puppets: Puppets, connection: Connection
) -> None:
    connection.ask(stream=True, model="one")
    call = await puppets.call("one")
    connection.writer.close()
    async with asyncio.timeout(FAST_S):
        await call.closed.wait()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_client_that_still_reads_gets_its_whole_answer_and_nothing_else(
    puppets: Puppets, connection: Connection, version: str
) -> None:
    connection.ask(version)
    connection.writer.write_eof()
    calls = [await puppets.call("one"), await puppets.call("two")]
    # Not before the server has asked whether the client still reads.
    assert await connection.reader.readexactly(9) == b"HTTP/1.1 "
    for call in calls:
        call.say("text")
        call.end()
    await puppets.answer("writer")
    received = await connection.rest()
    assert received.startswith("200 OK\r\n")
    assert "HTTP/1.1" not in received
    assert "by writer" in received


async def test_a_client_that_still_reads_gets_its_stream(
    puppets: Puppets, connection: Connection
) -> None:
    connection.ask(stream=True)
    calls = [await puppets.call("one"), await puppets.call("two")]
    await connection.reader.readuntil(b"assistant")
    connection.writer.write_eof()
    await connection.reader.readuntil(b": keep-alive")
    for call in calls:
        call.say("text")
        call.end()
    await puppets.answer("writer")
    received = await connection.rest()
    assert "by writer" in received
    assert received.endswith("data: [DONE]\n\n\r\n0\r\n\r\n")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_quick_answer_has_nothing_but_the_answer(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr("serve_app.http.http_protocol.QUICK_S", 60)
    async with listening(create_api(recipe(), scripted)) as url:
        connection = await connect(url)
        connection.ask(stream=stream)
        connection.writer.write_eof()
        received = await connection.rest()
        connection.writer.close()
    assert received.startswith("HTTP/1.1 200")
    assert "keep-alive" not in received


async def test_a_client_that_ends_in_the_middle_of_its_request_gets_nothing(
    connection: Connection,
) -> None:
    connection.writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf")
    connection.writer.write_eof()
    assert "200" not in await connection.rest()


async def test_where_the_system_tells_nothing_a_fin_ends_the_work(
    puppets: Puppets, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.http.http_protocol.CAN_TELL", False)
    connection.ask()
    calls = [await puppets.call("one"), await puppets.call("two")]
    connection.writer.write_eof()
    for call in calls:
        await call.closed.wait()


async def test_behind_the_end_of_a_stream_nothing_is_written() -> None:
    """As when the sign is due in the same step of the event loop in which the answer ends."""

    async def stream(_scope: Scope, _receive: Receive, send: Send) -> None:
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    transport, conn = Mock(asyncio.Transport), h11.Connection(h11.SERVER)
    conn.receive_data(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    scope = asgi_scope(cast("h11.Request", conn.next_event()), transport)
    exchange = Exchange(scope, conn, Flow(transport), lambda: False, lambda: None)
    await exchange.run(stream)
    exchange.write_harmless()
    written = b"".join(call.args[0] for call in transport.write.call_args_list)
    assert written.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert exchange.ended


def test_a_client_that_left_is_noticed_within_50_ms() -> None:
    first_look_s = half_closed.LOOKS_S[0]
    assert QUICK_S + first_look_s < 0.05
