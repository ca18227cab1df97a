"""One connection of an HTTP/1.x client: its requests become exchanges, one after the other.

h11 knows the grammar of HTTP. This file decides how long a connection may take and when it ends:

1. The head of a request has to come within `head_timeout_s`, from the connection's start or from the
   first byte of the head.
2. A connection that is idle after a response is closed after IDLE_S.
3. A connection that ends after a response is closed for writing first. The client then has LINGER_S to
   read what was written. If the connection were closed at once, bytes of the client that are still on
   their way would make its system throw the response away.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import h11
from starlette.types import ASGIApp, Scope

from configs.errors import BadRequest, RequestError, ShuttingDown, SlowBody
from serve_app.error_response import error_response
from serve_app.http.exchange import MOST_AHEAD_BYTES, Exchange, Flow, asgi_scope
from serve_app.http.half_closed import CAN_TELL, QUICK_S, HalfClosed

MOST_HEAD_BYTES = 32_768
"""Most bytes of a request's head, which is its first line and its headers. nginx takes as many."""
IDLE_S = 120.0
"""Seconds that a connection stays open without a request. A client must not be the later one to give an
idle connection up, or its next request meets a closed connection. httpx, and OpenAI's client with it,
gives a connection up after 5 s, Node's undici after 4, aiohttp after 15, the JDK after 30, nginx and
AWS's load balancers after 60, Go after 90."""
LINGER_S = 2.0
"""Seconds in which a client has to read the end of its last response, once all of it was sent."""
STALLED_S = 60.0
"""Seconds after which a client that takes none of the last response's bytes is given up."""
SPOKEN = (b"1.0", b"1.1")
"""The versions of HTTP that are served."""
SHUTTING_DOWN = "this server is about to stop; send the request again"


@dataclass(slots=True)
class Shared:
    """What all connections of a listener have in common."""

    app: ASGIApp
    head_timeout_s: float
    """Longest time that the head of a request may take to arrive, in seconds."""
    is_draining: bool = False
    """Whether the listener is about to stop: a connection ends after its next response."""
    refuses: bool = False
    """Whether new requests are refused, because the listener stops."""
    connections: "set[HttpProtocol]" = field(default_factory=set)
    has_no_connection: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after the loss of the last connection."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """The app's work on the requests of all connections."""


class HttpProtocol(asyncio.Protocol):
    """Serves one connection."""

    _transport: asyncio.Transport
    _flow: Flow

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._conn = h11.Connection(h11.SERVER, MOST_HEAD_BYTES)
        self._exchange: Exchange | None = None
        self._ahead = 0
        """Bytes that came after the request in work."""
        self.awaits_head = False
        """Whether the head of a request is due: since the connection began, or since its first byte."""
        self._is_closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._half_closed: HalfClosed | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._flow = Flow(self._transport)
        self._shared.connections.add(self)
        self._shared.has_no_connection.clear()
        self._await_head()

    def connection_lost(self, _error: Exception | None) -> None:
        self._shared.connections.discard(self)
        if not self._shared.connections:
            self._shared.has_no_connection.set()
        self._is_closing = True
        self._disarm()
        if self._half_closed is not None:
            self._half_closed.cancel()
        if self._exchange is not None:
            self._exchange.leave()

    def pause_writing(self) -> None:
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        self._flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._is_closing:
            return
        if self._exchange is None and not self.awaits_head:
            self._await_head()
        self._ahead += len(data)
        self._conn.receive_data(data)
        self._read_events()

    def eof_received(self) -> bool:
        """The client sends no more. If a response is due, the client may still read it."""
        exchange = self._exchange
        self._flow.has_ended = True
        if self._is_closing or exchange is None or not exchange.body_ended or not CAN_TELL:
            return False
        sock = self._transport.get_extra_info("socket")
        self._half_closed = HalfClosed(sock, exchange.write_harmless, self._transport.abort)
        self._half_closed.start(0 if exchange.started else QUICK_S)
        return True

    def drain(self) -> None:
        """Close the connection if it is idle. Otherwise it ends after its next response."""
        if not (self._exchange or self.awaits_head):
            self._close_idle()

    def end(self, error: RequestError) -> None:
        """End the response in work with an error, and then the connection."""
        if self._exchange is not None:
            self._exchange.end(error)
        self._close()

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    def _read_events(self) -> None:
        while not self._is_closing:
            try:
                event = self._conn.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error)
                return
            if event is h11.NEED_DATA:
                return
            if event is h11.PAUSED:
                if self._ahead > MOST_AHEAD_BYTES:
                    self._flow.pause_reading()
                return
            self._take(event)

    def _take(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            self._begin(event)
            return
        assert self._exchange is not None
        if isinstance(event, h11.Data):
            self._exchange.feed(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._ahead = len(self._conn.trailing_data[0])
            self._exchange.end_body()

    def _begin(self, request: h11.Request) -> None:
        self._disarm()
        self.awaits_head = False
        exchange = self._exchange = self._new_exchange(asgi_scope(request, self._transport))
        if sum(len(name) + len(value) for name, value in request.headers) > MOST_HEAD_BYTES:
            self._end_unread(_too_large(), 431)
            return
        if request.http_version not in SPOKEN:
            self._end_unread(BadRequest("this server speaks HTTP/1.1"), 505)
            return
        app = self._shared.app
        if self._shared.refuses:
            app = error_response(ShuttingDown(SHUTTING_DOWN))
        task = asyncio.get_running_loop().create_task(exchange.run(app))
        self._shared.tasks.add(task)
        task.add_done_callback(self._shared.tasks.discard)

    def _new_exchange(self, scope: Scope) -> Exchange:
        return Exchange(scope, self._conn, self._flow, self._closes_after_response, self._on_end)

    def _closes_after_response(self) -> bool:
        return self._shared.is_draining

    def _on_end(self) -> None:
        """Go on to the next request, or end the connection."""
        # In a step of its own: the app that sent the end of this response has no part in what follows.
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._half_closed is not None:
            self._half_closed.cancel()
        self._exchange = None
        if self._is_closing:
            return
        if self._shared.is_draining or self._conn.our_state is not h11.DONE:
            self._close()
            return
        self._conn.start_next_cycle()
        self._flow.resume_reading()
        self._read_events()
        if self._exchange is not None:
            return
        if self._flow.has_ended:
            self._close()
        elif self._conn.trailing_data[0]:
            self._await_head()
        else:
            self._arm(IDLE_S, self._close_idle)

    def _await_head(self) -> None:
        self.awaits_head = True
        self._arm(self._shared.head_timeout_s, self._give_head_up)

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer what is no HTTP request, or none that this server reads."""
        status = error.error_status_hint
        refused = _too_large() if status == 431 else BadRequest("this is not a valid HTTP/1.1 request")
        self._end_unread(refused, status)

    def _give_head_up(self) -> None:
        if not self._conn.trailing_data[0]:
            self._close()
            return
        limit_s = self._shared.head_timeout_s
        message = f"the headers did not come within {limit_s:g} s (limits.read_timeout_s)"
        self._end_unread(SlowBody(message))

    def _end_unread(self, error: RequestError, status: int | None = None) -> None:
        """Answer a request that is not read to its end, and end the connection."""
        exchange = self._exchange
        if exchange is None:
            exchange = self._exchange = self._new_exchange(
                {"type": "http", "method": "GET", "http_version": "1.1"}
            )
        exchange.end(error, status)
        exchange.leave()
        self._close()

    def _close(self) -> None:
        """End the connection once the client has read what was written (3)."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._transport.is_closing():
            return
        self._flow.resume_reading()
        if self._flow.has_ended or not self._transport.can_write_eof():
            self._transport.close()
        else:
            try:
                self._transport.write_eof()
            except OSError:  # the client has left
                self._transport.abort()
                return
        self._linger(self._transport.get_write_buffer_size())

    def _close_idle(self) -> None:
        """End a connection that has no request. Its client may not look at it for long, so the client
        is waited for only while there are bytes to send."""
        if self._transport.get_write_buffer_size():
            self._close()
        else:
            self._transport.close()

    def _linger(self, unsent: int) -> None:
        self._arm(STALLED_S if unsent else LINGER_S, self._look_after_linger, unsent)

    def _look_after_linger(self, before: int) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent < before:
            self._linger(unsent)
        else:
            self._transport.abort()

    def _arm(self, delay_s: float, callback: Callable[..., None], *args: object) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_later(delay_s, callback, *args)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _too_large() -> BadRequest:
    return BadRequest(f"the headers are larger than {MOST_HEAD_BYTES} bytes")
