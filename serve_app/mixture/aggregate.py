"""The last stage: an aggregator writes the answer, or the next one, or a reference stands in."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import cast

from actors.engine import Delta, Message
from configs.errors import DeadlineExceeded, EmptyAnswer, EngineUnavailable, RequestError
from configs.schema import Recipe, Sampling
from serve_app.mixture.context_budget import Fitted, fit
from serve_app.mixture.events import (
    AnswerDelta,
    Answered,
    Event,
    Missing,
    ProposalDone,
    Retried,
    Role,
    Spent,
    Trimmed,
)
from serve_app.mixture.layer import call_of
from serve_app.mixture.retry import Replicated, Retries
from serve_app.safe_traceback import safe_traceback

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What is asked of the aggregators.

    models: in the order in which they are tried; best: the proposal that stands in for them, if any;
    deadline: on the event loop's clock; live: the answer is read as it grows.
    """

    role: Role
    messages: Sequence[Message]
    models: Sequence[str]
    references: Sequence[str]
    best: ProposalDone | None
    sampling: Sampling
    deadline: float
    first_token_timeout_s: float | None
    streamed: bool = True


async def aggregate(task: Aggregation, recipe: Recipe, models: Replicated) -> AsyncGenerator[Event]:
    """Stream the answer.

    1. A model that fails, is late or ends before its first text: `Missing`, and the next. Reasoning
       is streamed, but where somebody can take over it is not an answer. If it was the replica that
       was lost, another one of the same model tries first: `Retried`, within the same limits of time.
    2. The deadline passes after that: the answer ends there, with `cut`.
    3. No model is left: the best reference as it stands; without one, the last model's error.

    Raises:
        RequestError: of a model that fails after its first text was read, or of the last one.
    """
    for n, model in enumerate(task.models):
        writer = _Writer(task, recipe, models, model, fallback=n > 0)
        try:
            async with aclosing(writer.events()) as events:
                async for event in events:
                    yield event
            return
        except Exception as error:
            if writer.shown or (task.best is None and model == task.models[-1]):
                raise
            failure = _ours(error, model)
        yield Missing(0, model, failure.code, failure.message)
    assert task.best is not None
    yield AnswerDelta(Delta(text=task.best.text))
    yield Answered(task.best.model, task.best.call.finish_reason, fallback="reference")


def _ours(error: Exception, model: str) -> RequestError:
    """A defect costs a model its try, not the answer."""
    if isinstance(error, RequestError):
        return error
    logger.error("aggregator %s: %s", model, safe_traceback(error))
    return RequestError(type(error).__name__, model=model)


@asynccontextmanager
async def _until(limit: float) -> AsyncGenerator[None]:
    """TimeoutError at the limit; a limit that has passed lets nothing begin, as asyncio's would."""
    if asyncio.get_running_loop().time() >= limit:
        raise TimeoutError
    async with asyncio.timeout_at(limit):
        yield


class _Writer:
    """One model's tries at the answer. committed: what it wrote is the answer; nobody can take over."""

    def __init__(
        self, task: Aggregation, recipe: Recipe, models: Replicated, model: str, *, fallback: bool
    ) -> None:
        self._task = task
        self._recipe = recipe
        self._models = models
        self._model = model
        self._fallback = fallback
        self._retries = Retries(models, model)
        self._began = asyncio.get_running_loop().time()
        self._first_s: float | None = None
        self.committed = False

    async def events(self) -> AsyncGenerator[Event]:
        task = self._task
        whole, held, cut = Delta(), Delta(), False
        try:
            async with aclosing(self._written()) as written:
                async for came in written:
                    if not isinstance(came, Delta):
                        whole = held = Delta()
                        yield came
                        continue
                    whole, held = whole.plus(came), held.plus(came)
                    self._note(whole)
                    # Blank text waits for what follows it; what nobody reads as it grows, for the end.
                    if task.streamed and (self.committed or held.reasoning):
                        yield AnswerDelta(held)
                        held = Delta()
        except TimeoutError:
            if not self.committed:
                message = f"model {self._model!r} wrote nothing in time"
                raise DeadlineExceeded(message, model=self._model) from None
            cut = True
        call = None if cut else call_of(self._model, task.role, whole, task.sampling.seed)
        if call is not None and not self.committed and task.best is not None:
            yield Spent(call)
            wrote = "only reasoning" if whole.reasoning else "nothing"
            raise EmptyAnswer(f"model {self._model!r} wrote {wrote}", model=self._model)
        if held.text or held.reasoning:
            yield AnswerDelta(held)
        yield Answered(
            model=self._model,
            finish_reason="length" if cut else whole.finish_reason or "stop",
            fallback="aggregator" if self._fallback else None,
            cut=cut,
            first_s=self._first_s,
            call=call,
        )

    @property
    def shown(self) -> bool:
        """Whether somebody has read of the answer: nothing can be taken back then."""
        return self.committed and self._task.streamed

    def _note(self, whole: Delta) -> None:
        if self._first_s is None and (whole.text or whole.reasoning):
            self._first_s = asyncio.get_running_loop().time() - self._began
        self.committed = self.committed or self._is_answer(whole)

    def _is_answer(self, whole: Delta) -> bool:
        if self._task.best is None:
            return bool(whole.text or whole.reasoning)
        return bool(whole.text.strip())

    async def _written(self) -> AsyncGenerator[Delta | Trimmed | Retried]:
        """What the model writes; after anything that is not a Delta, it begins."""
        task, fitted = self._task, None
        while True:
            try:
                if fitted is None:
                    fitted = await self._fitted()
                    if fitted.tokens_removed:
                        yield Trimmed(0, self._model, fitted.tokens_removed)
                stream = self._models.stream(self._model, fitted.messages, task.sampling, task.streamed)
                async with aclosing(cast("AsyncGenerator[Delta]", stream)) as deltas:
                    while (delta := await self._next(deltas)) is not None:
                        yield delta
                return
            except EngineUnavailable as error:
                if self.shown or not await self._allows(error):
                    raise
                lost, self.committed = error, False
            yield Retried(0, self._model, lost.message)

    async def _allows(self, error: EngineUnavailable) -> bool:
        """Whether there is time, and a replica, to try again."""
        try:
            async with _until(self._limit):
                return await self._retries.allow(error)
        except TimeoutError:
            return False

    async def _fitted(self) -> Fitted:
        task, reserve = self._task, self._task.sampling.max_tokens
        async with _until(self._limit):
            return await fit(
                self._models, self._recipe, self._model, task.messages, task.references, reserve
            )

    async def _next(self, deltas: AsyncIterator[Delta]) -> Delta | None:
        try:
            async with _until(self._limit):
                return await anext(deltas)
        except StopAsyncIteration:
            return None

    @property
    def _limit(self) -> float:
        """On the loop's clock; that of the first token counts over all tries."""
        deadline, first_s = self._task.deadline, self._task.first_token_timeout_s
        if self._first_s is not None or first_s is None:
            return deadline
        return min(deadline, self._began + first_s)
