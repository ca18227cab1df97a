"""A collector of traces for tests: takes spans over OTLP (HTTP, protobuf), and gives them back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

KINDS = {value: name.removeprefix("SPAN_KIND_") for name, value in Span.SpanKind.items()}


@dataclass(frozen=True)
class SpanRead:
    """A span as it arrived."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    """The ID of its parent; empty if it has none."""
    began: int
    """Nanoseconds since 1970."""
    ended: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    event_times: list[int]
    has_failed: bool
    message: str
    state: str

    @property
    def seconds(self) -> float:
        return (self.ended - self.began) / 1e9

    def holds(self, other: "SpanRead") -> bool:
        """Whether the other span lies within this one."""
        return self.began <= other.began <= other.ended <= self.ended


@dataclass
class Collector:
    """What has arrived so far."""

    url: str = ""
    """The URL to which traces are sent."""
    status: int = 200
    """The status with which the collector answers."""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def requests(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    def spans(self) -> list[SpanRead]:
        """All spans, the earliest first."""
        found = [
            _read(span)
            for request in self.requests()
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: (span.began, -span.ended))

    def resource(self) -> dict[str, Any]:
        """What the spans are of."""
        (resource,) = {str(r.resource): r for q in self.requests() for r in q.resource_spans}.values()
        return {pair.key: _value(pair.value) for pair in resource.resource.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port of this machine."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            if collector.status == 200:
                collector.bodies.append(body)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _read(span: Span) -> SpanRead:
    return SpanRead(
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes={pair.key: _value(pair.value) for pair in span.attributes},
        events=[(e.name, {pair.key: _value(pair.value) for pair in e.attributes}) for e in span.events],
        event_times=[event.time_unix_nano for event in span.events],
        has_failed=span.status.code == 2,
        message=span.status.message,
        state=span.trace_state,
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, str(kind))
