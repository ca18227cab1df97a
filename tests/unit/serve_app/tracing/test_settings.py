"""Which environment asks for traces, and which one asks for what there is not."""

import pytest

from serve_app.tracing import settings
from serve_app.tracing.settings import (
    TRACES_ENDPOINT,
    TracingError,
    require_installed,
    tracing_variables,
)

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "mine", "OTEL_TRACES_SAMPLER": "always_on"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_TRACES_EXPORTER": " "},
        COLLECTOR | {"OTEL_TRACES_EXPORTER": "none"},
        COLLECTOR | {"OTEL_TRACES_EXPORTER": "None"},
        COLLECTOR | {"OTEL_SDK_DISABLED": "True"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"},
    ],
    ids=range(7),
)
def test_nobody_asks_for_traces(environment: dict[str, str]) -> None:
    assert tracing_variables(environment) is None


@pytest.mark.parametrize(
    "environment",
    [
        COLLECTOR,
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://user:secret@[::1]:4318/v1/traces?key=1"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        COLLECTOR | {"OTEL_TRACES_EXPORTER": "OTLP", "OTEL_SDK_DISABLED": "false"},
        COLLECTOR | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        COLLECTOR
        | {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        },
        COLLECTOR
        | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"},
        COLLECTOR | {"OTEL_TRACES_SAMPLER": "Always_On", "OTEL_TRACES_SAMPLER_ARG": "unread"},
        COLLECTOR | {"OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"},
    ],
    ids=range(9),
)
def test_traces_are_asked_for_and_only_what_opentelemetry_reads_is_passed_on(
    environment: dict[str, str],
) -> None:
    others = {"SLIMMOA_API_KEYS": "secret", "PATH": "/bin", "OTEL_EMPTY": " "}
    assert tracing_variables(environment | others) == environment


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER is 'zipkin'; it can be otlp or none",
        ),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; SlimMoA sends http/protobuf only. Set the variable "
            "to http/protobuf, and give the collector's port for HTTP, which mostly is 4318",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
            "OTEL_EXPORTER_OTLP_ENDPOINT is 'collector:4318'; it has to be a URL of a collector, such "
            "as http://127.0.0.1:4318",
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "grpc://user:secret@collector:4317"},
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is 'collector:4317'; it has to be a URL of a "
            "collector, such as http://127.0.0.1:4318/v1/traces",
        ),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:99999"},
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is 'http://collector:99999'; it has to be a URL",
        ),
        (
            {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
            "OTEL_TRACES_SAMPLER is 'jaeger_remote'; it can be always_on, always_off, traceidratio, "
            "parentbased_always_on, parentbased_always_off, parentbased_traceidratio",
        ),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "10%"},
            "OTEL_TRACES_SAMPLER_ARG is '10%'; it is a number from 0 to 1",
        ),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"},
            "OTEL_TRACES_SAMPLER_ARG is 'nan'",
        ),
        (
            {"OTEL_BSP_MAX_QUEUE_SIZE": "0"},
            "OTEL_BSP_MAX_QUEUE_SIZE is '0'; it is a whole number above 0",
        ),
        ({"OTEL_BSP_SCHEDULE_DELAY": "5s"}, "OTEL_BSP_SCHEDULE_DELAY is '5s'"),
        (
            {"OTEL_SPAN_EVENT_COUNT_LIMIT": "many"},
            "OTEL_SPAN_EVENT_COUNT_LIMIT is 'many'; it is a whole number from 0",
        ),
    ],
    ids=range(11),
)
def test_what_there_is_not_is_refused_by_the_name_of_the_variable(
    variables: dict[str, str], words: str
) -> None:
    with pytest.raises(TracingError) as error:
        tracing_variables(COLLECTOR | variables)
    assert str(error.value).startswith(words)
    assert "secret" not in str(error.value)


def test_an_option_takes_the_place_of_the_variable_and_is_named_in_its_place() -> None:
    for variable in ({}, {TRACES_ENDPOINT: "http://other:1"}):
        given = tracing_variables(variable, " http://here:4318/v1/traces ", "--otlp-traces-endpoint")
        assert given == {TRACES_ENDPOINT: "http://here:4318/v1/traces"}
        with pytest.raises(
            TracingError, match=r"^--otlp-traces-endpoint is 'here'; it has to be a URL"
        ):
            tracing_variables(variable, "here", "--otlp-traces-endpoint")
    with pytest.raises(TracingError, match=r"^OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is 'there'"):
        tracing_variables({TRACES_ENDPOINT: "there"}, None, "--otlp-traces-endpoint")
    off = {"OTEL_TRACES_EXPORTER": "none"}
    assert tracing_variables(off, "http://here:4318/v1/traces", "--otlp-traces-endpoint") is None


def test_without_the_extra_traces_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in ("opentelemetry.exporter.otlp.proto.no_such_package", "no_such_package.below"):
        monkeypatch.setattr(settings, "PACKAGE", missing)
        with pytest.raises(TracingError) as error:
            tracing_variables(COLLECTOR)
        assert str(error.value) == (
            "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and the packages that send them are not "
            "installed: pip install 'slimmoa[tracing]', or set OTEL_TRACES_EXPORTER=none"
        )
        assert tracing_variables({}) is None


def test_the_extra_is_installed_here() -> None:
    require_installed("this test")
