"""The grammar of connections, packet by packet: the transport is the test's, so that each packet is one
call. And the limits of time of a connection."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, cast

import pytest
from starlette.types import Message, Receive, Scope, Send

from serve_app.http.exchange import MOST_AHEAD_BYTES
from serve_app.http.http_protocol import (
    IDLE_S,
    LINGER_S,
    MOST_HEAD_BYTES,
    STALLED_S,
    HttpProtocol,
    Shared,
)
from tests.wire import CLOSE, Answer, answers, head

pytestmark = pytest.mark.virtual_time

TIMEOUT_S = 30.0
BODY = json.dumps({"text": "GET / HTTP/1.1"})
SMUGGLED = head("X: y", path="/smuggled")
CHUNKED = "".join(f"{len(part):x}\r\n{part}\r\n" for part in (BODY[:5], BODY[5:])) + "0\r\n\r\n"
LENGTH = f"Content-Length: {len(BODY)}"
JDK = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk",
)


class Pipe(asyncio.Transport):
    """What a connection wrote, and what became of it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 80)})
        self.writes: list[bytes] = []
        self.unsent = 0
        """Bytes that the client has not taken."""
        self.has_eof = False
        self.is_aborted = False
        self.reads = True

    def write(self, data: Any) -> None:
        assert not self.has_eof
        self.writes.append(data)

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    def write_eof(self) -> None:
        self.has_eof = True

    def can_write_eof(self) -> bool:
        return True

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        self.has_eof = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers with the path and the body of the request."""
    message: Message = {"more_body": True}
    body = b""
    while message["more_body"]:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
    length = (b"content-length", b"%d" % (len(scope["path"]) + len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": scope["path"].encode() + body})


class Client:
    """A connection whose packets the test sends."""

    def __init__(self, app: Any = echo) -> None:
        self.shared = Shared(app, TIMEOUT_S)
        self.pipe = Pipe()
        self.protocol = HttpProtocol(self.shared)
        self.protocol.connection_made(cast("asyncio.BaseTransport", self.pipe))

    async def send(self, *packets: str) -> None:
        """Send packets, and let all that can happen happen."""
        for packet in packets:
            self.protocol.data_received(packet.encode())
            await asyncio.sleep(0.001)

    async def send_head(self, *packets: str) -> None:
        await self.send(*(packet.replace("\n", "\r\n") for packet in packets))

    def answers(self) -> list[Answer]:
        return answers(self.pipe.written)


@pytest.fixture
async def client() -> Client:
    return Client()


def request(*lines: str, body: str, path: str = "/asked") -> str:
    return head(*lines, path=path, method="POST").replace("\n", "\r\n") + body


REQUESTS = {
    "length": request(LENGTH, body=BODY),
    "chunked": request("Transfer-Encoding: chunked", body=CHUNKED),
    "expect": request("Expect: 100-continue", LENGTH, body=BODY),
    "h2c of the JDK": request(*JDK, LENGTH, body=BODY),
    "h2c of the JDK, chunked": request(*JDK, "Transfer-Encoding: chunked", body=CHUNKED),
    "websocket": request("Connection: Upgrade", "Upgrade: websocket", LENGTH, body=BODY),
    "any upgrade": request("Connection: upgrade", "Upgrade: foo/2, bar", LENGTH, body=BODY),
    "upgrade without connection": request("Upgrade: h2c", LENGTH, body=BODY),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_in_any_two_packets_gets_one_answer(name: str) -> None:
    sent = REQUESTS[name]
    for cut in range(len(sent) + 1):
        client = Client()
        await client.send(*filter(None, (sent[:cut], sent[cut:])))
        assert [(a.status, a.body) for a in client.answers()] == [(200, "/asked" + BODY)], cut
        assert not client.pipe.has_eof


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_in_three_packets_gets_one_answer(name: str) -> None:
    sent = REQUESTS[name]
    start = sent.index("\r\n\r\n") + 4
    for cut in range(start - 4, len(sent)):
        client = Client()
        await client.send(sent[: start - 8], sent[start - 8 : cut], sent[cut:])
        assert [(a.status, a.body) for a in client.answers()] == [(200, "/asked" + BODY)], cut


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "foo"])
@pytest.mark.parametrize("packets", [1, 2])
async def test_the_body_after_an_upgrade_is_never_read_as_a_request(
    client: Client, upgrade: str, packets: int
) -> None:
    hidden = SMUGGLED.replace("\n", "\r\n")
    lines = ("Connection: Upgrade", f"Upgrade: {upgrade}", f"Content-Length: {len(hidden)}")
    sent = request(*lines, body=hidden)
    start = len(sent) - len(hidden)
    await client.send(*([sent] if packets == 1 else [sent[:start], sent[start:]]))
    assert [(a.status, a.body) for a in client.answers()] == [(200, "/asked" + hidden)]


async def test_pipelined_requests_are_answered_in_their_order(client: Client) -> None:
    sent = [request(LENGTH, body=BODY, path=f"/{n}") for n in range(20)]
    await client.send("".join(sent))
    assert [a.body for a in client.answers()] == [f"/{n}{BODY}" for n in range(20)]
    await client.send(request(LENGTH, body=BODY, path="/last"))
    assert client.answers()[-1].body == f"/last{BODY}"


async def test_pipelined_bytes_are_not_read_without_limit() -> None:
    client = Client(never)
    await client.send(request(LENGTH, body=BODY), "x" * 70_000)
    assert not client.pipe.reads


async def test_pipelined_bytes_do_not_grow_with_every_answer() -> None:
    asked: asyncio.Queue[None] = asyncio.Queue()

    async def answer_when_asked(scope: Scope, receive: Receive, send: Send) -> None:
        await asked.get()
        await echo(scope, receive, send)

    client = Client(answer_when_asked)
    packet = head(path="/" + "x" * 1000).replace("\n", "\r\n") * 60
    for _ in range(20):
        while client.pipe.reads:
            await client.send(packet)
        asked.put_nowait(None)
        await asyncio.sleep(0.001)
    assert len(client.answers()) == 20
    assert len(client.protocol._conn.trailing_data[0]) <= MOST_AHEAD_BYTES + 2 * len(packet)
    client.protocol.connection_lost(None)
    asked.put_nowait(None)
    await asyncio.sleep(0.001)
    assert not client.shared.tasks


async def test_an_interim_response_comes_when_the_app_reads(client: Client) -> None:
    await client.send_head(head("Expect: 100-continue", LENGTH, method="POST", path="/asked"))
    assert client.pipe.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(BODY)
    assert [a.status for a in client.answers()] == [200]


async def never(_scope: Scope, receive: Receive, _send: Send) -> None:
    """An app that answers nobody."""
    while (await receive())["type"] != "http.disconnect":
        pass


def streaming(content_type: bytes) -> Callable[..., Any]:
    """An app whose response has no length."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", content_type)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in (b"data: one\n\n", b"data: two\n\n"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(1)
        await send({"type": "http.response.body", "body": b""})

    return app


async def test_an_old_client_gets_text_without_the_sizes_of_chunks() -> None:
    client = Client(streaming(b"text/event-stream"))
    await client.send("GET / HTTP/1.0\r\n\r\n")
    await asyncio.sleep(3)
    _, _, text = client.pipe.written.partition(b"\r\n\r\n")
    assert text == b"data: one\n\ndata: two\n\n"
    assert b"chunked" not in client.pipe.written
    assert client.pipe.has_eof


async def test_head_and_first_part_of_a_response_are_one_write() -> None:
    client = Client(streaming(b"text/event-stream"))
    await client.send_head(head())
    (written,) = client.pipe.writes
    assert written.endswith(b"data: one\n\n\r\n")


async def test_a_head_does_not_wait_for_the_body() -> None:
    async def begin(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await never(_scope, receive, send)

    client = Client(begin)
    await client.send_head(head())
    assert client.pipe.written.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_every_response_has_the_id_of_its_request() -> None:
    """OpenAI's clients show it, and people send it to whoever looks into a log."""
    new = re.compile("[0-9a-f]{32}")
    for lines, kept in [
        (["X-Request-Id: req_a-1:2"], "req_a-1:2"),
        ([], None),
        (["X-Request-Id: two words"], None),
        (["X-Request-Id: one", "X-Request-Id: two"], None),
        ([f"X-Request-Id: {'x' * 129}"], None),
        (["No header"], None),
    ]:
        client = Client()
        await client.send_head(head(*lines))
        (answer,) = client.answers()
        said = answer.headers.get_all("x-request-id", [])
        assert len(said) == 1
        assert said[0] == kept if kept else new.fullmatch(said[0])


async def test_head_gets_no_body(client: Client) -> None:
    await client.send_head(head(method="HEAD"), head(CLOSE, path="/after"))
    first, _, rest = client.pipe.written.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200")
    assert rest.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("\x16\x03\x01 hello of TLS\n\n", 400),
        ("no request\n\n", 400),
        ("GET / HTTP/1.1\nX: no host\n\n", 400),
        ("PRI * HTTP/2.0\n\n", 505),
        (head("Transfer-Encoding: gzip"), 501),
        (head("Content-Length: 1", "Content-Length: 2"), 400),
        (head("X: " + "x" * MOST_HEAD_BYTES), 431),
        ("GET / HTTP/1.1\nX: " + "x" * 2 * MOST_HEAD_BYTES, 431),
        (head("Transfer-Encoding: chunked", method="POST") + "no size\n", 400),
    ],
)
async def test_what_is_no_request_is_refused_in_openais_shape(
    client: Client, caplog: pytest.LogCaptureFixture, sent: str, status: int
) -> None:
    await client.send_head(sent)
    (answer,) = client.answers()
    assert answer.status == status
    error = json.loads(answer.body)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")
    assert answer.headers["connection"] == "close"
    assert client.pipe.has_eof
    assert caplog.records == []


async def test_an_early_answer_ends_the_connection_and_reads_little_more() -> None:
    async def refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    client = Client(refuse)
    await client.send_head(head("Content-Length: 1000000", method="POST"))
    assert client.answers()[0].headers["connection"] == "close"
    assert client.pipe.has_eof
    await client.send("x" * 1000, SMUGGLED)
    assert len(client.answers()) == 1
    await asyncio.sleep(LINGER_S + 1)
    assert client.pipe.is_aborted


@pytest.mark.parametrize("dripped", ["", "GET / HTTP/1.1\r\nHost: localhost\r\n"])
async def test_headers_have_to_come_in_time(client: Client, dripped: str) -> None:
    for letter in dripped:
        await client.send(letter)
        await asyncio.sleep(0.5)
    await asyncio.sleep(TIMEOUT_S - 0.5 * len(dripped) - 1)
    assert not client.pipe.has_eof
    await asyncio.sleep(1)
    assert client.pipe.has_eof
    assert [a.status for a in client.answers()] == ([408] if dripped else [])
    if dripped:
        assert "limits.read_timeout_s" in client.answers()[0].body


async def test_the_next_headers_have_to_come_in_time_too(client: Client) -> None:
    await client.send_head(head())
    await asyncio.sleep(IDLE_S - 1)
    await client.send("GET")
    await asyncio.sleep(TIMEOUT_S - 1)
    assert not client.pipe.has_eof
    await asyncio.sleep(2)
    assert [a.status for a in client.answers()] == [200, 408]


async def test_headers_that_begin_behind_a_request_have_to_come_in_time(client: Client) -> None:
    await client.send_head(head() + "GET")
    await asyncio.sleep(TIMEOUT_S + 1)
    assert [a.status for a in client.answers()] == [200, 408]


async def test_a_connection_without_requests_is_closed(client: Client) -> None:
    await client.send_head(head())
    await asyncio.sleep(IDLE_S - 1)
    assert not client.pipe.has_eof
    await asyncio.sleep(2)
    assert client.pipe.has_eof


async def test_a_request_in_work_has_no_such_limit() -> None:
    client = Client(never)
    await client.send_head(head())
    await asyncio.sleep(10 * IDLE_S)
    assert not client.pipe.has_eof


async def test_the_end_of_a_response_waits_for_a_client_that_still_reads(client: Client) -> None:
    client.pipe.unsent = 3
    await client.send_head(head(CLOSE))
    for _ in range(2):
        await asyncio.sleep(STALLED_S - 1)
        client.pipe.unsent -= 1
        await asyncio.sleep(1)
    assert not client.pipe.is_aborted
    await asyncio.sleep(STALLED_S + 1)
    assert client.pipe.is_aborted


async def test_a_defect_of_the_app_is_an_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def defect(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError(" ".join(["words", "of", "a", "user"]))

    client = Client(defect)
    await client.send_head(head())
    (answer,) = client.answers()
    assert answer.status == 500
    assert json.loads(answer.body)["error"]["code"] == "internal_error"
    assert "ValueError" in caplog.text
    assert "words of a user" not in caplog.text


async def test_a_response_that_the_app_leaves_incomplete_is_broken_off() -> None:
    async def half(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    client = Client(half)
    await client.send_head(head())
    assert client.pipe.is_aborted
    assert not client.pipe.written.endswith(b"0\r\n\r\n")
