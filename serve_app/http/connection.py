"""What an HTTP connection needs beside an answer. Knows nothing of chat or mixtures.

A body is read within limits of size and time. All work ends once the client is gone.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, closing, suppress
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from configs.errors import SlowBody, TooLarge

T = TypeVar("T")


def require_readable(http: Request) -> None:
    """Refuse a body that is not plain JSON.

    A web page may send some other types to any server, even to a server on the user's machine, without
    asking that server first (CORS preflight). The headers of the refusals name what is read (RFC 9110,
    15.5.16).

    Raises:
        HTTPException: 415, for another content type or a compressed body.
    """
    content_type = http.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        message = f"send content-type application/json, not {content_type!r:.80}"
        raise HTTPException(415, message, {"Accept": "application/json"})
    coding = ", ".join(http.headers.getlist("content-encoding"))
    if coding.strip().lower() not in ("", "identity"):
        message = f"send the body as it is, without content-encoding {coding!r:.80}"
        raise HTTPException(415, message, {"Accept-Encoding": "identity"})


async def read_body(http: Request, max_bytes: int, timeout_s: float) -> bytes:
    """Read the body of a request.

    Args:
        max_bytes: Largest body. The rest of a larger body is not read.
        timeout_s: Longest time for the whole body, in seconds. A client gains nothing by sending a byte
            now and then.

    Raises:
        TooLarge: the body is larger than `max_bytes`.
        SlowBody: the body did not end within `timeout_s`.
        ClientDisconnect: the client left before the end of the body.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for part in http.stream():
                body += part
                if len(body) > max_bytes:
                    message = f"the body is larger than {max_bytes} bytes (limits.max_body_bytes)"
                    raise TooLarge(message)
    except TimeoutError:
        message = f"the body did not come within {timeout_s:g} s (limits.read_timeout_s)"
        raise SlowBody(message) from None
    return bytes(body)


async def while_connected(
    receive: Receive, work: Coroutine[Any, Any, T], given_up: asyncio.Future[None] | None = None
) -> T:
    """Do some work for a client, and return the result of the work.

    If the client leaves first, the work is cancelled, and this function waits until the work has ended.
    An ASGI server only reports that a client left, and cancels nothing. Starlette acts on the report
    only while it streams, and then by a cancel scope, which also interrupts every `await` of the
    clean-up. Here the work is cancelled once, so that its clean-up runs to the end.

    Args:
        given_up: a future that is done once the client counts as gone for another reason.

    Raises:
        ClientDisconnect: the client left before the work was done.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_wait_for_disconnect(receive))
    ends: list[asyncio.Future[Any]] = [working, leaving]
    if given_up is not None:
        ends.append(given_up)
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait([working, leaving])


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStreamResponse(StreamingResponse):
    """A response of server-sent events.

    The generator of the chunks is closed before the response ends, whether the stream is complete or
    broken. Starlette would leave the generator of a broken stream to the garbage collector, and with
    the generator the calls to models that feed it.

    Args:
        chunks: The events as text.
        write_timeout_s: A client that reads nothing for this many seconds counts as gone. Under Ray
            Serve's proxy this never happens, because the proxy takes all chunks as fast as they come.
    """

    def __init__(self, chunks: AsyncGenerator[str], write_timeout_s: float) -> None:
        # No cache may answer with a stored stream, and nginx has to pass each event on at once.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(chunks, media_type="text/event-stream", headers=headers)
        self._chunks = chunks
        self._write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        with closing(SendWatch(send, self._write_timeout_s)) as watch:
            async with aclosing(self._chunks):
                with suppress(ClientDisconnect):
                    await while_connected(receive, self.stream_response(watch.send), watch.given_up)


class SendWatch:
    """Watches for a client that takes nothing of what is sent for too long.

    All sends of a response share one timer, because a timer for each of them would cost more than to
    send. The timer is set anew only after it has run out.
    """

    def __init__(self, send: Send, timeout_s: float) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._began_s: float | None = None
        """When the send that waits began; None if no send waits."""
        self._timer = self._loop.call_later(timeout_s, self._look)
        self.given_up: asyncio.Future[None] = self._loop.create_future()
        """Done once a send has waited for `timeout_s`."""

    async def send(self, message: Message) -> None:
        """ASGI's `send`; its wait counts."""
        self._began_s = self._loop.time()
        await self._send(message)
        self._began_s = None

    def close(self) -> None:
        """Stop watching."""
        self._timer.cancel()
        self.given_up.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        due = (now if self._began_s is None else self._began_s) + self._timeout_s
        if now < due:
            self._timer = self._loop.call_at(due, self._look)
        elif not self.given_up.done():
            self.given_up.set_result(None)
