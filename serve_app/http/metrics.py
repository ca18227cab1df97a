"""GET /metrics: the numbers of the server for Prometheus."""

import asyncio
import gzip
from collections.abc import Callable, Iterable, Sequence

from fastapi import Request
from fastapi.responses import Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics

from configs.access import Access
from configs.errors import Forbidden
from serve_app.access.api_keys import Key
from serve_app.access.auth import KEY
from serve_app.metrics.server_metrics import ServerMetrics

OPENMETRICS = "application/openmetrics-text"
"""The media type of OpenMetrics, which Prometheus prefers."""
OPENMETRICS_VERSION = "1.0.0"


class MetricsEndpoint:
    """Answers `/metrics`.

    Args:
        access: says who may read the numbers.
        metrics: collects the numbers.
    """

    def __init__(self, access: Access, metrics: ServerMetrics) -> None:
        self._keys = access.metrics_keys if access.metrics == "keys" else ()
        self._metrics = metrics

    async def metrics(self, http: Request) -> Response:
        """Numbers of the server for Prometheus, in its text format, or as OpenMetrics if `Accept` asks
        for that (docs/metrics.md has every name)."""
        key: Key | None = http.scope.get(KEY)
        if self._keys and (key is None or key.name not in self._keys):
            raise Forbidden("access.metrics_keys in the recipe does not name this API key")
        families = await self._metrics.collect()
        is_zipped = "gzip" in http.headers.get("accept-encoding", "")
        # In a thread: it takes tens of milliseconds, and streams would stand still meanwhile.
        body, kind = await asyncio.to_thread(
            written, families, http.headers.get("accept", ""), is_zipped
        )
        headers = {"content-type": kind, "vary": "accept, accept-encoding"}
        if is_zipped:
            headers["content-encoding"] = "gzip"
        return Response(body, headers=headers)


class _Collected:
    """Families of samples as prometheus_client's writers take them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def written(families: Sequence[Metric], accept: str, is_zipped: bool) -> tuple[bytes, str]:
    """The body of the response, and its content type."""
    collected = _Collected(families)
    if OPENMETRICS in accept:
        # Unescaped: every name here is a plain one, and the writer of prometheus_client 0.26 would turn
        # the colon of vLLM's names into an underscore.
        write: Callable[..., bytes] = openmetrics.generate_latest
        body = write(collected, openmetrics.ALLOWUTF8, OPENMETRICS_VERSION)
        kind = f"{OPENMETRICS}; version={OPENMETRICS_VERSION}; charset=utf-8"
    else:
        body, kind = generate_latest(collected), CONTENT_TYPE_PLAIN_0_0_4
    return (gzip.compress(body, 1) if is_zipped else body), kind
