"""What an HTTP connection needs beside its answer: a body within a limit, signs of life while the
answer is silent, and an end to all work once the client is gone. Knows nothing of chat or mixtures."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from actors.errors import TooLarge

T = TypeVar("T")


async def read_body(http: Request, most_bytes: int) -> bytes:
    """The request's body.

    Raises:
        TooLarge: as soon as it is; the rest is not read.
        ClientDisconnect: the client left before its end.
    """
    body = bytearray()
    async for part in http.stream():
        body += part
        if len(body) > most_bytes:
            raise TooLarge(f"the body is larger than {most_bytes} bytes (limits.max_body_bytes)")
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


async def paced(events: AsyncGenerator[T], interval_s: float) -> AsyncGenerator[T | None]:
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
    comes; Starlette would leave a broken stream's to the garbage collector."""

    def __init__(self, chunks: AsyncGenerator[str]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(chunks, media_type="text/event-stream", headers=headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        async with aclosing(self._chunks):
            with suppress(ClientDisconnect):
                await while_connected(receive, self.stream_response(send))
