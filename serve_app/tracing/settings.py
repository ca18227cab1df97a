"""Whether traces are sent, and where to: what OpenTelemetry's environment variables say.

The variables are those of the OpenTelemetry specification ("Environment Variable Specification" and
"OpenTelemetry Protocol Exporter"). Traces are sent if a person asks for them, by one of these:

1. `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is the URL to which traces are sent. An option of `slimmoa
   serve` and an argument of the builder, `otlp_traces_endpoint`, take the place of the variable.
2. `OTEL_EXPORTER_OTLP_ENDPOINT` is the root of a collector; the path `/v1/traces` is added.
3. `OTEL_TRACES_EXPORTER` is `otlp`; the collector is this machine's, at port 4318.

`OTEL_TRACES_EXPORTER=none` and `OTEL_SDK_DISABLED=true` turn traces off, whatever else is said. An
empty variable counts as one that is not set.
"""

import math
from collections.abc import Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from configs.errors import UserError

PREFIX = "OTEL_"
"""How the names of all variables begin that OpenTelemetry reads."""
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
EXPORTER = "OTEL_TRACES_EXPORTER"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
"""The form of OTLP that is sent."""
SAMPLER = "OTEL_TRACES_SAMPLER"
SAMPLER_SHARE = "OTEL_TRACES_SAMPLER_ARG"
SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
"""The samplers of the specification that need no other server. The default is
`parentbased_always_on`."""
NUMBERS = (
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
)
"""Variables that have to be whole numbers above 0."""
LIMITS = "_LIMIT"
"""How the names of the variables end that limit what a span holds. Their values are whole numbers."""
INSTALL = "pip install 'slimmoa[tracing]'"
PACKAGE = "opentelemetry.exporter.otlp.proto.http"
"""What the extra `tracing` brings."""


class TracingError(UserError):
    """Traces are asked for and cannot be sent."""


def tracing_variables(
    environment: Mapping[str, str], endpoint: str | None = None, named: str = TRACES_ENDPOINT
) -> dict[str, str] | None:
    """The variables with which traces are sent; None if no traces are asked for.

    The variables may hold a key of the collector (`OTEL_EXPORTER_OTLP_HEADERS`), so they may not be
    logged.

    Args:
        environment: the environment of the process that a person has started.
        endpoint: a URL that takes the place of the variable TRACES_ENDPOINT.
        named: who has given `endpoint`, as messages say it.

    Raises:
        TracingError: a variable has a value that cannot be used, or the extra `tracing` is not
            installed.
    """
    said = {
        name: value.strip()
        for name, value in environment.items()
        if name.startswith(PREFIX) and value.strip()
    }
    if endpoint and endpoint.strip():
        said[TRACES_ENDPOINT] = endpoint.strip()
    else:
        named = TRACES_ENDPOINT
    asked_by = _asked_by(said)
    if asked_by is None:
        return None
    _check(said, named)
    require_installed(named if asked_by == TRACES_ENDPOINT else asked_by)
    return said


def require_installed(asked_by: str) -> None:
    """Check that the extra `tracing` is installed.

    Args:
        asked_by: the variable by which a person asks for traces.

    Raises:
        TracingError: it is not.
    """
    if not _is_installed():
        raise TracingError(
            f"{asked_by} asks for traces, and the packages that send them are not installed: "
            f"{INSTALL}, or set {EXPORTER}=none"
        )


def _is_installed() -> bool:
    try:
        return find_spec(PACKAGE) is not None
    except ImportError:  # a package above it is missing
        return False


def _asked_by(said: Mapping[str, str]) -> str | None:
    """The variable that asks for traces; None if no variable does.

    Raises:
        TracingError: the variable names an exporter that there is not.
    """
    exporter = said.get(EXPORTER, "").lower()
    if said.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return None
    if exporter not in ("", "otlp"):
        raise TracingError(f"{EXPORTER} is {said[EXPORTER]!r}; it can be otlp or none")
    return next((name for name in (TRACES_ENDPOINT, ENDPOINT, EXPORTER) if name in said), None)


def _check(said: Mapping[str, str], named: str) -> None:
    """Check the values that OpenTelemetry itself would take for others, or refuse only while it sends.

    Args:
        named: who has given the value of TRACES_ENDPOINT, as messages say it.

    Raises:
        TracingError: a value cannot be used.
    """
    if TRACES_ENDPOINT in said:
        _check_url(named, said[TRACES_ENDPOINT], "/v1/traces")
    if ENDPOINT in said:
        _check_url(ENDPOINT, said[ENDPOINT], "")
    protocol = next((name for name in PROTOCOLS if name in said), None)
    if protocol is not None and said[protocol].lower() != PROTOCOL:
        raise TracingError(
            f"{protocol} is {said[protocol]!r}; SlimMoA sends {PROTOCOL} only. Set the variable to "
            f"{PROTOCOL}, and give the collector's port for HTTP, which mostly is 4318"
        )
    sampler = said.get(SAMPLER, "").lower()
    if sampler and sampler not in SAMPLERS:
        raise TracingError(f"{SAMPLER} is {said[SAMPLER]!r}; it can be {', '.join(SAMPLERS)}")
    if sampler.endswith("traceidratio") and SAMPLER_SHARE in said:
        share = _number(said[SAMPLER_SHARE])
        if share is None or not 0 <= share <= 1:
            raise TracingError(
                f"{SAMPLER_SHARE} is {said[SAMPLER_SHARE]!r}; it is a number from 0 to 1"
            )
    _check_numbers(said)


def _check_numbers(said: Mapping[str, str]) -> None:
    """See `_check`."""
    for name in NUMBERS:
        if name in said and not (said[name].isdecimal() and int(said[name]) > 0):
            raise TracingError(f"{name} is {said[name]!r}; it is a whole number above 0")
    for name, value in said.items():
        if name.endswith(LIMITS) and not value.isdecimal():
            raise TracingError(f"{name} is {value!r}; it is a whole number from 0")


def _check_url(name: str, url: str, path: str) -> None:
    """Check a URL of a collector. The message of the error repeats no password of the URL.

    Args:
        name: who has given the URL, as messages say it.
        url: the URL.
        path: the path that such a URL mostly has.
    """
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        shown = url.rpartition("@")[2]
        raise TracingError(
            f"{name} is {shown!r}; it has to be a URL of a collector, such as http://127.0.0.1:4318"
            f"{path}"
        )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
