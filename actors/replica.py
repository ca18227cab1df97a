"""One engine in one process: queues its calls, counts what is in flight, merges its deltas.

A bare class; `serve_app/app.py` makes it a Ray Serve deployment.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from actors import engines
from actors.coalesce import coalesce
from actors.engine import Delta, Message, whole_of
from actors.errors import Overloaded
from configs.schema import Model, Sampling

# A delta over a Ray handle costs milliseconds of two processes, whatever is in it: merged as long as
# nobody would see it, and longer the more streams there are.
MERGE_S = 0.02
DELTAS_PER_S = 400

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """Counts since the start, and now. in_flight: calls that the engine works on at this moment;
    a cancelled call counts until the engine has really let go of it."""

    in_flight: int
    waiting: int
    started: int
    finished: int
    failed: int
    cancelled: int
    completion_tokens: int


class Replica:
    """Holds the engine of model `name`.

    threads: CPU threads that it may use; queue: calls that may wait for it.
    """

    def __init__(self, name: str, model: Model, threads: int, queue: int) -> None:
        self._name = name
        self._engine = engines.create(name, model, threads)
        self._free = asyncio.Semaphore(model.concurrency)
        self._queue = queue
        self._counts = dict.fromkeys(ReplicaStats.__slots__, 0)

    async def start(self) -> None:
        """Start the engine."""
        began = time.perf_counter()
        await self._engine.start()
        logger.info("model %s is up after %.1f s", self._name, time.perf_counter() - began)

    async def complete(self, messages: Sequence[Message], sampling: Sampling) -> Delta:
        """The engine's answer in one piece; waits, and raises, as `stream` does."""
        return await whole_of(self._queued(messages, sampling))

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Delta]:
        """The engine's answer; waits while `concurrency` others are in flight.

        Raises:
            Overloaded: `queue` others wait already.
        """
        interval_s = max(MERGE_S, (self._counts["in_flight"] + 1) / DELTAS_PER_S)
        async with aclosing(coalesce(self._queued(messages, sampling), interval_s)) as deltas:
            async for delta in deltas:
                yield delta

    async def _queued(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Delta]:
        if self._free.locked() and self._counts["waiting"] >= self._queue:
            waiting = self._counts["waiting"]
            message = f"model {self._name!r} is busy and {waiting} calls wait for it already"
            raise Overloaded(message, model=self._name)
        self._counts["waiting"] += 1
        try:
            await self._free.acquire()
        finally:
            self._counts["waiting"] -= 1
        try:
            async with aclosing(self._counted(messages, sampling)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self._free.release()

    async def _counted(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Delta]:
        counts, outcome, began = self._counts, "cancelled", time.perf_counter()
        counts["started"] += 1
        counts["in_flight"] += 1
        try:
            async with aclosing(self._engine.stream(messages, sampling)) as deltas:
                async for delta in deltas:
                    counts["completion_tokens"] += delta.completion_tokens
                    yield delta
            yield Delta(engine_s=time.perf_counter() - began)
            outcome = "finished"
        except Exception:
            outcome = "failed"
            raise
        finally:
            counts["in_flight"] -= 1
            counts[outcome] += 1

    async def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of a conversation as the model will see it, template included."""
        return len(await self._engine.token_ends(messages))

    async def token_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text, where its tokens end, in characters."""
        return [await self._engine.token_ends(text) for text in texts]

    async def stats(self) -> ReplicaStats:
        """What it has done and what is in flight."""
        return ReplicaStats(**self._counts)

    async def check_health(self) -> None:
        """For Ray Serve: raises when the engine is gone, and then the replica is replaced."""
        await self._engine.check()

    async def stop(self) -> None:
        """Stop the engine."""
        await self._engine.stop()
