"""How spans are sent, and what happens while no collector takes them."""

import logging
import socket
import threading
import time
from collections.abc import Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from configs.errors import EngineError
from serve_app.tracing.provider import Tracing
from serve_app.tracing.sender import AT_ONCE, PAUSE_S, Sender
from serve_app.tracing.settings import TRACES_ENDPOINT, TracingError
from serve_app.tracing.start import start_tracing
from tests.otlp_collector import Collector
from tests.unit.serve_app.tracing.conftest import ANSWERED, Serve, recipe

SPANS = [ReadableSpan("a"), ReadableSpan("b")]


class Exporter(SpanExporter):
    """Sends nothing. Whether that succeeds is what the test says."""

    def __init__(self) -> None:
        self.works = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not self.works:
            exporter = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
            exporter.error("refused: http://host/v1/traces?key=secret (%d)", len(spans))
        return SpanExportResult.SUCCESS if self.works else SpanExportResult.FAILURE


def end_a_span(tracing: Tracing) -> None:
    tracing.provider.get_tracer("test").start_span("a span").end()


def test_spans_that_are_lost_are_told_once_and_again_when_they_arrive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter = Exporter()
    sender = Sender(exporter, "http://host/v1/traces")
    for _ in range(3):
        for _ in range(5):
            sender.export(SPANS)
        exporter.works = True
        sender.export(SPANS)
        sender.export(SPANS)
        exporter.works = False
    lost = (
        "traces do not arrive at http://host/v1/traces, and are lost until they do; answers are not "
        "affected (refused: http://host/v1/traces (2))"
    )
    again = "traces arrive at http://host/v1/traces again; 10 spans were lost"
    assert [record.getMessage() for record in caplog.records] == [lost, again] * 3


def test_the_exporter_pauses_while_it_reads_many_spans_until_the_process_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    read: list[str] = []

    class Reader(Exporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            read.extend(span.name for span in spans)
            assert len(spans) == len(read)
            return SpanExportResult.SUCCESS

    names = [str(number) for number in range(3 * AT_ONCE + 1)]
    sender = Sender(Reader(), "http://host/v1/traces")
    sender.export([ReadableSpan(name) for name in names])
    assert pauses == [PAUSE_S] * 3
    assert read == names
    read.clear()
    sender.hurry()
    sender.export([ReadableSpan(name) for name in names])
    assert len(pauses) == 3
    assert read == names


async def test_an_unreachable_collector_costs_no_answer_and_one_line(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://user:secret@127.0.0.1:{nobody.getsockname()[1]}/v1/traces?key=secret"
        traced = serve(
            {"one": ["hi"]},
            **{
                TRACES_ENDPOINT: url,
                "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "0.2",
                "OTEL_BSP_MAX_QUEUE_SIZE": "2",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1",
            },
        )
        for _ in range(20):
            assert (await traced.ask(model="one")).status_code == 200
        assert traced.spans() == []
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith(f"traces do not arrive at {url.replace('user:secret@', '').split('?')[0]}, ")
    assert "secret" not in line


def test_the_end_does_not_wait_for_a_collector_that_never_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        tracing = Tracing({TRACES_ENDPOINT: f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"})
        end_a_span(tracing)
        began = time.monotonic()
        tracing.close(0.1)
        assert time.monotonic() - began < 5


def test_the_spans_are_of_this_program_and_no_global_provider_is_set(collector: Collector) -> None:
    before = trace.get_tracer_provider()
    threads = set(threading.enumerate())
    tracing = Tracing({TRACES_ENDPOINT: collector.url, "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret"})
    end_a_span(tracing)
    tracing.close()
    assert trace.get_tracer_provider() is before
    assert collector.resource()["service.name"] == "slimmoa"
    assert collector.headers[0]["x-key"] == "secret"
    assert not {t for t in set(threading.enumerate()) - threads if "Otel" in t.name}


def test_the_environment_names_the_service(collector: Collector) -> None:
    tracing = Tracing(
        {
            TRACES_ENDPOINT: collector.url,
            "OTEL_SERVICE_NAME": "answers",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,service.version=7",
        }
    )
    end_a_span(tracing)
    tracing.close()
    said = collector.resource()
    assert (said["service.name"], said["service.version"]) == ("answers", "7")
    assert said["deployment.environment.name"] == "test"


async def test_limits_of_the_environment_hold_for_what_spans_hold(serve: Serve) -> None:
    traced = serve(
        ANSWERED | {name: [EngineError("broken")] for name in ("one", "slow")},
        recipe(limits={"quorum": 1}),
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="3",
        OTEL_SPAN_EVENT_COUNT_LIMIT="1",
        OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT="1",
        OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="4",
    )
    assert (await traced.ask()).status_code == 200
    spans = traced.spans()
    assert {len(span.attributes) for span in spans if span.name.startswith("chat")} == {3}
    texts = [v for span in spans for v in span.attributes.values() if isinstance(v, str)]
    assert max(len(text) for text in texts) == 4
    (event,) = [event for span in spans for event in span.events]
    assert len(event[1]) == 1


def test_what_opentelemetry_refuses_is_one_line_without_values(collector: Collector) -> None:
    variables = {
        TRACES_ENDPOINT: collector.url,
        "OTEL_BSP_MAX_QUEUE_SIZE": "10",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "20",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=secret",
    }
    with pytest.raises(TracingError) as error:
        start_tracing(variables)
    assert "max_export_batch_size must be less than or equal to max_queue_size" in str(error.value)
    assert "OTEL_BSP_MAX_QUEUE_SIZE" in str(error.value)
    assert "secret" not in str(error.value)
