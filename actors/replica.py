"""One engine in one process. Calls wait for their turn, are counted, and their deltas are merged.

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
from actors.engine import Delta, Engine, Message, Share, Sleeper, collect_answer
from actors.keeper.registration import Assignment
from actors.keeper.replica_turns import TurnClient
from cluster.residency.state import State
from configs.errors import EngineUnavailable, Overloaded
from configs.schema import Model, Sampling

MERGE_S = 0.02
"""Least seconds between two deltas of an answer that its client reads as it grows. A delta over a Ray
handle costs two processes milliseconds whatever is in it, so deltas are merged as far as no reader
notices."""
WHOLE_MERGE_S = 1.0
"""The same for an answer that its client reads only when it is complete."""
DELTAS_PER_S = 400
"""Most deltas per second of one replica: with more answers in flight, each has longer intervals."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """Calls of one replica: `in_flight` and `waiting` at this moment, the others since its start."""

    in_flight: int
    """Calls that the engine works on; a cancelled call counts until the engine has let go of it."""
    waiting: int
    """Calls in the queue."""
    started: int
    finished: int
    failed: int
    cancelled: int
    completion_tokens: int
    """Tokens that the engine wrote in calls that it finished."""


class Replica:
    """Holds the engine of one model and takes its calls.

    Args:
        name: of the model.
        queue: most calls that may wait for the engine.
        assignment: the replica's share of a card; None for an engine that computes on no card.
        actor: the handle of this process's actor, which the keeper of the card watches.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        queue: int,
        assignment: Assignment | None = None,
        actor: Any = None,
    ) -> None:
        self._name = name
        self._engine = engines.create(name, model, assignment.share if assignment else Share())
        self._turns = TurnClient(
            assignment.member if assignment else name,
            _Steps(self._engine),
            assignment.keeper if assignment else None,
            concurrency=model.concurrency,
            patience_s=assignment.patience_s if assignment else math.inf,
            replica=actor,
            claimant_id=assignment.claimant_id if assignment else None,
        )
        self._model = model
        self._assignment = assignment
        self._queue = queue
        self._counts = {
            "in_flight": 0,
            "started": 0,
            "finished": 0,
            "failed": 0,
            "cancelled": 0,
            "completion_tokens": 0,
        }

    async def start(self) -> None:
        """Start the engine as soon as the keeper of its card allows it.

        Raises:
            EngineUnavailable: the engine cannot start.
        """
        began = time.perf_counter()
        self._turns.start()
        await self._turns.wait_until_up()
        logger.info("model %s is up after %.1f s", self._name, time.perf_counter() - began)

    async def complete(
        self, messages: Sequence[Message], sampling: Sampling, patience_s: float | None = None
    ) -> Delta:
        """The engine's answer in one piece. It waits, and raises, as `stream` does.

        Args:
            patience_s: seconds that the call waits before it ends another model's turn; None for the
                recipe's. A batch gives infinity, since few swaps matter more to it than a short wait.
        """
        return await collect_answer(self._answer_in_turn(messages, sampling, patience_s))

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        """The engine's answer. The call waits for the model's turn, and until fewer than `concurrency`
        calls are in flight.

        Args:
            streamed: whether the client reads the answer as it grows. If not, the answer comes in few
                pieces, about one per second.

        Raises:
            Overloaded: `queue` other calls wait already.
        """
        merge_s = MERGE_S if streamed else WHOLE_MERGE_S
        interval_s = max(merge_s, (self._turns.in_flight + 1) / DELTAS_PER_S)
        async with aclosing(coalesce(self._answer_in_turn(messages, sampling), interval_s)) as deltas:
            async for delta in deltas:
                yield delta

    async def _answer_in_turn(
        self, messages: Sequence[Message], sampling: Sampling, patience_s: float | None = None
    ) -> AsyncGenerator[Delta]:
        if not self._turns.has_room and self._turns.waiting >= self._queue:
            waiting = self._turns.waiting
            message = f"model {self._name!r} is busy and {waiting} calls wait for it already"
            raise Overloaded(message, model=self._name)
        async with self._turns.turn(patience_s), aclosing(self._answer(messages, sampling)) as deltas:
            async for delta in deltas:
                yield delta

    async def _answer(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Delta]:
        """The engine's deltas, counted, and the last one, which has the engine's seconds."""
        counts = self._counts
        outcome = "cancelled"
        began = time.perf_counter()
        counts["started"] += 1
        counts["in_flight"] += 1
        try:
            async with aclosing(self._engine.stream(messages, sampling)) as deltas:
                async for delta in deltas:
                    counts["completion_tokens"] += delta.completion_tokens
                    yield delta
            yield Delta(engine_s=time.perf_counter() - began, last=True)
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
        """Tokens of a conversation in the model's chat template."""
        return len(await self._token_ends(messages))

    async def token_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text, the positions in characters where its tokens end."""
        return [await self._token_ends(text) for text in texts]

    async def _token_ends(self, prompt: str | Sequence[Message]) -> list[int]:
        try:
            return await self._engine.token_ends(prompt)
        except EngineUnavailable:
            if self._turns.state is State.RESIDENT:
                raise
        async with self._turns.turn():  # the tokenizer of some engines sleeps with them
            return await self._engine.token_ends(prompt)

    async def settings(self) -> tuple[Model, int]:
        """The model's settings as its recipe has them, and how many calls may wait in the queue."""
        return self._model, self._queue

    async def stats(self) -> ReplicaStats:
        """The replica's counts at this moment."""
        return ReplicaStats(waiting=self._turns.waiting, **self._counts)

    async def check_health(self) -> None:
        """Ray Serve calls this at intervals; an error makes Serve replace the replica.

        Raises:
            EngineUnavailable: the engine is gone and only a new replica can bring it back.
        """
        if self._turns.state is not State.RESIDENT:
            return  # the keeper has the engine started, put to sleep or woken
        try:
            await self._engine.check_health()
        except EngineUnavailable:
            if self._assignment is None:
                raise
            self._turns.mark_engine_failed()  # the keeper restarts the engine when the card is free

    async def stop(self) -> None:
        """Stop the engine."""
        await self._turns.stop()
        await self._engine.stop()


class _Steps:
    """The steps that a keeper may order: they start, put to sleep, wake and restart the engine."""

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
        """Stop an engine that failed; the keeper then orders its start."""
        await self._engine.stop()
