"""Carries one HTTP request to an ASGI app, and the app's response to the client."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import unquote

import h11
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Scope

from cluster.logs.line import current_request, shortened
from configs.errors import RequestError
from serve_app.error_response import error_events, error_response
from serve_app.http.sse import COMMENT
from serve_app.request_id import HEADER, request_id
from serve_app.safe_traceback import safe_traceback

MOST_AHEAD_BYTES = 65_536
"""Bytes that are read from a client before anybody asks for them."""
REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
STATUS_BEGINS = b"HTTP/1.1 "
"""What each final response of this server begins with, whatever its status."""
CLOSE = (b"connection", b"close")
EVENT_STREAM = b"text/event-stream"

logger = logging.getLogger(__name__)


class Flow:
    """The two directions of a connection, each of which can be held up."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.has_ended = False
        """Whether the client has ended its half of the connection, so that nothing is left to read."""
        self._reads = True
        self._writable = asyncio.Event()
        self._writable.set()

    def pause_reading(self) -> None:
        if self._reads and not self.has_ended:
            self._reads = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reads and not self.has_ended:
            self._reads = True
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    @property
    def is_writable(self) -> bool:
        """Whether the client has taken enough of the bytes that were written."""
        return self._writable.is_set()

    async def until_writable(self) -> None:
        await self._writable.wait()


class Exchange:
    """The ASGI side of one request.

    Args:
        scope: the request, as ASGI describes it.
        conn: what h11 knows of the connection, just after the head of the request.
        flow: the connection.
        closes: whether the connection is to end after this response.
        on_end: called once, when the response is complete.
    """

    def __init__(
        self,
        scope: Scope,
        conn: h11.Connection,
        flow: Flow,
        closes: Callable[[], bool],
        on_end: Callable[[], None],
    ) -> None:
        self.scope = scope
        self.body_ended = False
        """Whether the whole body of the request has come."""
        self.started = False
        """Whether the response has begun."""
        self.ended = False
        """Whether the response is complete."""
        self._conn = conn
        self._flow = flow
        self._closes = closes
        self._on_end = on_end
        self._body = bytearray()
        self._body_was_taken = False
        self._has_left = False
        self._news = asyncio.Event()
        self._head = b""
        """The head of the response until the first part of the body, so that both are one write."""
        self._written_ahead = b""
        """What of the head has been written before the head was known."""
        self._is_event_stream = False

    async def run(self, app: ASGIApp) -> None:
        """Have the app answer. A response that the app leaves incomplete is ended here."""
        current_request.set(request_id(self.scope))
        try:
            await app(self.scope, self.receive, self.send)
        except Exception as error:
            logger.error("%s: %s", shortened(self.scope.get("path", "")), safe_traceback(error))
        finally:
            if not self.ended and not self._has_left:
                self.end(RequestError("internal error; the server's log says more"))

    def feed(self, data: bytes) -> None:
        """Take in a part of the request's body."""
        self._body += data
        if len(self._body) > MOST_AHEAD_BYTES:
            self._flow.pause_reading()
        self._news.set()

    def end_body(self) -> None:
        """Note that the whole body of the request has come."""
        self.body_ended = True
        self._news.set()

    def leave(self) -> None:
        """Note that the client has left. The app learns of it, and nothing is written any more."""
        self._has_left = True
        self._news.set()
        self._flow.resume_writing()

    def end(self, error: RequestError, status: int | None = None) -> None:
        """End the response with an error, whatever the app still does.

        1. A response that has not begun becomes the error.
        2. A stream of events gets the error as its last event.
        3. Any other response is broken off.

        Args:
            status: HTTP status in place of the error's.
        """
        if self.ended or self._has_left:
            return
        if not self.started:  # 1
            self._write_response(error_response(error, request_id(self.scope)), status)
        elif self._is_event_stream:  # 2
            self._write_body(error_events(error, request_id(self.scope)).encode(), more=False)
        else:  # 3
            self.leave()
            self._flow.transport.abort()

    def write_harmless(self) -> None:
        """Write bytes that mean nothing to the client yet: the beginning of a response, or a comment.
        An interim response (100) would mean nothing either, but many clients do not expect one. Behind
        the end of the response nothing is written."""
        if self.ended:
            return
        if not self.started:
            if not self._written_ahead:
                self._written_ahead = STATUS_BEGINS
                self._flow.transport.write(STATUS_BEGINS)
        elif self._is_event_stream:
            self._write_body(COMMENT.encode(), more=True)

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        if self._conn.they_are_waiting_for_100_continue and not self.started:
            self._write_continue()
        while not (self._has_left or self.ended):
            if self._body or (self.body_ended and not self._body_was_taken):
                return self._take_body()
            self._news.clear()
            self._flow.resume_reading()
            await self._news.wait()
        return {"type": "http.disconnect"}

    def _take_body(self) -> Message:
        body = bytes(self._body)
        self._body.clear()
        self._body_was_taken = self.body_ended
        return {"type": "http.request", "body": body, "more_body": not self.body_ended}

    async def send(self, message: Message) -> None:
        """ASGI's `send`. Waits while the client reads too slowly. What is sent after the end of the
        response, or to a client that left, goes nowhere."""
        if not self._flow.is_writable:
            await self._flow.until_writable()
        if self._has_left or self.ended:
            await asyncio.sleep(0)  # or an app that sends without end would hold everybody up
            return
        if message["type"] == "http.response.start":
            self._write_head(message["status"], message.get("headers", ()))
        else:
            self._write_body(message.get("body", b""), more=message.get("more_body", False))

    def _write_continue(self) -> None:
        response = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
        self._flow.transport.write(self._conn.send(response))

    def _write_response(self, response: Response, status: int | None) -> None:
        self._write_head(status or response.status_code, response.raw_headers)
        self._write_body(bytes(response.body), more=False)

    def _write_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        sent = [
            (b"date", _date(int(time.time()))),
            (HEADER, request_id(self.scope).encode()),
            *headers,
        ]
        self._is_event_stream = any(
            name == b"content-type" and value.startswith(EVENT_STREAM) for name, value in sent
        )
        # The rest of a request that is answered early is not read, so no other request can follow.
        if (self._closes() or not self.body_ended) and CLOSE not in sent:
            sent.append(CLOSE)
        head = h11.Response(status_code=status, headers=sent, reason=REASONS.get(status, b""))
        self._head = self._conn.send(head).removeprefix(self._written_ahead)
        self.started = True
        asyncio.get_running_loop().call_soon(self._flush_head)

    def _flush_head(self) -> None:
        if self._head and not self._has_left:
            self._flow.transport.write(self._head)
            self._head = b""

    def _write_body(self, data: bytes, *, more: bool) -> None:
        parts = [self._head]
        self._head = b""
        if data and self.scope["method"] != "HEAD":
            parts.append(self._conn.send(h11.Data(data=data)))
        if not more:
            parts.append(self._conn.send(h11.EndOfMessage()))
        self._flow.transport.write(b"".join(parts))
        if not more:
            self.ended = True
            self._news.set()
            self._on_end()


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    """The Date header for a second since 1970."""
    return formatdate(second, usegmt=True).encode()


def asgi_scope(request: h11.Request, transport: asyncio.Transport) -> Scope:
    """The ASGI scope of a request."""
    target, _, query = request.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode("ascii"),
        "method": request.method.decode("ascii"),
        "scheme": "http",
        "path": unquote(target.decode("ascii")),
        "raw_path": target,
        "query_string": query,
        "root_path": "",
        "headers": list(request.headers),
        "client": _address(transport, "peername"),
        "server": _address(transport, "sockname"),
    }


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int] | None:
    address = transport.get_extra_info(name)
    return (address[0], address[1]) if isinstance(address, tuple) else None
