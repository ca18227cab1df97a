"""The last stage: an aggregator writes the answer, or the next one, or a reference stands in."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from actors.engine import Delta, Message
from actors.errors import DeadlineExceeded, EngineError, SlimMoAError
from configs.schema import Recipe, Sampling
from serve_app.budget import Fitted, Models, fit
from serve_app.events import AnswerDelta, Answered, Event, Missing, ProposalDone, Trimmed
from serve_app.layer import call_of


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What is asked of the aggregators.

    models: in the order in which they are tried; best: the proposal that stands in for them, if any;
    deadline: on the event loop's clock.
    """

    messages: Sequence[Message]
    models: Sequence[str]
    references: Sequence[str]
    best: ProposalDone | None
    sampling: Sampling
    deadline: float
    first_token_timeout_s: float | None


async def aggregate(task: Aggregation, recipe: Recipe, models: Models) -> AsyncGenerator[Event]:
    """Stream the answer.

    1. A model that fails, is late or says nothing before its first token: `Missing`, and the next.
    2. The deadline passes after its first token: the answer ends there, with `cut`.
    3. No model is left: the best reference as it stands; without one, the last model's error.

    Raises:
        SlimMoAError: of a model that fails after its first token, or of the last one.
    """
    failure: SlimMoAError | None = None
    for n, model in enumerate(task.models):
        attempt = _Attempt(task, recipe, models, model, fallback=n > 0)
        try:
            async with aclosing(attempt.events()) as events:
                async for event in events:
                    yield event
            return
        except SlimMoAError as error:
            if attempt.started:
                raise
            failure = error
        yield Missing(0, model, failure.code, failure.message)
    if task.best is None:
        assert failure is not None
        raise failure
    yield AnswerDelta(Delta(text=task.best.text))
    yield Answered(task.best.model, "stop", fallback="reference")


class _Attempt:
    """One model's try at the answer. started: it has written something."""

    def __init__(
        self, task: Aggregation, recipe: Recipe, models: Models, model: str, *, fallback: bool
    ) -> None:
        self._task = task
        self._recipe = recipe
        self._models = models
        self._model = model
        self._fallback = fallback
        self.started = False

    async def events(self) -> AsyncGenerator[Event]:
        loop, task = asyncio.get_running_loop(), self._task
        began, first_by = loop.time(), task.deadline
        if task.first_token_timeout_s is not None:
            first_by = min(first_by, began + task.first_token_timeout_s)
        whole, first_s, cut = Delta(), None, False
        try:
            async with asyncio.timeout_at(first_by):
                fitted = await self._fitted()
            if fitted.tokens_removed:
                yield Trimmed(0, self._model, fitted.tokens_removed)
            stream = self._models.stream(self._model, fitted.messages, task.sampling)
            async with aclosing(cast("AsyncGenerator[Delta]", stream)) as deltas:
                while (delta := await self._next(deltas, first_by)) is not None:
                    whole = whole.plus(delta)
                    if not self.started and not (whole.text or whole.reasoning):
                        continue
                    if not self.started:
                        self.started, first_s = True, loop.time() - began
                        delta = whole
                    yield AnswerDelta(delta)
        except TimeoutError:
            if not self.started:
                message = f"model {self._model!r} wrote nothing in time"
                raise DeadlineExceeded(message, model=self._model) from None
            cut = True
        if not self.started and task.best is not None:
            raise EngineError(f"model {self._model!r} wrote nothing", model=self._model)
        yield Answered(
            model=self._model,
            finish_reason="length" if cut else whole.finish_reason or "stop",
            fallback="aggregator" if self._fallback else None,
            cut=cut,
            first_s=first_s,
            call=None if cut else call_of(self._model, "aggregator", whole),
        )

    async def _fitted(self) -> Fitted:
        task, reserve = self._task, self._task.sampling.max_tokens
        return await fit(
            self._models, self._recipe, self._model, task.messages, task.references, reserve
        )

    async def _next(self, deltas: AsyncIterator[Delta], first_by: float) -> Delta | None:
        try:
            async with asyncio.timeout_at(self._task.deadline if self.started else first_by):
                return await anext(deltas)
        except StopAsyncIteration:
            return None
