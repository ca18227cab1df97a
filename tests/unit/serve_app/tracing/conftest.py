"""A served recipe whose models follow a script, and whose traces a collector takes."""

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from actors.replica import ReplicaStats
from configs.schema import Recipe
from serve_app.http.api import create_api
from serve_app.mixture.models import Models
from serve_app.tracing.provider import Tracing
from serve_app.tracing.settings import PREFIX, TRACES_ENDPOINT
from tests.otlp_collector import Collector, SpanRead, collecting
from tests.unit.scripts import FakeModels
from tests.unit.serve_app.conftest import CHAT

ANSWERED = {"one": ["first"], "two": ["second"], "slow": ["third"], "writer": ["the end"]}
"""What models say that answer at once."""


@dataclass
class ServedModels(FakeModels):
    """Models by script, which keep where their calls come from."""

    origins: list[Mapping[str, str]] = field(default_factory=list)

    def on_behalf(self, origin: Mapping[str, str]) -> Models:
        if "traceparent" in origin:  # and not the request's ID, which every call carries
            self.origins.append(origin)
        return self

    async def stats(self, _model: str) -> ReplicaStats:
        return ReplicaStats(0, 0, 0, 0, 0, 0, 0)


def recipe(**settings: Any) -> Recipe:
    """Three proposers and two aggregators. One proposer and one aggregator are on another server."""
    near, small = ({"engine": "scripted", "context_tokens": tokens} for tokens in (1024, 512))
    far = {"engine": "openai_http", "base_url": "http://far:8123/v1", "model": "far-7b"}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": {"one": near, "two": far, "slow": near, "writer": small, "spare": far},
            "layers": [
                {
                    "proposers": [
                        {"model": "one", "sampling": {"seed": 5, "temperature": 0.25}},
                        {"model": "two", "sampling": {"max_tokens": 64}},
                        {"model": "slow"},
                    ]
                }
            ],
            "aggregator": {"model": "writer", "fallbacks": ["spare"], "sampling": {"max_tokens": 99}},
        }
        | settings
    )


class Traced:
    """A served recipe, and its collector."""

    def __init__(self, models: ServedModels, collector: Collector, tracing: Tracing, recipe: Recipe):
        self.models = models
        self.collector = collector
        self._tracing = tracing
        api = create_api(recipe, models, observers=[tracing.observer(recipe)])
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(api, raise_app_exceptions=False),
            base_url="http://localhost",
        )

    async def ask(
        self, *, headers: list[tuple[str, str]] | None = None, **fields: Any
    ) -> httpx.Response:
        body = {"model": "mix", "messages": [{"role": "user", "content": "hello"}]} | fields
        named = [("content-type", "application/json"), *(headers or [])]
        said = [(name.encode(), value.encode("latin-1")) for name, value in named]
        return await self.http.post(CHAT, content=json.dumps(body), headers=said)

    def spans(self) -> list[SpanRead]:
        """All spans, the earliest first. No answer can be asked for after this."""
        self._tracing.close()
        return self.collector.spans()


Serve = Callable[..., Traced]


def named(spans: Sequence[SpanRead], name: str) -> SpanRead:
    (span,) = [span for span in spans if span.name == name]
    return span


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment stays as it was."""
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            patch.delenv(name)
        before = dict(os.environ)
        yield
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


@pytest.fixture
async def serve(collector: Collector) -> AsyncIterator[Serve]:
    """Serves a recipe with scripts of its models; further variables of OpenTelemetry may be given."""
    served: list[Traced] = []

    def start(scripts: Mapping[str, Any], of: Recipe | None = None, **variables: str) -> Traced:
        models = ServedModels(dict(scripts))
        tracing = Tracing({TRACES_ENDPOINT: collector.url, **variables})
        served.append(Traced(models, collector, tracing, of or recipe()))
        return served[-1]

    yield start
    for each in served:
        await each.http.aclose()
        each.spans()
