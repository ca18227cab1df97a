"""One model writes the answer: its prompt, its attempts on several replicas, what counts as text."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import cast

from actors.engine import Delta, merge
from actors.text.tool_reader import with_calls
from actors.text.visible import is_blank
from configs.errors import (
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    EmptyAnswer,
    EngineUnavailable,
    OnlyReasoning,
)
from configs.extra_parameters import tools_in_text
from serve_app.mixture.aggregation_task import AggregationTask
from serve_app.mixture.answer_form import may_leave_out, not_held, of_fallback, without_tools
from serve_app.mixture.context_budget import FittedPrompt, PromptTask, fit
from serve_app.mixture.events import (
    FILTERED,
    AnswerDelta,
    Answered,
    Call,
    Event,
    Retried,
    Spent,
    Trimmed,
)
from serve_app.mixture.models import Models
from serve_app.mixture.only_reasoning import only_reasoning
from serve_app.mixture.retry import Retries
from serve_app.mixture.time_limit import TimeLimit, until


class Writer:
    """One model's attempts at the answer.

    Args:
        task: what the last stage is to do.
        models: the models of the recipe.
        model: the model that writes.
        stage_began: when the stage began, on the event loop's clock.
        is_fallback: whether another model has failed before.
    """

    def __init__(
        self,
        task: AggregationTask,
        models: Models,
        model: str,
        stage_began: float,
        *,
        is_fallback: bool,
    ) -> None:
        self._task = task
        self._models = models
        self._model = model
        self._is_fallback = is_fallback
        self._sampling = of_fallback(task.sampling) if is_fallback else task.sampling
        self._engine = task.recipe.settings(model).engine
        self._tools = tools_in_text(self._sampling.extra, self._engine)
        self._is_untold = False
        """Whether the prompt leaves out the request's tools, because they do not fit."""
        self._retries = Retries(models, model)
        self._began = asyncio.get_running_loop().time()
        self._at_s = self._began - stage_began
        self._first_s: float | None = None
        self._has_text = False
        self._time = TimeLimit(self._limit)

    @property
    def was_read(self) -> bool:
        """Whether the client has read text of the answer, so that it cannot be taken back."""
        return self._has_text and self._task.streamed

    async def events(self) -> AsyncGenerator[Event]:
        """The answer as it grows, then `Answered`. The numbers are those of
        `aggregate`'s cases (`aggregate.py`)."""
        written: list[Delta] = []
        unsent: list[Delta] = []
        cut = False
        try:
            async with aclosing(self._write()) as writing:
                async for came in writing:
                    if isinstance(came, Delta):
                        written.append(came)
                        unsent.append(came)
                        self._note(came)
                        # Blank text is held back until other text follows. An answer that is not
                        # streamed is held back until its end.
                        if self._task.streamed and (self._has_text or came.reasoning):
                            yield AnswerDelta(merge(unsent))
                            unsent = []
                    else:
                        if isinstance(came, Retried):  # 3: the answer starts anew
                            written, unsent = [], []
                        yield came
        except TimeoutError:
            if not self._has_text:  # 4
                message = f"model {self._model!r} wrote nothing in time"
                raise DeadlineExceeded(message, model=self._model) from None
            cut = True  # 2
        finally:
            self._time.close()
        for event in self._end(merge(written or [Delta()]), merge(unsent or [Delta()]), cut=cut):
            yield event

    def _end(self, whole: Delta, unsent: Delta, *, cut: bool) -> Iterator[Event]:
        task, call = self._task, None
        if not cut:
            call = Call.from_delta(self._model, task.role, whole, self._sampling.seed)
            if not self._has_text and task.best is not None:  # 4
                yield Spent(call)
                if whole.finish_reason == "content_filter":
                    raise ContentFiltered(f"model {self._model!r} {FILTERED}", model=self._model)
                if whole.reasoning:
                    raise OnlyReasoning(only_reasoning(whole, self._sampling), model=self._model)
                raise EmptyAnswer(f"model {self._model!r} wrote nothing", model=self._model)
        if unsent.text or unsent.reasoning or unsent.tool_calls:
            yield AnswerDelta(unsent)
        yield Answered(
            model=self._model,
            finish_reason="length" if cut else whole.finish_reason or "stop",
            fallback="aggregator" if self._is_fallback else None,
            cut=cut,
            first_s=self._first_s,
            call=call,
            at_s=self._at_s,
            tokens=0 if call is None else call.completion_tokens,
            unheld=self._unheld(whole.text),
            method="direct" if task.role == "direct" else "merge",
            why=task.why,
        )

    def _unheld(self, text: str) -> tuple[str, ...]:
        if self._is_fallback:
            return not_held(self._task.sampling, text, self._engine, has_tools=not self._is_untold)
        return ("tool_use",) if self._is_untold else ()

    def _note(self, came: Delta) -> None:
        if self._has_text:
            return
        if self._first_s is None and (came.text or came.reasoning or came.tool_calls):
            self._first_s = asyncio.get_running_loop().time() - self._began
            self._time.when = self._limit
        if self._task.best is None:
            self._has_text = bool(came.text or came.reasoning or came.tool_calls)
        else:
            self._has_text = bool(came.tool_calls) or not is_blank(came.text)

    async def _write(self) -> AsyncGenerator[Delta | Trimmed | Retried]:
        """The model's deltas. All deltas before a `Retried` are void."""
        prompt: FittedPrompt | None = None
        while True:
            try:
                if prompt is None:
                    prompt = await self._fit()
                    if prompt.tokens_removed:
                        yield Trimmed(0, self._model, prompt.tokens_removed)
                stream = self._models.stream(
                    self._model, prompt.messages, self._sampling, self._task.streamed
                )
                if self._tools is not None:
                    is_free = "structure" not in self._sampling.extra
                    stream = with_calls(stream, self._tools, may_be_bare=is_free)
                async with aclosing(cast("AsyncGenerator[Delta]", stream)) as deltas:
                    while (delta := await self._next(deltas)) is not None:
                        yield delta
                return
            except EngineUnavailable as error:
                if self.was_read or not await self._may_retry(error):
                    raise
                lost = error
            self._has_text = False
            yield Retried(0, self._model, lost.message)

    async def _may_retry(self, error: EngineUnavailable) -> bool:
        try:
            async with until(self._limit):
                return await self._retries.may_retry(error)
        except TimeoutError:
            return False

    async def _fit(self) -> FittedPrompt:
        try:
            return await self._fitted()
        except ContextTooLong:
            if not may_leave_out(self._tools):
                raise
        self._sampling = without_tools(self._sampling)
        self._tools, self._is_untold = None, True
        return await self._fitted()

    async def _fitted(self) -> FittedPrompt:
        task = self._task
        prompt = PromptTask(
            recipe=task.recipe,
            model=self._model,
            messages=task.in_calls if self._tools and task.in_calls else task.messages,
            references=task.references,
            reserve_tokens=self._sampling.most_tokens,
            template=self._sampling.template_arguments,
            note=task.note,
            tools=self._tools,
        )
        async with until(self._limit):
            return await fit(prompt, self._models)

    async def _next(self, deltas: AsyncIterator[Delta]) -> Delta | None:
        try:
            with self._time:
                return await anext(deltas)
        except StopAsyncIteration:
            return None

    @property
    def _limit(self) -> float:
        """When the model's time is up, on the event loop's clock."""
        deadline, first_s = self._task.deadline, self._task.first_token_timeout_s
        if self._first_s is not None or first_s is None:
            return deadline
        return min(deadline, self._began + first_s)
