"""Scrapes of `/metrics` for tests: what is served, asked for and read."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from actors.engine import Delta
from actors.keeper.card_report import CardReport, MemberReport
from actors.replica import ReplicaStats
from cluster.residency.state import State, TurnState
from configs.schema import Recipe
from serve_app.http.api import create_api
from serve_app.metrics.server_metrics import ServerMetrics
from tests.unit.serve_app.conftest import MIXTURE, Call, Puppets, recipe

KEEPER = "keeper:slimmoa:0123456789abcdef:0+1:aa"
MEMBER = MemberReport(
    name="one/0",
    slot="0",
    state=State.RESIDENT,
    turn=TurnState.OPEN,
    in_flight=1,
    waiting=0,
    oldest_wait_s=0,
    last_step_s=2.5,
    failure="",
    awake_bytes=100,
    asleep_bytes=10,
    orders={"wake": 3, "open": 4},
    step_seconds={"resident": 7.5},
)
CARD = CardReport("0123456789abcdef", (0, 1), "NVIDIA L4", 500, (MEMBER,))
STATS = ReplicaStats(2, 3, 9, 7, 0, 0, 50, oldest_wait_s=1.5)


class Cluster:
    """Replicas and keepers that answer after a time."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer_s = 0.0
        self.cards: dict[str, CardReport | None] = {KEEPER: CARD}
        self.stats: list[ReplicaStats | None] = [STATS, STATS]

    async def ask_cards(self) -> Mapping[str, CardReport | None]:
        self.asked += 1
        await asyncio.sleep(self.answer_s)
        return self.cards

    async def ask_stats(self, _model: str) -> Sequence[ReplicaStats | None]:
        return self.stats

    def metrics(self, served: Recipe | None = None) -> ServerMetrics:
        return ServerMetrics(served or recipe(), 0, self.ask_stats, self.ask_cards)


Labels = frozenset[tuple[str, str]]


def samples(text: str) -> dict[tuple[str, Labels], float]:
    """The values of a scrape, by name and labels, without the label of the ingress."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "ingress"}
            found[sample.name, frozenset(labels.items())] = sample.value
    return found


def value(text: str, metric: str, **labels: str) -> float | None:
    return samples(text).get((metric, frozenset(labels.items())))


def client(served: Recipe, backend: Any, **more: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_api(served, backend, **more), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


def end(call: Call, text: str = "hi", reason: Any = "stop", **whole: Any) -> None:
    """Answer as a replica does: text, then counts, then the replica's own times."""
    if text:
        call.say(text)
    call._answer.put_nowait(Delta(finish_reason=reason, **whole))
    call._answer.put_nowait(Delta(engine_s=2.0, queue_s=0.5, first_s=0.5, last=True))
    call._answer.put_nowait(None)


async def scraped(http: httpx.AsyncClient, **headers: str) -> str:
    answer = await http.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


@asynccontextmanager
async def answered(
    puppets: Puppets, served: Recipe | None = None, **more: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.Task[httpx.Response]]]:
    """An endpoint, and a request to its mixture whose calls wait for the test."""
    async with client(served or recipe(), puppets, **more) as http:
        yield http, asyncio.create_task(http.post("/v1/chat/completions", json=MIXTURE))


def answers(text: str) -> dict[tuple[str, ...], float]:
    """The answers that were counted, by model, outcome, fallback and method."""
    return {
        (found["model_name"], found["outcome"], found["fallback"], found["method"]): count
        for (name, labels), count in samples(text).items()
        if name == "slimmoa_answers_total" and count
        for found in [dict(labels)]
    }
