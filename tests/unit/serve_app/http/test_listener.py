"""The listener itself: its port, and its end."""

import asyncio
import json
import resource
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from starlette.types import ASGIApp

from configs.schema import Limits
from serve_app.http.api import create_api
from serve_app.http.listener import MOST_FILES, CannotListen, Listener
from tests.unit.serve_app.conftest import Puppets, recipe
from tests.unit.serve_app.http.test_half_closed import Connection, connect
from tests.unit.serve_app.http.test_http_protocol import echo
from tests.wire import answers

HOST = "127.0.0.1"
GET = b"GET /asked HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Served:
    """A listener over puppets, with connections to it."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self._opened: list[Connection] = []

    async def connect(self) -> Connection:
        connection = await connect(f"http://{HOST}:{self.listener.port}")
        self._opened.append(connection)
        return connection

    async def close(self) -> None:
        """Close all connections, and wait until they are."""
        for connection in self._opened:
            connection.writer.close()
        for connection in self._opened:
            with suppress(OSError):
                await connection.writer.wait_closed()

    def stop(self, drain_s: float) -> asyncio.Task[None]:
        return asyncio.create_task(self.listener.stop(drain_s))

    async def until_refused(self) -> None:
        """Wait until the port is closed, which is when all open connections know of the end."""
        with suppress(ConnectionRefusedError):
            while True:
                (await self.connect()).writer.close()


@pytest.fixture
async def served(puppets: Puppets) -> AsyncIterator[Served]:
    listener = Listener(create_api(recipe(), puppets), HOST, 0)
    await listener.start()
    served = Served(listener)
    yield served
    await listener.stop(0)
    await served.close()


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=f"cannot listen on {HOST} port {port}: Address already"):
            await Listener(echo, HOST, port).start()


async def test_an_interface_that_is_not_here_is_named() -> None:
    with pytest.raises(CannotListen, match=r"cannot listen on 192\.0\.2\.1 port 8000: Cannot assign"):
        await Listener(echo, "192.0.2.1", 8000).start()


async def test_listeners_of_one_machine_share_a_port() -> None:
    first = Listener(echo, HOST, 0)
    await first.start()
    second = Listener(echo, HOST, first.port)
    await second.start()
    await first.stop(0)
    connection = await connect(f"http://{HOST}:{second.port}")
    connection.writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert (await connection.rest()).endswith("/asked")
    connection.writer.close()
    await second.stop(0)


async def test_a_low_limit_of_open_files_is_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        listener = Listener(echo, HOST, 0)
        await listener.start()
        await listener.stop(0)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == min(MOST_FILES, hard)
        assert hard == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_ipv6_is_listened_on() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    listener = Listener(app, "::1", 0)
    try:
        await listener.start()
    except CannotListen:
        pytest.skip("this machine has no IPv6")
    reader, writer = await asyncio.open_connection("::1", listener.port)
    writer.write(GET)
    assert await reader.readuntil(b"/asked")
    writer.close()
    await listener.stop(0)
    assert scopes[0]["server"] == ("::1", listener.port)
    assert scopes[0]["client"][0] == "::1"


async def test_small_writes_are_not_held_back() -> None:
    """Nagle's algorithm would hold the second of two small writes back for up to 40 ms."""
    delays = []

    def app_of(listener: Listener) -> ASGIApp:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            (connection,) = listener._shared.connections
            sock = connection._transport.get_extra_info("socket")
            delays.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            await echo(scope, receive, send)

        return app

    listener = Listener(echo, HOST, 0)
    listener._shared.app = app_of(listener)
    await listener.start()
    connection = await connect(f"http://{HOST}:{listener.port}")
    connection.writer.write(GET)
    await connection.reader.readuntil(b"/asked")
    connection.writer.close()
    await listener.stop(0)
    assert delays == [1]


async def test_signals_are_left_alone(served: Served) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    async with asyncio.timeout(5):
        connection = await served.connect()
        connection.writer.write(GET)
        await connection.reader.readuntil(b"\r\n\r\n")
        connection.writer.close()
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert handlers[signal.SIGTERM] is signal.SIG_DFL


async def test_answers_in_work_end_in_their_own_time(served: Served, puppets: Puppets) -> None:
    whole, stream, idle = [await served.connect() for _ in range(3)]
    idle.writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await idle.reader.readuntil(b"}")
    whole.ask(model="one")
    stream.ask(model="two", stream=True)
    calls = [await puppets.call("one"), await puppets.call("two")]
    calls[1].say("begun")
    await stream.reader.readuntil(b"begun")
    stopping = served.stop(60)
    assert await idle.rest() == ""
    for call in calls:
        call.say("complete")
    calls[1].end()
    rest = await stream.rest()  # and the end of the connection, while another answer is in work
    assert "complete" in rest
    assert rest.endswith("data: [DONE]\n\n\r\n0\r\n\r\n")
    calls[0].end()
    (answer,) = answers((await whole.rest()).encode())
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert "complete" in answer.body
    for connection in (whole, stream, idle):
        connection.writer.close()
    await stopping


async def test_a_new_request_is_refused_while_others_end(served: Served, puppets: Puppets) -> None:
    busy, slow = [await served.connect() for _ in range(2)]
    busy.ask(model="one")
    call = await puppets.call("one")
    slow.writer.write(GET[:-2])
    stopping = served.stop(60)
    while not served.listener._shared.refuses:  # noqa: ASYNC110  # it has waited for such a request
        await asyncio.sleep(0)
    slow.writer.write(GET[-2:])
    (answer,) = answers((await slow.rest()).encode())
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["connection"] == "close"
    assert json.loads(answer.body)["error"]["code"] == "shutting_down"
    call.say("complete")
    call.end()
    assert "complete" in await busy.rest()
    for connection in (busy, slow):
        connection.writer.close()
    await stopping


async def test_a_pipelined_request_is_refused_as_well(served: Served, puppets: Puppets) -> None:
    connection = await served.connect()
    connection.ask(model="one")
    call = await puppets.call("one")
    connection.ask(model="two")
    stopping = served.stop(60)
    await served.until_refused()
    call.say("complete")
    call.end()
    assert [a.status for a in answers((await connection.rest()).encode())] == [200]
    connection.writer.close()
    await stopping


async def test_at_the_limit_answers_end_with_an_error(served: Served, puppets: Puppets) -> None:
    whole, stream = [await served.connect() for _ in range(2)]
    whole.ask(model="one")
    stream.ask(model="two", stream=True)
    calls = [await puppets.call("one"), await puppets.call("two")]
    calls[1].say("begun")
    await stream.reader.readuntil(b"begun")
    stopping = served.stop(0.01)
    (answer,) = answers((await whole.rest()).encode())
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert json.loads(answer.body)["error"]["code"] == "shutting_down"
    rest = await stream.rest()
    assert '"code": "shutting_down"' in rest
    assert rest.endswith("data: [DONE]\n\n\r\n0\r\n\r\n")
    for connection in (whole, stream):
        connection.writer.close()
    await stopping
    assert all(call.closed.is_set() for call in calls)


async def test_requests_on_connections_that_wait_to_be_accepted_are_answered(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.http.listener.QUEUED_S", 20)
    monkeypatch.setattr("serve_app.http.http_protocol.LINGER_S", 0.1)  # they are read after the stop
    waiting = []
    for _ in range(20):  # all in one step of the loop, which has no time to accept
        sock = socket.create_connection((HOST, served.listener.port))
        sock.sendall(GET)
        waiting.append(sock)
    await served.listener.stop(5)
    for sock in waiting:
        with sock:
            received = sock.recv(65_536)
        assert received.startswith(b"HTTP/1.1 404")  # the app's answer, and no refusal


async def test_a_request_on_its_way_is_answered(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.http.listener.QUEUED_S", 20)
    connection = await served.connect()
    stopping = served.stop(60)
    await served.until_refused()
    connection.writer.write(GET)
    (answer,) = answers((await connection.rest()).encode())
    assert (answer.status, answer.headers["connection"]) == (404, "close")  # by the app
    connection.writer.close()
    await stopping


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serve_app.http.listener.FLUSH_S", 0.05)

    async def endless(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})

    listener = Listener(endless, HOST, 0)
    await listener.start()
    with socket.create_connection((HOST, listener.port)) as reader:
        reader.sendall(GET)
        while all(connection._flow.is_writable for connection in listener._shared.connections):  # noqa: ASYNC110  # until the server is held up
            await asyncio.sleep(0)
        await listener.stop(0)
    assert not listener._shared.connections
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stop_without_connections_is_immediate(served: Served) -> None:
    began = asyncio.get_running_loop().time()
    await served.listener.stop(60)
    assert asyncio.get_running_loop().time() - began < 5
    with pytest.raises(ConnectionRefusedError):
        await served.connect()


def test_the_limit_of_the_end_is_a_setting() -> None:
    assert Limits().drain_s == 30
