"""A cheap client of an OpenAI-shaped API: it notes what arrives when, and reads it later.

A client that shares the machine with what it measures must take little CPU. A connection asks one
request after the other and keeps the bytes with the moments of their arrival; `read` makes answers of
them when nothing is measured any more. All times are of the monotonic clock.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Exchange:
    """A request and what came back, unread."""

    began: float
    arrived: list[tuple[float, bytes]] = field(default_factory=list)
    ended: float = 0.0
    broken: bool = False
    """Whether the connection was lost before the answer was whole."""


@dataclass(slots=True)
class Reply:
    """An answer that was read."""

    status: int
    words: list[tuple[float, str]] = field(default_factory=list)
    """Each piece of text with the moment at which it was there."""
    usage: dict[str, Any] = field(default_factory=dict)
    moa: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    """Why the answer is not whole."""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(piece for _, piece in self.words)


class Connection(asyncio.Protocol):
    """A connection to one server, on which one request is asked at a time."""

    def __init__(self, url: str) -> None:
        self._netloc = urlsplit(url).netloc
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._tail = b""

    async def open(self) -> None:
        """Connect, unless it is connected."""
        if self._transport is None or self._transport.is_closing():
            host, _, port = self._netloc.partition(":")
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_connection(lambda: self, host, int(port))

    async def ask(self, body: dict[str, Any]) -> Exchange:
        """Ask, and return when the answer is whole or the connection is lost."""
        exchange, whole = await self.begin(body)
        await whole
        return exchange

    async def begin(self, body: dict[str, Any]) -> tuple[Exchange, "asyncio.Future[None]"]:
        """Ask; the future is done when the answer is whole or the connection is lost."""
        await self.open()
        assert self._transport is not None
        payload = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        self._whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head, self._to_come = b"", -1
        self._exchange = Exchange(time.monotonic())
        self._transport.write(head.encode() + payload)
        return self._exchange, self._whole

    def leave(self) -> float:
        """Close the socket now; returns the moment."""
        assert self._transport is not None
        left = time.monotonic()
        self._transport.abort()
        return left

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        exchange.arrived.append((time.monotonic(), data))
        if self._to_come < 0:
            data = self._read_head(data)
        if self._to_come < 0:
            return
        if self._chunked:
            self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
            is_whole = self._tail == LAST_CHUNK
        else:
            self._to_come -= len(data)
            is_whole = self._to_come <= 0
        if is_whole:
            self._end(exchange)

    def _read_head(self, data: bytes) -> bytes:
        """What of the data belongs to the body. Sets how the body ends, once the head is there."""
        self._head += data
        head, found, body = self._head.partition(b"\r\n\r\n")
        if found:
            headers = _headers(head)
            self._chunked = headers.get("transfer-encoding") == "chunked"
            self._to_come = int(headers.get("content-length", 0))
            self._tail = b"\r\n"
        return body

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # asyncio's
        self._transport = None
        if self._exchange is not None:
            self._exchange.broken = True
            self._end(self._exchange)

    def _end(self, exchange: Exchange) -> None:
        exchange.ended = time.monotonic()
        self._exchange = None
        if not self._whole.done():
            self._whole.set_result(None)

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.close()


def read(exchange: Exchange) -> Reply:
    """What an exchange says."""
    head, _, first = b"".join(data for _, data in exchange.arrived).partition(b"\r\n\r\n")
    if not head:
        return Reply(0, problem="no answer")
    headers, reply = _headers(head), Reply(int(head.split(b" ", 2)[1]))
    if exchange.broken:
        reply.problem = "the connection was lost"
    if reply.status != 200:
        reply.problem = first.decode(errors="replace")
    elif headers.get("transfer-encoding") == "chunked":
        for at, line in _lines(exchange, len(head) + 4):
            if line.startswith(b"data: {"):
                _take(reply, at, json.loads(line[6:]))
    else:
        _take(reply, exchange.ended, json.loads(first))
    return reply


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.decode().partition(":") for line in head.split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip().lower() for name, _, value in lines}


def _lines(exchange: Exchange, skipped: int) -> Iterator[tuple[float, bytes]]:
    """The lines of a chunked body, each with the moment at which all of it was there."""
    wire = line = b""
    for at, data in exchange.arrived:
        wire += data[skipped:]
        skipped = max(0, skipped - len(data))
        payload, wire = dechunked(wire)
        *whole, line = (line + payload).split(b"\n")
        yield from ((at, each) for each in whole)


def dechunked(wire: bytes) -> tuple[bytes, bytes]:
    """The payload of the whole HTTP chunks at the beginning, and the bytes after them."""
    found, begin = [], 0
    while (end := wire.find(b"\r\n", begin)) >= 0:
        size = int(wire[begin:end].partition(b";")[0], 16)
        if len(wire) < end + size + 4:
            break
        found.append(wire[end + 2 : end + 2 + size])
        begin = end + size + 4
    return b"".join(found), wire[begin:]


def _take(reply: Reply, at: float, chunk: dict[str, Any]) -> None:
    reply.usage = chunk.get("usage") or reply.usage
    reply.moa = chunk.get("moa") or reply.moa
    if "error" in chunk:
        reply.problem = str(chunk["error"].get("message", chunk["error"]))
    for choice in chunk.get("choices", ()):
        if text := (choice.get("delta") or choice.get("message") or {}).get("content"):
            reply.words.append((at, text))
