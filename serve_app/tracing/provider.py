"""Sends the spans of this process to a collector, over OTLP.

The provider is this program's own. OpenTelemetry's global provider is left alone, because Ray and other
libraries in the process may have one. Spans wait in a queue with a bound, and a thread sends them, so
that no request ever waits for the collector. If the collector takes no spans, they are lost, and the
log says so once.
"""

import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from configs.schema import Recipe
from serve_app.tracing.observer import TraceObserver
from serve_app.tracing.settings import ENDPOINT, TRACES_ENDPOINT, TracingError

SERVICE = "slimmoa"
"""The name of the service that the spans are of, unless `OTEL_SERVICE_NAME` gives another."""
UNNAMED = "unknown_service"
"""How OpenTelemetry's own name of a service begins that has no name."""
FLUSH_S = 3.0
"""Most seconds for which the end of the process waits for the last spans to be sent."""
TALKATIVE = (
    "opentelemetry.exporter.otlp",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace.export",
    "opentelemetry.trace.span",
    "opentelemetry.trace.propagation",
)
"""Loggers that write a line for each batch that is lost, or for each header that is malformed."""

MOST_REASON_CHARACTERS = 300
"""Most characters of a reason that our own line repeats."""

logger = logging.getLogger(__name__)


class Tracing:
    """The provider of this process's spans, and the thread that sends them.

    OpenTelemetry reads its settings from the environment of the process, so `variables` become a part
    of the environment.

    Args:
        variables: what `tracing_variables` gives.

    Raises:
        TracingError: OpenTelemetry refuses the variables.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        os.environ.update(variables)
        names = ", ".join(sorted(variables))
        try:
            self._sender = Sender(OTLPSpanExporter(meter_provider=NoOpMeterProvider()), _shown_url())
            processor = BatchSpanProcessor(self._sender, meter_provider=NoOpMeterProvider())
        except Exception as error:
            raise TracingError(f"traces cannot be sent as {names} say: {error}") from error
        self.provider = TracerProvider(
            resource=_resource(), shutdown_on_exit=False, meter_provider=NoOpMeterProvider()
        )
        self.provider.add_span_processor(processor)

    def observer(self, recipe: Recipe) -> TraceObserver:
        """What makes the spans of answers."""
        return TraceObserver(recipe, self.provider.get_tracer(SERVICE))

    def close(self, limit_s: float = FLUSH_S) -> None:
        """Send the spans that wait, and end the thread. Spans that are not sent after `limit_s` seconds
        are lost."""
        # A thread of its own, which does not keep the process: OpenTelemetry's limit is 30 s.
        closing = threading.Thread(target=self.provider.shutdown, daemon=True)
        closing.start()
        closing.join(limit_s)


class Sender(SpanExporter):
    """Sends spans, and says once when they are lost and once when they arrive again.

    Args:
        exporter: sends spans.
        url: where to, as messages show it.
    """

    def __init__(self, exporter: SpanExporter, url: str) -> None:
        self._exporter = exporter
        self._url = url
        self._lost = 0
        """Spans that were lost since spans last arrived."""
        self._reasons = _Reasons()
        for name in TALKATIVE:
            talkative = logging.getLogger(name)
            talkative.propagate = False
            talkative.handlers = [self._reasons]

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                logger.warning("traces arrive at %s again; %d spans were lost", self._url, self._lost)
            self._lost = 0
            self._reasons.first = ""
            return result
        if not self._lost:
            logger.warning(
                "traces do not arrive at %s, and are lost until they do; answers are not affected (%s)",
                self._url,
                self._reasons.first or "unknown reason",
            )
        self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Reasons(logging.Handler):
    """Keeps the first message of the loggers in TALKATIVE since spans last arrived, and writes nothing.

    A message may quote the URL, whose query may hold a key. So queries are left out.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.first = ""

    def emit(self, record: logging.LogRecord) -> None:
        if not self.first:
            self.first = re.sub(r"\?\S*", "", record.getMessage())[:MOST_REASON_CHARACTERS]


def _resource() -> Resource:
    """What the spans are of: the environment's own words, and this program's name where it has none."""
    resource = Resource.create()
    ours = {}
    if str(resource.attributes.get(SERVICE_NAME, UNNAMED)).startswith(UNNAMED):
        ours[SERVICE_NAME] = SERVICE
    if SERVICE_VERSION not in resource.attributes:
        with suppress(PackageNotFoundError):  # run from a folder that is not installed
            ours[SERVICE_VERSION] = version(SERVICE)
    return resource.merge(Resource(ours))


def _shown_url() -> str:
    """The collector's address without a password and a query, which may hold a key."""
    url = os.environ.get(TRACES_ENDPOINT) or os.environ.get(ENDPOINT) or "http://localhost:4318"
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"
