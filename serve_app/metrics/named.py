"""What a metric of `/metrics` is: a name, a kind, labels, and what it says."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

Kind = Literal["counter", "gauge", "histogram"]
INGRESS = "ingress"
"""The label that every metric of an ingress gets: the number of the ingress, from 0."""
MODEL = "model_name"
"""vLLM's label: the name of a model, an adapter or the mixture."""
ENGINE = "engine"
"""vLLM's label: the number of a model's replica."""


@dataclass(frozen=True, slots=True)
class Named:
    """One metric."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str
    """What the metric says: Prometheus shows it as HELP."""
    buckets: tuple[float, ...] = ()
    """The bounds of a histogram's buckets; empty if they depend on the recipe."""

    def family(self) -> Metric:
        """An empty family of samples, for a value that is asked for when Prometheus scrapes."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        return kind(self.name, self.text, labels=self.labels)


class Counters:
    """Makes the metrics that count events.

    Args:
        registry: gets the metrics.
        token_bounds: bounds of the buckets of counts of tokens.
    """

    def __init__(self, registry: CollectorRegistry, token_bounds: tuple[float, ...]) -> None:
        self._registry = registry
        self._token_bounds = token_bounds

    def counter(self, named: Named) -> Counter:
        """Make a counter."""
        return Counter(named.name, named.text, named.labels, registry=self._registry)

    def gauge(self, named: Named) -> Gauge:
        """Make a gauge."""
        return Gauge(named.name, named.text, named.labels, registry=self._registry)

    def histogram(self, named: Named) -> Histogram:
        """Make a histogram."""
        buckets = named.buckets or self._token_bounds
        return Histogram(named.name, named.text, named.labels, registry=self._registry, buckets=buckets)


def sample_names(named: Named) -> Iterator[str]:
    """The names under which the samples of a metric stand in `/metrics`."""
    if named.kind == "histogram":
        yield from (f"{named.name}_{part}" for part in ("bucket", "sum", "count"))
    else:
        yield named.name
