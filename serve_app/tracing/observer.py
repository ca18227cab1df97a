"""Makes spans of answers: an answer, its stages, and their calls.

    invoke_workflow NAME                the answer of the mixture, from admission to its end
      layer 1                           a stage, from its `StageStarted` to its `StageDone`
        chat MODEL                      a call, from its caller's side: waiting in queues included
        chat MODEL
      aggregator
        chat MODEL

A model that answers alone has no stages: its calls are children of the span `chat MODEL` of the answer.
The conventions have no word for a stage. The span of an answer is of the kind SERVER, because it
answers a request that has come over HTTP; stages are INTERNAL, and calls are CLIENT.

All times of an answer come from one clock that is read at the answer's beginning, so that a change of
the system's clock tears no span apart.
"""

import asyncio
import time
from collections.abc import Callable, Container

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from configs.schema import OpenAIHttpModel, Recipe, Sampling
from serve_app.mixture.events import (
    Answered,
    Event,
    Missing,
    ProposalDropped,
    Retried,
    StageDone,
    StageStarted,
    Trimmed,
)
from serve_app.mixture.models import Models
from serve_app.observe import Asked, Ended, Refused, Watcher
from serve_app.tracing.attributes import (
    CHAT,
    OPERATION,
    PREFIX,
    Attributes,
    of_models,
    of_request,
    of_sampling,
    of_stage,
    of_summary,
    ours,
    shown_model,
)
from serve_app.tracing.calls import CallEnds, CallSpan, TracedModels
from serve_app.tracing.spans import Span, Spans

LATE = "late"
"""The cause of a proposal, or of a rest of an answer, whose time was up."""

_headers = TraceContextTextMapPropagator()


class TraceObserver:
    """Makes the spans of all answers. Refused requests have none: no work was done on them.

    Args:
        recipe: what is served.
        spans: begins spans.
    """

    def __init__(self, recipe: Recipe, spans: Spans) -> None:
        self.recipe = recipe
        self.spans = spans
        self.models = of_models(recipe)
        """Attributes of the calls of each model, by its name."""
        self.carrying = frozenset(
            name for name in recipe.names if isinstance(recipe.settings(name), OpenAIHttpModel)
        )
        """Names of the models whose calls carry the trace to another server."""

    def begin(self, asked: Asked) -> Watcher:
        """See `Observer.begin`."""
        return AnswerSpan(self, asked)

    def refuse(self, refused: Refused) -> None:
        """See `Observer.refuse`."""


class AnswerSpan:
    """The span of one answer, and those below it."""

    def __init__(self, observer: TraceObserver, asked: Asked) -> None:
        self._observer = observer
        self._clock = _clock()
        said = of_request(asked)
        name = f"{said[OPERATION]} {asked.model}"
        root = observer.spans.root(name, _parent(asked), said, self._clock())
        self._is_recording = root.is_recording
        self._answer = _Part(root, self._clock, observer.models)
        self._stage: _Part | None = None

    def watch_calls(self, models: Models) -> Models:
        """See `CallWatcher.watch_calls`."""
        if self._is_recording or self._observer.carrying:
            return TracedModels(models, self)
        return models

    def begin_call(self, model: str, sampling: Sampling, *, streamed: bool) -> CallSpan:
        """See `Calls.begin_call`."""
        observer, part, said = self._observer, self._stage or self._answer, Attributes()
        if self._is_recording:
            settings = observer.recipe.settings(model)
            said = {**observer.models[model], **of_sampling(sampling, settings)}
            said["gen_ai.request.stream"] = streamed
        name = f"{CHAT} {model}"
        span = observer.spans.below(part.span, name, SpanKind.CLIENT, said, self._clock())
        return CallSpan(model, span, self._clock, part.calls, streamed=streamed)

    def carries(self, model: str) -> bool:
        """See `Calls.carries`."""
        return model in self._observer.carrying

    def event(self, event: Event) -> None:
        """See `Watcher.event`."""
        if not self._is_recording:
            return
        match event:
            case StageStarted():
                self._end_stage()
                self._stage = self._begin_stage(event)
            case StageDone():
                self._end_stage()
            case _:
                (self._stage or self._answer).event(event)

    def end(self, ended: Ended) -> None:
        """See `Watcher.end`."""
        if not self._is_recording:
            return
        for part in filter(None, (self._stage, self._answer)):
            if ended.error is not None:
                part.span.fail(ended.error.code)
            if ended.has_left:
                part.span.attributes |= ours({"stopped": True})
        self._end_stage()
        if ended.summary is not None:
            self._answer.span.attributes |= of_summary(ended.summary, self._observer.models)
        self._answer.end()

    def _begin_stage(self, started: StageStarted) -> "_Part":
        observer, above = self._observer, self._answer.span
        said = of_stage(started)
        span = observer.spans.below(above, started.stage, SpanKind.INTERNAL, said, self._clock())
        return _Part(span, self._clock, observer.models)

    def _end_stage(self) -> None:
        if self._stage is not None:
            self._stage.end()
            self._stage = None


class _Part:
    """A stage of an answer, or a whole answer that has no stages.

    Args:
        span: the span, which has begun.
        clock: gives the time in nanoseconds since 1970.
        names: the names of the recipe's models.
    """

    def __init__(self, span: Span, clock: Callable[[], int], names: Container[str]) -> None:
        self.span = span
        self.calls = CallEnds()
        self._clock = clock
        self._names = names

    def event(self, event: Event) -> None:
        """Take note of an event within this part."""
        match event:
            case ProposalDropped():
                self._drop(event.missing, place=event.place)
            case Missing():
                self._drop(event)
            case Retried():
                self._note("retried", model=event.model)
            case Trimmed():
                self._note("trimmed", model=event.model, tokens_removed=event.tokens_removed)
            case Answered():
                if event.cut:
                    self.calls.drop(event.model, LATE)
                    self._note(LATE, model=event.model)
                if event.fallback is not None:
                    self._note("fallback", model=event.model, fallback=event.fallback)

    def end(self) -> None:
        """End the part, and its calls that were stopped."""
        self.calls.close()
        self.span.end(self._clock())

    def _drop(self, missing: Missing, place: int | None = None) -> None:
        """A model does not contribute. Only the kind of the cause is noted: the sentence for people may
        quote a text."""
        self.calls.drop(missing.model, missing.cause)
        name = LATE if missing.cause == LATE else "dropped"
        self._note(name, model=missing.model, cause=missing.cause, place=place)

    def _note(self, name: str, *, model: str, **facts: str | int | None) -> None:
        said = ours({"model": shown_model(model, self._names), **facts})
        self.span.add_event(f"{PREFIX}{name}", said, self._clock())


def _clock() -> Callable[[], int]:
    """A clock that gives the time in nanoseconds since 1970, and never goes back."""
    now = asyncio.get_running_loop().time
    began, began_ns = now(), time.time_ns()
    return lambda: began_ns + round((now() - began) * 1e9)


def _parent(asked: Asked) -> Context:
    """The span of the client that the request names; an empty context if it names none, or if what it
    says is malformed."""
    said = {"traceparent": asked.traceparent, "tracestate": asked.tracestate}
    return _headers.extract({n: value for n, value in said.items() if value is not None}, Context())
