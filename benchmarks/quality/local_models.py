"""A recipe's models run by llama.cpp in this process, without Ray: for measurements of quality."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec
import typer

from actors.engine import NONE, Delta, Message, Share, collect_answer
from actors.engines.llamacpp import LlamaCppEngine
from cluster.cards.card import this_machine
from configs.schema import LlamaCppModel, Recipe, Sampling

PREFILL_TOKENS = 512
"""Prompt tokens per prefill step: nobody waits for tokens here, and picks are nearly all prefill."""


class OneModelAtATime:
    """Lets the calls of one model run side by side, and those of the other models wait meanwhile.

    Two llama.cpp engines that run at once, each with a thread for each core, are many times slower
    than one after the other.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._model: str | None = None
        self._running = 0

    @asynccontextmanager
    async def running(self, model: str) -> AsyncIterator[None]:
        """Wait until no other model runs, and count as running until the block ends."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._model in (None, model))
            self._model = model
            self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if self._running == 0:
                self._model = None
                async with self._changed:
                    self._changed.notify_all()


class LocalModels:
    """`serve_app.mixture.models.Models` over engines of this process, which start at their first call.

    Use it as an async context manager: leaving stops the engines.

    Raises:
        typer.BadParameter: a model of the recipe is not run by llama.cpp.
    """

    def __init__(self, recipe: Recipe) -> None:
        share = Share(threads=this_machine().cores)
        self._engines: dict[str, LlamaCppEngine] = {}
        self._free: dict[str, asyncio.Semaphore] = {}
        for name, model in recipe.models.items():
            if not isinstance(model, LlamaCppModel):
                raise typer.BadParameter(f"model {name!r} is not run by llama.cpp")
            fast = model.model_copy(update={"prefill_tokens": PREFILL_TOKENS})
            self._engines[name] = LlamaCppEngine(name, fast, share)
            self._free[name] = asyncio.Semaphore(model.concurrency)
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._turn = OneModelAtATime()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for name, starting in self._starting.items():
            await asyncio.gather(starting, return_exceptions=True)
            await self._engines[name].stop()

    async def _engine(self, name: str) -> LlamaCppEngine:
        if name not in self._starting:
            self._starting[name] = asyncio.create_task(self._engines[name].start())
        await asyncio.shield(self._starting[name])
        return self._engines[name]

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        engine = await self._engine(model)
        async with self._free[model], self._turn.running(model):
            began = time.perf_counter()
            whole = await collect_answer(engine.stream(messages, sampling, streamed=False))
        return msgspec.structs.replace(whole, engine_s=time.perf_counter() - began)

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        yield await self.complete(model, messages, sampling)

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return len(await (await self._engine(model)).token_ends(messages, template))

    async def token_ends(self, model: str, texts: Collection[str]) -> list[list[int]]:
        engine = await self._engine(model)
        return [await engine.token_ends(text) for text in texts]

    async def is_alive(self, _model: str) -> bool:
        return False
