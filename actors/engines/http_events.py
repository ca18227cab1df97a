"""Reads the events of a streamed HTTP response: each as it comes, or several at a time.

aiohttp's own limit of silence (`sock_read`) starts a timer for every packet. `Silence` looks at the
count of bytes a few times per limit instead.
"""

import asyncio
from contextlib import suppress

import aiohttp

from actors.engine import PIECE_S
from actors.engines.sse import BYTE_ORDER_MARK, EventStream, JsonLines

MOST_PAGE_BYTES = 64 << 10
"""Most bytes that are kept of a page or an error that came in place of an answer."""
LINGER_S = 1.0
"""Longest wait, in seconds, for the end of the HTTP response after the end of the answer."""
LOOKS = 8
"""How often per limit `Silence` looks. A silence ends the response after 1 to 1 + 1/LOOKS limits."""


class Silence:
    """Ends a response whose server is silent for too long, while somebody waits for its bytes.

    Args:
        response: the response, of which the headers have come.
        limit_s: longest silence, in seconds.
    """

    def __init__(self, response: aiohttp.ClientResponse, limit_s: float) -> None:
        self._content = response.content
        self._interval_s = limit_s / LOOKS
        self._silent_looks = 0
        self._bytes = 0
        self.is_awaited = False
        """Whether somebody waits for bytes. Without that, aiohttp may have paused the server."""
        if response.connection is not None and response.connection.protocol is not None:
            response.connection.protocol.read_timeout = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._interval_s, self._look)

    def _look(self) -> None:
        came = self._content.total_bytes
        is_silent = self.is_awaited and came == self._bytes
        self._silent_looks = self._silent_looks + 1 if is_silent else 0
        self._bytes = came
        if self._silent_looks < LOOKS:
            self._timer = self._loop.call_later(self._interval_s, self._look)
        else:
            self._content.set_exception(TimeoutError())

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()


class EventReader:
    """Reads one response. Use it as a context manager.

    Args:
        response: the response, of which the headers have come.
        streamed: whether each event is returned as soon as it has come. If not, only the first is, and
            then all that came within PIECE_S, or up to the end. So nothing wakes for most events.
        silence_s: longest silence of the server, in seconds.
    """

    def __init__(self, response: aiohttp.ClientResponse, *, streamed: bool, silence_s: float) -> None:
        self._content = response.content
        self._streamed = streamed
        self._stream: EventStream | JsonLines | None = None
        """None until the first byte shows which of the two the server sends."""
        self.page = bytearray()
        """The beginning of the response, as long as no event has come."""
        self._has_begun = False
        self._has_ended = False
        self._silence = Silence(response, silence_s)

    def __enter__(self) -> "EventReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._silence.stop()

    async def read(self) -> list[bytes]:
        """The data of the next events; none at the end of the response.

        The JSON of a server that does not stream counts as one event, or as one for each line. A
        response that is neither events nor JSON has no events.

        Raises:
            TimeoutError: the server was silent for too long.
            EventTooLong: an event is too long to be held.
            aiohttp.ClientError, RuntimeError: the connection broke.
        """
        while not self._has_ended:
            received = await self._receive()
            if received:
                stream = self._stream or self._chosen_stream(received)
                events = list(stream.feed(received))
            else:
                events = list(self._stream.end()) if self._stream else []
                self._has_ended = True
            if events:
                self._has_begun = True
                self.page.clear()
                return events
            if not self._has_begun:
                self.page += received[: MOST_PAGE_BYTES - len(self.page)]
        return []

    def _chosen_stream(self, received: bytes) -> EventStream | JsonLines:
        start = received.removeprefix(BYTE_ORDER_MARK).lstrip()
        stream = JsonLines() if start[:1] in (b"{", b"[") else EventStream()
        if start:
            self._stream = stream
        return stream

    async def _receive(self) -> bytes:
        """What has come; nothing at the end."""
        self._silence.is_awaited = True
        if self._has_begun and not self._streamed:
            with suppress(TimeoutError):
                async with asyncio.timeout(PIECE_S):
                    await self._content.wait_eof()
        received = await self._content.readany()
        self._silence.is_awaited = False
        return received

    async def linger(self) -> None:
        """Wait for the end of the response: only then can its connection serve another call."""
        if not self._content.is_eof():
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self._content.readany()
