"""Hands spans to the exporter, in the thread that sends them."""

import logging
import re
import time
from collections.abc import Iterator, Sequence
from typing import overload

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

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

AT_ONCE = 8
"""How many spans are written before each pause. It takes less than a millisecond to write so many."""
PAUSE_S = 0.001
"""Length of a pause in seconds."""

logger = logging.getLogger(__name__)


class Sender(SpanExporter):
    """Sends spans, and says once when they are lost and once when they arrive again.

    Args:
        exporter: writes and sends spans.
        url: the URL to which it sends them, as messages show it.
    """

    def __init__(self, exporter: SpanExporter, url: str) -> None:
        self._exporter = exporter
        self._url = url
        self._lost = 0
        """Spans that were lost since spans last arrived."""
        self._pause_s = PAUSE_S
        self._reasons = _Reasons()
        for name in TALKATIVE:
            talkative = logging.getLogger(name)
            talkative.propagate = False
            talkative.handlers = [self._reasons]

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(_Unhurried(spans, self._pause_s))
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

    def hurry(self) -> None:
        """Send what is left without pauses, because the process ends."""
        self._pause_s = 0.0

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class _Unhurried(Sequence[ReadableSpan]):
    """Spans whose reader pauses now and then, so that the event loop does not wait for the reader.

    The exporter writes each span when it reads the span. For 512 spans, this takes 25 milliseconds in
    Python. A thread that runs Python code keeps the interpreter's lock for 5 milliseconds after another
    thread asks for the lock (`sys.getswitchinterval`). The event loop has to ask for the lock each time
    it has waited for its sockets. So without pauses, the event loop would stand still for most of the
    25 milliseconds.

    Args:
        spans: the spans.
        pause_s: seconds of each pause.
    """

    def __init__(self, spans: Sequence[ReadableSpan], pause_s: float) -> None:
        self._spans = spans
        self._pause_s = pause_s

    def __iter__(self) -> Iterator[ReadableSpan]:
        for number, span in enumerate(self._spans, 1):
            yield span
            if number % AT_ONCE == 0 and self._pause_s:
                time.sleep(self._pause_s)

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, place: int) -> ReadableSpan: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[ReadableSpan]: ...

    def __getitem__(self, place: int | slice) -> ReadableSpan | Sequence[ReadableSpan]:
        return self._spans[place]


class _Reasons(logging.Handler):
    """Keeps the first message of the loggers in TALKATIVE since spans last arrived, and writes nothing.

    A message may quote the URL, and the query of the URL may hold a key. So queries are left out.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.first = ""

    def emit(self, record: logging.LogRecord) -> None:
        if not self.first:
            self.first = re.sub(r"\?\S*", "", record.getMessage())[:MOST_REASON_CHARACTERS]
