"""One engine in one process: its calls wait for their turn, are counted, and their deltas merged.

A bare class; `serve_app/app.py` makes it a Ray Serve deployment.
"""

import logging
import math
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from actors import engines
from actors.coalesce import coalesce
from actors.engine import Delta, Engine, Message, Share, Sleeper, whole_of
from actors.keeper.registration import Assignment
from actors.keeper.replica_turns import TurnClient
from cluster.residency.policy import State
from configs.errors import EngineUnavailable, Overloaded
from configs.schema import Model, Sampling

# A delta over a Ray handle costs milliseconds of two processes, whatever is in it: merged as long as
# nobody would see it, and longer the more streams there are.
MERGE_S = 0.02
WHOLE_MERGE_S = 1.0  # of an answer that nobody reads before it is whole
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

    queue: calls that may wait for it; seat: None for an engine that computes on no card; actor: what
    the keeper watches, this process's actor handle.
    """

    def __init__(
        self, name: str, model: Model, queue: int, seat: Assignment | None = None, actor: Any = None
    ) -> None:
        self._name = name
        self._engine = engines.create(name, model, seat.share if seat else Share())
        self._turns = TurnClient(
            seat.member if seat else name,
            _Steps(self._engine),
            seat.keeper if seat else None,
            concurrency=model.concurrency,
            patience_s=seat.patience_s if seat else math.inf,
            replica=actor,
            who=seat.claimant_id if seat else None,
        )
        self._model = model
        self._seat = seat
        self._queue = queue
        self._counts = dict.fromkeys(ReplicaStats.__slots__, 0)

    async def start(self) -> None:
        """Start the engine, when the keeper of its card says so.

        Raises:
            EngineUnavailable: it cannot start.
        """
        began = time.perf_counter()
        self._turns.start()
        await self._turns.started()
        logger.info("model %s is up after %.1f s", self._name, time.perf_counter() - began)

    async def complete(
        self, messages: Sequence[Message], sampling: Sampling, patience_s: float | None = None
    ) -> Delta:
        """The engine's answer in one piece; waits, and raises, as `stream` does.

        patience_s: how long it waits before it ends another model's turn, in place of the recipe's;
        infinity for a batch, which would rather have few swaps.
        """
        return await whole_of(self._queued(messages, sampling, patience_s))

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        """The engine's answer; waits for the model's turn, and for room among `concurrency` others.

        live: somebody reads it as it grows; otherwise it comes in pieces of about a second.

        Raises:
            Overloaded: `queue` others wait already.
        """
        merge_s = MERGE_S if streamed else WHOLE_MERGE_S
        interval_s = max(merge_s, (self._turns.in_flight + 1) / DELTAS_PER_S)
        async with aclosing(coalesce(self._queued(messages, sampling), interval_s)) as deltas:
            async for delta in deltas:
                yield delta

    async def _queued(
        self, messages: Sequence[Message], sampling: Sampling, patience_s: float | None = None
    ) -> AsyncGenerator[Delta]:
        if not self._turns.has_room and self._turns.waiting >= self._queue:
            waiting = self._turns.waiting
            message = f"model {self._name!r} is busy and {waiting} calls wait for it already"
            raise Overloaded(message, model=self._name)
        async with self._turns.turn(patience_s), aclosing(self._counted(messages, sampling)) as deltas:
            async for delta in deltas:
                yield delta

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
        except Exception as error:
            outcome = "failed"
            if isinstance(error, EngineUnavailable):
                await self.check_health()
            raise
        finally:
            counts["in_flight"] -= 1
            counts[outcome] += 1

    async def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of a conversation as the model will see it, template included."""
        return len(await self._token_ends(messages))

    async def token_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text, where its tokens end, in characters."""
        return [await self._token_ends(text) for text in texts]

    async def _token_ends(self, prompt: str | Sequence[Message]) -> list[int]:
        try:
            return await self._engine.token_ends(prompt)
        except EngineUnavailable:
            if self._turns.state is State.RESIDENT:
                raise
        async with self._turns.turn():  # some engines' tokenizers sleep with them
            return await self._engine.token_ends(prompt)

    async def settings(self) -> tuple[Model, int]:
        """The model as its recipe has it, and how many calls may wait for it."""
        return self._model, self._queue

    async def stats(self) -> ReplicaStats:
        """What it has done and what is in flight."""
        return ReplicaStats(**self._counts | {"waiting": self._turns.waiting})

    async def check_health(self) -> None:
        """For Ray Serve: raises when the engine is gone and only a new replica can bring it back."""
        if self._turns.state is not State.RESIDENT:
            return  # the keeper makes it start, sleep or wake
        try:
            await self._engine.check_health()
        except EngineUnavailable:
            if self._seat is None:
                raise
            self._turns.engine_failed()  # the keeper has it made anew, when the card is free

    async def stop(self) -> None:
        """Stop the engine."""
        await self._turns.stop()
        await self._engine.stop()


class _Steps:
    """What the keeper may have done to an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def start(self) -> None:
        await self._engine.start()

    async def sleep(self) -> None:
        if isinstance(self._engine, Sleeper):
            await self._engine.sleep()

    async def wake(self) -> None:
        if isinstance(self._engine, Sleeper):
            await self._engine.wake()

    async def restart(self) -> None:
        """An engine that failed is stopped; the keeper then has it started."""
        await self._engine.stop()
