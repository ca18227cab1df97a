"""The calls of one answer, each as a span that sees the call from the side of its caller.

A span begins before its call, so that the call can carry the span's ID to another server. An attempt
that is made again is a call of its own.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol, cast

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors.engine import NONE, Delta, Message
from configs.errors import RequestError
from configs.schema import Sampling
from serve_app.mixture.models import Models, on_behalf, warm
from serve_app.tracing.attributes import ours
from serve_app.tracing.spans import Span

_headers = TraceContextTextMapPropagator()


def origin_of(span: Span) -> dict[str, str]:
    """The headers by which the receiver of a call makes its own spans children of this span."""
    headers: dict[str, str] = {}
    _headers.inject(headers, set_span_in_context(NonRecordingSpan(span.context), Context()))
    return headers


class CallEnds:
    """How the calls of a stage ended. A call that its caller has stopped does not know why; the stage
    knows, by the proposals that it drops."""

    def __init__(self) -> None:
        self._stopped: list[CallSpan] = []
        self._causes: Counter[tuple[str, str]] = Counter()
        """How often a model was left out for a cause, less the calls that say this cause themselves."""

    def drop(self, model: str, cause: str) -> None:
        """A model does not contribute to the stage."""
        self._causes[model, cause] += 1

    def failed(self, model: str, cause: str) -> None:
        """A call of a model failed."""
        self._causes[model, cause] -= 1

    def stopped(self, call: "CallSpan") -> None:
        """A call was stopped; its span waits for the end of the stage."""
        self._stopped.append(call)

    def close(self) -> None:
        """End the spans of the calls that were stopped, now that the stage has ended."""
        if not self._stopped:
            return
        left = +self._causes
        for call in self._stopped:
            found = next((key for key, count in left.items() if key[0] == call.model and count), None)
            if found is None:
                call.span.attributes |= ours({"stopped": True})
                call.close()
            else:
                left[found] -= 1
                call.close(found[1])
        self._stopped.clear()


class CallSpan:
    """The span of one call while the call goes on, and what the call has given so far.

    Args:
        model: the name of the model.
        span: the span, which has begun.
        clock: gives the time in nanoseconds since 1970.
        ends: learns how the call ends.
        streamed: whether the answer comes in deltas. The first one comes without delay, even if the
            others may be held back for a moment.
    """

    def __init__(
        self, model: str, span: Span, clock: Callable[[], int], ends: CallEnds, *, streamed: bool
    ) -> None:
        self.model = model
        self.span = span
        self._clock = clock
        self._ends = ends
        self._streamed = streamed
        self.awaits_first = True
        """Whether the first token has not come yet."""
        self._first_s: float | None = None
        """Seconds from the beginning of the call to the first token."""
        self._finish_reason: str | None = None
        self._read = self._cached = self._written = 0
        """Numbers of tokens."""
        self._queue_s = self._engine_s = 0.0
        self._stopped: int | None = None
        """When the call was stopped."""

    def note(self, delta: Delta) -> None:
        """Take note of the first token, and of what a delta has beside its text."""
        if self.awaits_first and (delta.text or delta.reasoning or delta.tool_calls):
            self.awaits_first = False
            self._first_s = (self._clock() - self.span.began) / 1e9
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._read += delta.prompt_tokens
        self._cached += delta.cached_tokens
        self._written += delta.completion_tokens
        self._queue_s += delta.queue_s
        self._engine_s += delta.engine_s

    def done(self) -> None:
        """The call ended with a complete answer."""
        self._tell()
        self.close()

    def failed(self, error: Exception) -> None:
        """The call ended with an error."""
        self._tell()
        cause = error.code if isinstance(error, RequestError) else type(error).__name__
        self._ends.failed(self.model, cause)
        self.close(cause)

    def stopped(self) -> None:
        """The call was stopped by its caller before its end."""
        self._stopped = self._clock()
        self._tell()
        self._ends.stopped(self)

    def close(self, error: str | None = None) -> None:
        """End the span.

        Args:
            error: the kind of error with which the call ended; None for no error.
        """
        if error is not None:
            self.span.fail(error)
        self.span.end(self._clock() if self._stopped is None else self._stopped)

    def _tell(self) -> None:
        """Note on the span what the call has given."""
        said = self.span.attributes
        if self._streamed and self._first_s is not None:
            said["gen_ai.response.time_to_first_chunk"] = self._first_s
        if self._finish_reason:
            said["gen_ai.response.finish_reasons"] = [self._finish_reason]
        if self._read or self._written:
            said["gen_ai.usage.input_tokens"] = self._read
            said["gen_ai.usage.output_tokens"] = self._written
        if self._cached:
            said["gen_ai.usage.cache_read.input_tokens"] = self._cached
        if self._engine_s:
            said |= ours({"engine_s": self._engine_s, "queue_s": self._queue_s})


class Calls(Protocol):
    """Begins the spans of calls."""

    def begin_call(self, model: str, sampling: Sampling, *, streamed: bool) -> CallSpan:
        """A call begins."""

    def carries(self, model: str) -> bool:
        """Whether calls of this model carry the trace to another server."""


class TracedModels:
    """The models of an answer, whose calls are spans.

    Args:
        models: makes the calls.
        calls: begins their spans.
    """

    def __init__(self, models: Models, calls: Calls) -> None:
        self._models = models
        self._calls = calls
        self.count_tokens = models.count_tokens
        self.token_ends = models.token_ends
        self.is_alive = models.is_alive

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        """See `Models`."""
        call = self._calls.begin_call(model, sampling, streamed=True)
        stream = self._carrying(call).stream(model, messages, sampling, streamed)
        try:
            async with aclosing(cast("AsyncGenerator[Delta]", stream)) as deltas:
                async for delta in deltas:
                    if (
                        call.awaits_first
                        or delta.finish_reason
                        or delta.completion_tokens
                        or delta.prompt_tokens
                        or delta.engine_s
                    ):
                        call.note(delta)
                    yield delta
        except Exception as error:
            call.failed(error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            call.stopped()
            raise
        call.done()

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        call = self._calls.begin_call(model, sampling, streamed=False)
        try:
            whole = await self._carrying(call).complete(model, messages, sampling)
        except Exception as error:
            call.failed(error)
            raise
        except asyncio.CancelledError:
            call.stopped()
            raise
        call.note(whole)
        call.done()
        return whole

    async def warm(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int | None:
        """See `serve_app.mixture.models.warm`. A warm-up is no call, and has no span."""
        return await warm(self._models, model, messages, template)

    def _carrying(self, call: CallSpan) -> Models:
        if not self._calls.carries(call.model):
            return self._models
        return on_behalf(self._models, origin_of(call.span))
