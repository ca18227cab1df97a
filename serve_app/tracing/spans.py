"""Spans of an answer: plain objects while the work goes on, and OpenTelemetry's own spans at the end.

OpenTelemetry's SDK begins the span of an answer: it reads the parent, asks the sampler, and chooses the
IDs and the flags. The SDK also keeps, writes and sends the spans that have ended. Only between begin
and end, a span is an object of this module. The SDK's own object takes 25 microseconds of the event
loop from its beginning to its end, and an answer has six spans or more.

The spans below the span of an answer take over its trace, flags and state. Each sampler in `SAMPLERS`
would make the same decision for all of them.
"""

import os
from collections.abc import Sequence

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util import types

from serve_app.tracing.attributes import ERROR, Attributes
from serve_app.tracing.settings import LIMITS, PREFIX

UNSET = Status(StatusCode.UNSET)
FAILED = Status(StatusCode.ERROR)


class Spans:
    """Begins spans, and hands over the spans that have ended.

    Args:
        name: the name of this program, as the spans have it.
        provider: begins the span of an answer, and gives the resource of all spans.
        processor: takes the spans that have ended.
    """

    def __init__(self, name: str, provider: TracerProvider, processor: SpanProcessor) -> None:
        self._provider = provider
        self._processor = processor
        self._tracer = provider.get_tracer(name)
        self._scope = InstrumentationScope(name)
        # The SDK's default limits lie far above what our spans hold.
        is_limited = any(n.startswith(PREFIX) and n.endswith(LIMITS) for n in os.environ)
        self._limits = SpanLimits() if is_limited else None

    def root(self, name: str, parent: Context, attributes: Attributes, began: int) -> "Span":
        """Begin the span of an answer.

        Args:
            name: the name of the span.
            parent: the context; it has the client's span if the request names a span.
            attributes: what is known at the beginning.
            began: nanoseconds since 1970.
        """
        decided = self._tracer.start_span(name, parent, SpanKind.SERVER, start_time=began)
        span = Span(self, name, SpanKind.SERVER, decided.get_span_context(), attributes, began)
        if isinstance(decided, ReadableSpan):
            span.parent = decided.parent
        return span

    def below(
        self, parent: "Span", name: str, kind: SpanKind, attributes: Attributes, began: int
    ) -> "Span":
        """Begin a span below another span; see `root`."""
        above = parent.context
        number = self._provider.id_generator.generate_span_id()
        context = SpanContext(above.trace_id, number, False, above.trace_flags, above.trace_state)
        span = Span(self, name, kind, context, attributes, began)
        span.parent = above
        return span

    def ended(self, span: "Span", at: int) -> None:
        """Hand over a span that has ended at this time, in nanoseconds since 1970."""
        attributes: types.Attributes = span.attributes
        events: Sequence[Event] = span.events
        if self._limits is not None:
            attributes, events = _limited(span.attributes, events, self._limits)
        self._processor.on_end(
            ReadableSpan(
                name=span.name,
                context=span.context,
                parent=span.parent,
                resource=self._provider.resource,
                attributes=attributes,
                events=events,
                kind=span.kind,
                status=FAILED if span.has_failed else UNSET,
                start_time=span.began,
                end_time=at,
                instrumentation_scope=self._scope,
            )
        )


class Span:
    """A span that has begun.

    Args:
        spans: takes the span at its end.
        name: the name of the span.
        kind: the kind of the span.
        context: the IDs of the span and its trace.
        attributes: what is known at the beginning.
        began: nanoseconds since 1970.
    """

    __slots__ = (
        "_spans",
        "attributes",
        "began",
        "context",
        "events",
        "has_failed",
        "is_recording",
        "kind",
        "name",
        "parent",
    )

    def __init__(
        self,
        spans: Spans,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        attributes: Attributes,
        began: int,
    ) -> None:
        self._spans = spans
        self.name = name
        self.kind = kind
        self.context = context
        self.parent: SpanContext | None = None
        self.attributes = attributes
        """Attributes may be added until the end."""
        self.began = began
        self.events: list[Event] = []
        self.has_failed = False
        self.is_recording = context.trace_flags.sampled
        """Whether the span is sent."""

    def add_event(self, name: str, attributes: Attributes, at: int) -> None:
        """Note an event within the span, at this time, in nanoseconds since 1970."""
        self.events.append(Event(name, attributes, at))

    def fail(self, cause: str) -> None:
        """Note that the work of the span ended with an error of this kind."""
        self.attributes[ERROR] = cause
        self.has_failed = True

    def end(self, at: int) -> None:
        """End the span at this time, in nanoseconds since 1970. Nothing may be added afterwards."""
        if self.is_recording:
            self._spans.ended(self, at)


def _limited(
    attributes: Attributes, events: Sequence[Event], limits: SpanLimits
) -> tuple[BoundedAttributes, Sequence[Event]]:
    """The attributes and events of a span, cut by the SDK's own rules to what the limits allow."""
    most, length = limits.max_event_attributes, limits.max_attribute_length
    kept = [
        Event(each.name, BoundedAttributes(most, each.attributes, max_value_len=length), each.timestamp)
        for each in events
    ]
    most, length = limits.max_span_attributes, limits.max_span_attribute_length
    return (
        BoundedAttributes(most, attributes, max_value_len=length),
        BoundedList.from_seq(limits.max_events, kept),
    )
