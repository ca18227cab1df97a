"""One call of llama.cpp's server: it runs in a thread, and its chunks cross to the event loop."""

import asyncio
import json
import math
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

from actors.engine import PIECE_S


class NativeFailure(Exception):
    """The native library raised an error during a call. `stream` raises an EngineError in its place."""


class NativeCall:
    """One streamed call of the native server. It runs in a thread; the event loop gets its chunks.

    Args:
        handle: The method of `xllamacpp.Server` that answers the request.
        request: The request as JSON.
        stopping: An event that is set when the whole engine stops. The call then ends at its next
            chunk.
        streamed: Whether each chunk crosses to the event loop as soon as it is there. If not, the
            chunks of about PIECE_S cross together, and so do the last ones at the end.
    """

    def __init__(
        self,
        handle: Callable[[str, Callable[[Any], bool]], object],
        request: str,
        stopping: threading.Event,
        streamed: bool = True,
    ) -> None:
        self._handle = handle
        self._request = request
        self._stopping = stopping
        self._cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[list[dict[str, Any]] | None] = asyncio.Queue()
        self._interval_s = 0 if streamed else PIECE_S
        self._held: list[dict[str, Any]] = []
        self._crossed_at = -math.inf
        self._has_text = False

    async def run(self, pool: ThreadPoolExecutor) -> AsyncGenerator[list[dict[str, Any]]]:
        """Run the call in a thread of `pool` and yield its chunks as they cross.

        Closing this generator returns only when the native call has ended.

        Raises:
            NativeFailure: the native library raised an error.
        """
        native = pool.submit(self._call)
        work = asyncio.wrap_future(native)
        work.add_done_callback(lambda _: self._chunks.put_nowait(None))
        try:
            while (chunks := await self._chunks.get()) is not None:
                yield chunks
            # The work is cancelled if the engine stopped before a thread was free.
            if not work.cancelled() and (error := work.exception()) is not None:
                raise NativeFailure(str(error)) from error
        finally:
            self._cancelled.set()
            if not native.cancel():
                await _wait_until_done(work)

    def _call(self) -> None:
        try:
            self._handle(self._request, self._on_chunk)
        finally:
            if self._held:
                self._cross()

    def _on_chunk(self, chunk: Any) -> bool:
        if self._cancelled.is_set() or self._stopping.is_set():
            return True
        parsed = json.loads(chunk) if isinstance(chunk, str | bytes) else chunk
        self._held.append(parsed)
        if not self._has_text or monotonic() - self._crossed_at >= self._interval_s:
            self._has_text = self._has_text or _has_text(parsed)
            self._cross()
        return False

    def _cross(self) -> None:
        """Hand the held chunks to the event loop. To wake it costs more than to parse a chunk."""
        self._crossed_at = monotonic()
        self._loop.call_soon_threadsafe(self._chunks.put_nowait, self._held)
        self._held = []


def _has_text(chunk: dict[str, Any]) -> bool:
    choice = (chunk.get("choices") or [{}])[0]
    part = choice.get("delta") or {}
    return bool(choice.get("text") or part.get("content") or part.get("reasoning_content"))


async def _wait_until_done(work: asyncio.Future[None]) -> None:
    """Wait until the native call has ended, even if we are cancelled: its slot is free only then."""
    cancellation = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation
