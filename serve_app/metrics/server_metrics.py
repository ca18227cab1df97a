"""All numbers of a server, as one scrape shows them: of every ingress, and of models and cards.

A scrape reaches one ingress, and nobody can choose which: the ingresses of a node share a port, and
Serve's proxy chooses among all. So the ingress that is reached asks the others for their counters, and
each ingress's counters have its number in the label `ingress`. The counters of different ingresses are
not added up here: an ingress that starts again begins at 0, and Prometheus could not tell that from a
smaller sum.
"""

import asyncio
import importlib.metadata
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from configs.schema import Recipe
from serve_app.metrics import names
from serve_app.metrics.cluster import (
    AskCards,
    AskStats,
    ClusterWatch,
    cluster_families,
    in_time,
)
from serve_app.metrics.named import INGRESS
from serve_app.metrics.observer import EventMetrics, MetricsObserver

AskIngresses = Callable[[], Awaitable[Mapping[str, Sequence[Metric] | None]]]
"""Asks the other ingresses for their own metrics (`ServerMetrics.own`), by the ingress's number; None
for an ingress that does not answer."""


class ServerMetrics:
    """The metrics of an ingress, and those that the ingress collects for a scrape.

    Args:
        recipe: what is served.
        ingress: the number of this ingress, from 0.
        ask_stats: asks the replicas of a model; None where no replica can be asked.
        ask_cards: asks the keepers of cards; None where there are none.
        ask_ingresses: asks the other ingresses; None where there are none.
    """

    def __init__(
        self,
        recipe: Recipe,
        ingress: int = 0,
        ask_stats: AskStats | None = None,
        ask_cards: AskCards | None = None,
        ask_ingresses: AskIngresses | None = None,
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._ingress = str(ingress)
        self._ask_ingresses = ask_ingresses
        self._cluster = ClusterWatch(recipe.models, ask_stats, ask_cards)
        ProcessCollector(registry=self._registry)
        self._info = names.INFO.family()
        self._info.samples.append(Sample(names.INFO.name, _info_labels(recipe), 1.0))
        self.observer = MetricsObserver(EventMetrics(recipe, self._registry))
        """Counts requests into these metrics."""

    def own(self) -> list[Metric]:
        """The metrics of this ingress alone, without those of models and cards."""
        families = [*self._registry.collect(), self._info]
        return [_with_label(family, self._ingress) for family in families]

    async def collect(self) -> list[Metric]:
        """The metrics of all parts of the server. Each part has at most ANSWER_S to answer."""
        state, others = await asyncio.gather(self._cluster.state(), self._others())
        own = await asyncio.to_thread(self.own)  # thousands of samples: a stream would wait for them
        found = [own, cluster_families(state)]
        up = names.UP.family()
        for ingress, families in {self._ingress: own, **others}.items():
            is_up = 0.0 if families is None else 1.0
            up.samples.append(Sample(names.UP.name, {"part": "ingress", "name": ingress}, is_up))
        found += [list(families) for families in others.values() if families is not None]
        return merged([*found, [up]])

    async def _others(self) -> Mapping[str, Sequence[Metric] | None]:
        if self._ask_ingresses is None:
            return {}
        return await in_time(self._ask_ingresses()) or {}


def _info_labels(recipe: Recipe) -> dict[str, str]:
    return dict(
        zip(names.INFO.labels, (importlib.metadata.version("slimmoa"), recipe.name), strict=True)
    )


def _with_label(family: Metric, ingress: str) -> Metric:
    """The family with the ingress's number in each sample. The time at which each series was created,
    which prometheus_client gives too, is left out: it is a fifth of all samples and few read it."""
    labelled = Metric(family.name, family.documentation, family.type, family.unit)
    labelled.samples = [
        sample._replace(labels={**sample.labels, INGRESS: ingress})
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
    return labelled


def merged(groups: Iterable[Iterable[Metric]]) -> list[Metric]:
    """The families of all groups, with the samples of each name together, as the formats want them."""
    found: dict[str, Metric] = {}
    for family in (family for group in groups for family in group):
        known = found.get(family.name)
        if known is None:
            found[family.name] = known = Metric(
                family.name, family.documentation, family.type, family.unit
            )
        known.samples.extend(family.samples)
    return list(found.values())
