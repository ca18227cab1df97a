"""A replica: the process that holds the engine of one model and answers the model's calls.

A call waits for the replica's turn. The replica counts its calls. `Replica` is a plain class;
`serve_app/app.py` makes a Ray Serve deployment of it, and `calls/server.py` takes its calls.
"""

import logging
import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from actors import engines
from actors.engine import (
    NONE,
    Delta,
    Engine,
    HasAdapters,
    Message,
    Share,
    Sleeper,
    Warmer,
    Writer,
    collect_answer,
)
from actors.keeper.registration import Assignment
from actors.keeper.replica_turns import TurnClient
from actors.model_sampling import SamplingOfModel
from actors.warm_up import WarmUps
from cluster.cards.card import GIB
from cluster.cards.memory import CardFull, CardMemory, MemoryMeter, NvmlMeter, wait_for_memory
from cluster.residency.state import State
from cluster.waiting import tell_waiting
from configs.errors import EngineUnavailable, Overloaded, UnknownModel
from configs.schema import Model, Sampling

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """Counts of one replica's calls.

    `in_flight` and `waiting` are the numbers at this moment. The other counts begin at the replica's
    start.
    """

    in_flight: int
    """Calls that the engine works on. A cancelled call counts until the engine has let go of it."""
    waiting: int
    """Calls in the queue."""
    started: int
    """Calls that the engine has begun."""
    finished: int
    """Calls that ended with a complete answer."""
    failed: int
    """Calls that ended with an error."""
    cancelled: int
    """Calls that the caller gave up after the engine had begun them."""
    completion_tokens: int
    """Tokens that the engine wrote, known once a call's answer is complete."""
    oldest_wait_s: float = 0.0
    """Seconds for which the oldest call in the queue has waited; 0 if none waits."""
    warmed_tokens: int = 0
    """Tokens that the engine read in warm-ups. They belong to no call."""
    warming: int = 0
    """Number of warm-ups that run now: 0 or 1."""
    warm_cancelled: int = 0
    """Number of warm-ups that were ended early: by their caller, for a call, or at a turn's end."""


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """The settings with which a replica runs."""

    model: Model
    """The model's settings in the recipe."""
    queue: int
    """Most calls that may wait for the engine."""


class Replica:
    """Holds the engine of one model and answers its calls.

    Args:
        name: the model's name.
        model: the model's settings.
        queue: most calls that may wait for the engine.
        assignment: the replica's share of a card; None for an engine that computes on no card.
        actor: the handle of this process's actor, which the keeper of the card watches.
        meter: reads the free memory of the card's GPUs; NVML by default.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        queue: int,
        assignment: Assignment | None = None,
        actor: Any = None,
        meter: MemoryMeter | None = None,
    ) -> None:
        self._name = name
        self._engine = engines.create(name, model, assignment.share if assignment else Share())
        self._turns = TurnClient(
            assignment.member if assignment else name,
            _Steps(self._engine, name, assignment.memory if assignment else None, meter or NvmlMeter()),
            assignment.keeper if assignment else None,
            concurrency=model.concurrency,
            patience_s=assignment.patience_s if assignment else math.inf,
            replica=actor,
            claimant_id=assignment.claimant_id if assignment else None,
        )
        on_gpu = assignment is not None and assignment.share.on_gpu
        self._warm_ups = WarmUps(self._turns, alone=not on_gpu)
        self._model = model
        self._sampling = SamplingOfModel(name, model)
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

        The keeper tries a start that fails again, and has an engine that shares its slot leave the card
        once, before this returns.

        Raises:
            EngineUnavailable: the engine cannot start.
        """
        began = time.perf_counter()
        self._turns.start()
        await self._turns.wait_until_up()
        logger.info("model %s is up after %.1f s", self._name, time.perf_counter() - began)

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        patience_s: float | None = None,
        adapter: str | None = None,
    ) -> Delta:
        """Return the engine's whole answer as one delta. The call waits and raises as in `stream`.

        Args:
            patience_s: seconds that the call waits before the keeper ends another model's turn for it;
                None for the recipe's value. A batch gives infinity, to save swaps.
            adapter: see `stream`.
        """
        return await collect_answer(self._answer(messages, sampling, False, patience_s, adapter))

    def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        streamed: bool = True,
        patience_s: float | None = None,
        adapter: str | None = None,
    ) -> AsyncGenerator[Delta]:
        """Yield the engine's answer in deltas, as they come.

        The call waits for the replica's turn, and until fewer than `concurrency` calls are in flight.

        Args:
            streamed: whether the client reads the answer while the answer grows. If not, the answer
                may come in few deltas.
            patience_s: see `complete`.
            adapter: the adapter over the model that answers; None for the model itself.

        Raises:
            UnknownModel: the engine has no such adapter.
            Overloaded: `queue` other calls wait already.
            EngineUnavailable: the engine fails while the call waits, or cannot work.
        """
        return self._answer(messages, sampling, streamed, patience_s, adapter)

    async def _answer(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        streamed: bool,
        patience_s: float | None = None,
        adapter: str | None = None,
    ) -> AsyncGenerator[Delta]:
        """Wait for the turn, then yield the engine's deltas, and one more with its seconds."""
        if not self._turns.has_room and self._turns.waiting >= self._queue:
            waiting = self._turns.waiting
            message = f"model {self._name!r} is busy and {waiting} calls wait for it already"
            raise Overloaded(message, model=self._name)
        writer = self._writer(adapter)
        arrived = time.perf_counter()
        async with self._turns.turn(patience_s):
            outcome = "cancelled"
            began = time.perf_counter()
            first_s = 0.0
            self._counts["started"] += 1
            self._counts["in_flight"] += 1
            try:
                await self._warm_ups.make_way()
                asked = await self._sampling.complete(sampling)
                async with aclosing(writer.stream(messages, asked, streamed)) as deltas:
                    async for delta in deltas:
                        if not first_s and (delta.text or delta.reasoning or delta.tool_calls):
                            first_s = time.perf_counter() - began
                        if delta.completion_tokens:
                            self._counts["completion_tokens"] += delta.completion_tokens
                        yield delta
                yield Delta(
                    engine_s=time.perf_counter() - began,
                    last=True,
                    queue_s=began - arrived,
                    first_s=first_s,
                )
                outcome = "finished"
            except Exception as error:
                outcome = "failed"
                if isinstance(error, EngineUnavailable):
                    await self.check_health()
                raise
            finally:
                self._counts["in_flight"] -= 1
                self._counts[outcome] += 1

    async def warm(
        self,
        messages: Sequence[Message],
        template: Mapping[str, Any] = NONE,
        adapter: str | None = None,
    ) -> int | None:
        """Have the engine read a conversation before the call for it comes (a warm-up).

        A warm-up runs only if the engine is awake in its turn, no call waits, and room for a call is
        left; on a CPU, only if no call runs either. The warm-up does not wait until this is so. It
        ends early as soon as a call has no room (on a CPU, as soon as a call comes), at the end of the
        turn, and if this coroutine is cancelled.

        Args:
            template: arguments of the chat template, as in `count_tokens`.
            adapter: the adapter that will answer; None for the model itself.

        Returns:
            How many tokens the engine has read; None if no warm-up ran or it ended early.

        Raises:
            RequestError: the engine cannot read the conversation.
        """
        writer = self._writer(adapter)
        if not isinstance(writer, Warmer):
            return None
        return await self._warm_ups.run(writer, messages, template)

    async def count_tokens(
        self,
        messages: Sequence[Message],
        template: Mapping[str, Any] = NONE,
        adapter: str | None = None,
    ) -> int:
        """The number of tokens of a conversation in the model's chat template.

        Args:
            template: arguments of the chat template for this conversation, as a call's sampling gives
                them (`Sampling.template_arguments`).
            adapter: the adapter in whose chat template they are counted; None for the model itself.
        """
        return len(await self._token_ends(messages, template, adapter))

    async def token_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text, the position in characters at which each of its tokens ends."""
        return [await self._token_ends(text) for text in texts]

    async def _token_ends(
        self,
        prompt: str | Sequence[Message],
        template: Mapping[str, Any] = NONE,
        adapter: str | None = None,
    ) -> list[int]:
        writer = self._writer(adapter)
        try:
            return await writer.token_ends(prompt, template)
        except EngineUnavailable:
            if self._turns.state is State.RESIDENT:
                raise
        async with self._turns.turn():  # the tokenizer of some engines sleeps with them
            return await writer.token_ends(prompt, template)

    def _writer(self, adapter: str | None) -> Writer:
        """What answers: the engine itself, or one of its adapters."""
        if adapter is None:
            return self._engine
        if isinstance(self._engine, HasAdapters):
            return self._engine.with_adapter(adapter)
        raise UnknownModel(f"model {self._name!r} has no adapter {adapter!r}", model=self._name)

    async def settings(self) -> ReplicaSettings:
        """The settings with which the replica runs."""
        return ReplicaSettings(self._model, self._queue)

    async def stats(self) -> ReplicaStats:
        """The replica's counts at this moment."""
        oldest_wait_s = self._turns.oldest_wait_s
        return ReplicaStats(
            waiting=self._turns.waiting,
            oldest_wait_s=oldest_wait_s,
            warmed_tokens=self._warm_ups.tokens,
            warming=int(self._warm_ups.is_running),
            warm_cancelled=self._warm_ups.cancelled,
            **self._counts,
        )

    async def about(self, what: str) -> dict[str, Any]:
        """What the replica says of itself, as plain data.

        Args:
            what: `stats` or `settings`.
        """
        if what == "stats":
            return asdict(await self.stats())
        return {"model": self._model.model_dump(mode="json"), "queue": self._queue}

    async def check_health(self) -> None:
        """Check the engine. Ray Serve calls this at intervals and replaces the replica after an error.

        An engine that sleeps is checked too: its death is noticed now, not when its next turn comes.

        Raises:
            EngineUnavailable: the engine is gone, and only a new replica can have an engine again.
        """
        try:
            if self._turns.state is State.RESIDENT:
                await self._engine.check_health()
            elif self._turns.state is State.ASLEEP and isinstance(self._engine, Sleeper):
                await self._engine.check_asleep()
        except EngineUnavailable:
            if self._assignment is None:
                raise
            self._turns.mark_engine_failed()  # the keeper restarts the engine when the card is free

    async def stop(self) -> None:
        """Stop the engine."""
        await self._turns.stop()
        await self._engine.stop()


class _Steps:
    """The engine's steps that a keeper may order. An engine that cannot sleep skips SLEEP and WAKE.

    A start and a wake wait until the card has the memory that they take.
    """

    def __init__(
        self, engine: Engine, model: str, memory: CardMemory | None, meter: MemoryMeter
    ) -> None:
        self._engine = engine
        self._model = model
        self._memory = memory
        self._meter = meter

    async def start(self) -> None:
        if self._memory is not None:
            await self._wait_for_memory(self._memory.gpus, self._memory.start_bytes)
        with tell_waiting(
            f"the engine of model {self._model!r}, which reads its weights,", logger.warning
        ):
            await self._engine.start()

    async def stop(self) -> None:
        await self._engine.stop()

    async def sleep(self) -> None:
        if isinstance(self._engine, Sleeper):
            await self._engine.sleep()

    async def wake(self) -> None:
        if isinstance(self._engine, Sleeper):
            if self._memory is not None:
                await self._wait_for_memory(self._memory.gpus, self._memory.wake_bytes)
            await self._engine.wake()

    async def restart(self) -> None:
        """Stop an engine that failed; the keeper then orders its start."""
        await self._engine.stop()

    async def _wait_for_memory(self, gpus: Sequence[int], needed: int) -> None:
        try:
            what = f"{needed / GIB:.2f} GiB of each GPU's memory for model {self._model!r}"
            with tell_waiting(what, logger.warning):
                await wait_for_memory(self._meter, gpus, needed)
        except CardFull as full:
            raise EngineUnavailable(str(full), model=self._model) from full
