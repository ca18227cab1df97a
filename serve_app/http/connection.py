"""What an HTTP connection needs beside its answer: a body within a limit, signs of life while the
answer is silent, and an end to all work once the client is gone. Knows nothing of chat or mixtures."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from configs.errors import SlowBody, TooLarge

T = TypeVar("T")


async def read_body(http: Request, most_bytes: int, timeout_s: float) -> bytes:
    """The request's body. timeout_s: for all of it, so that one byte now and then gains nothing.

    Raises:
        TooLarge: as soon as it is; the rest is not read.
        SlowBody: it did not end in time.
        ClientDisconnect: the client left before its end.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for part in http.stream():
                body += part
                if len(body) > most_bytes:
                    what = f"the body is larger than {most_bytes} bytes (limits.max_body_bytes)"
                    raise TooLarge(what)
    except TimeoutError:
        what = f"the body did not come within {timeout_s:g} s (limits.read_timeout_s)"
        raise SlowBody(what) from None
    return bytes(body)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled once the client is gone, and waited for.

    ASGI servers only tell of a client that left. Starlette acts on it just while it streams, and by
    a cancel scope that interrupts every `await` of the clean-up too; here it is cancelled once.

    Raises:
        ClientDisconnect: the client left before the work was done.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_departure(receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait([working, leaving])


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def with_keepalives(events: AsyncGenerator[T], interval_s: float) -> AsyncGenerator[T | None]:
    """The events, and None whenever none has come for the interval. Closing it closes them."""
    following: asyncio.Future[T] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(events))
            while not (await asyncio.wait([following], timeout=interval_s))[0]:
                yield None
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            yield event
    finally:
        if following is not None:
            following.cancel()
            await asyncio.wait([following])
        await events.aclose()


class EventStream(StreamingResponse):
    """Server-sent events. The chunks' generator is closed before the response is over, however that
    comes; Starlette would leave a broken stream's to the garbage collector.

    write_timeout_s: a client that takes nothing for so long is gone. Ray Serve's proxy takes all by
    itself, as fast as it comes: there no call waits for a client.
    """

    def __init__(self, chunks: AsyncGenerator[str], write_timeout_s: float) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(chunks, media_type="text/event-stream", headers=headers)
        self._chunks = chunks
        self._write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        async def timed(message: Message) -> None:
            try:
                async with asyncio.timeout(self._write_timeout_s):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None

        async with aclosing(self._chunks):
            with suppress(ClientDisconnect):
                await while_connected(receive, self.stream_response(timed))
