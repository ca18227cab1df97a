"""Sends the spans of this process to a collector, over OTLP.

The provider is this program's own. OpenTelemetry's global provider is left alone, because Ray and other
libraries in the process may have one. Spans wait in a queue with a bound, and a thread sends them, so
that no request ever waits for the collector. If the collector takes no spans, they are lost, and the
log says so once.
"""

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from configs.schema import Recipe
from serve_app.tracing.observer import TraceObserver
from serve_app.tracing.sender import Sender
from serve_app.tracing.settings import ENDPOINT, TRACES_ENDPOINT, TracingError
from serve_app.tracing.spans import Spans

SERVICE = "slimmoa"
"""The name of the service that the spans are of, unless `OTEL_SERVICE_NAME` gives another."""
UNNAMED = "unknown_service"
"""How OpenTelemetry's own name of a service begins that has no name."""
FLUSH_S = 3.0
"""Most seconds for which the end of the process waits for the last spans to be sent."""


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
        unmeasured = NoOpMeterProvider()
        try:
            self.provider = TracerProvider(
                resource=_resource(), shutdown_on_exit=False, meter_provider=unmeasured
            )
            self._sender = Sender(OTLPSpanExporter(meter_provider=unmeasured), _shown_url())
            self._processor = BatchSpanProcessor(self._sender, meter_provider=unmeasured)
        except Exception as error:
            raise TracingError(f"traces cannot be sent as {names} say: {error}") from error
        self.provider.add_span_processor(self._processor)

    def observer(self, recipe: Recipe) -> TraceObserver:
        """What makes the spans of answers."""
        return TraceObserver(recipe, Spans(SERVICE, self.provider, self._processor))

    def close(self, limit_s: float = FLUSH_S) -> None:
        """Send the spans that wait, and end the thread. Spans that are not sent after `limit_s` seconds
        are lost."""
        self._sender.hurry()
        # A thread of its own, which does not keep the process: OpenTelemetry's limit is 30 s.
        closing = threading.Thread(target=self.provider.shutdown, daemon=True)
        closing.start()
        closing.join(limit_s)


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
