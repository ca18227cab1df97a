"""GET /metrics: models, cards and other ingresses, who may read it, and that its series are bounded."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)

from configs.errors import BadRequest
from configs.schema import Recipe
from serve_app.access.api_keys import Key
from serve_app.metrics.cluster import ANSWER_S, FRESH_S
from serve_app.metrics.server_metrics import ServerMetrics
from serve_app.observe import Refused
from tests.unit.serve_app.conftest import MIXTURE, Puppets, recipe
from tests.unit.serve_app.http.scrapes import (
    CARD,
    KEEPER,
    Cluster,
    client,
    samples,
    scraped,
    value,
)

pytestmark = [pytest.mark.virtual_time, pytest.mark.usefixtures("without_threads")]


async def test_models_and_cards_say_what_they_do_at_the_moment_of_the_scrape() -> None:
    cluster = Cluster()
    async with client(recipe(), Puppets(), metrics=cluster.metrics()) as http:
        text = await scraped(http)
    assert value(text, "vllm:num_requests_running", model_name="one") == 4
    assert value(text, "vllm:num_requests_waiting", model_name="one") == 6
    assert value(text, "slimmoa_oldest_wait_seconds", model_name="one") == 1.5
    assert value(text, "slimmoa_replicas", model_name="one") == 2
    card = "01234567:0+1"
    member = {"card": card, "model_name": "one", "engine": "0"}
    assert value(text, "slimmoa_card_bytes", card=card) == 500
    assert value(text, "slimmoa_member_bytes", **member, when="now") == 100
    assert value(text, "slimmoa_member_state", **member, state="resident") == 1
    assert value(text, "slimmoa_member_state", **member, state="asleep") == 0
    assert value(text, "vllm:engine_sleep_state", **member, sleep_state="awake") == 1
    assert value(text, "slimmoa_member_turn_open", **member) == 1
    assert value(text, "slimmoa_orders_total", **member, order="wake") == 3
    assert value(text, "slimmoa_orders_total", **member, order="sleep") == 0
    assert value(text, "slimmoa_step_seconds_total", **member, state="resident") == 7.5
    assert value(text, "slimmoa_up", part="card", name=card) == 1


async def test_a_part_that_does_not_answer_is_left_out_and_named() -> None:
    cluster = Cluster()
    loop = asyncio.get_running_loop()
    async with client(recipe(), Puppets(), metrics=cluster.metrics()) as http:
        await scraped(http)
        cluster.answer_s, cluster.stats = 3600, [None]
        await asyncio.sleep(FRESH_S)
        began = loop.time()
        text = await scraped(http)
        assert loop.time() - began <= ANSWER_S
    assert value(text, "slimmoa_up", part="card", name="01234567:0+1") == 0
    assert value(text, "slimmoa_up", part="model", name="one") == 0
    assert value(text, "slimmoa_replicas", model_name="one") == 0
    assert value(text, "vllm:num_requests_running", model_name="one") is None
    assert "slimmoa_member_state{" not in text
    assert value(text, "slimmoa_card_bytes", card="01234567:0+1") is None
    assert value(text, "vllm:num_requests_running", model_name="mix") == 0


async def test_many_scrapes_cost_the_keepers_one_question_in_a_second() -> None:
    cluster = Cluster()
    async with client(recipe(), Puppets(), metrics=cluster.metrics()) as http:
        await asyncio.gather(*(scraped(http) for _ in range(5)))
        assert cluster.asked == 1
        await asyncio.sleep(FRESH_S)
        await scraped(http)
        assert cluster.asked == 2


async def test_while_a_new_plan_takes_a_card_over_the_keeper_at_work_counts() -> None:
    cluster = Cluster()
    waiting = replace(CARD, members=())
    cluster.cards = {KEEPER: CARD, KEEPER.replace(":aa", ":bb"): waiting}
    async with client(recipe(), Puppets(), metrics=cluster.metrics()) as http:
        text = await scraped(http)
    assert text.count("slimmoa_card_bytes{") == 1
    assert "slimmoa_member_turn_open{" in text


async def test_the_other_ingresses_are_asked_and_each_has_its_number() -> None:
    other = ServerMetrics(recipe(), 1)

    async def ask() -> dict[str, Any]:
        return {"1": other.own(), "2": None}

    metrics = ServerMetrics(recipe(), 0, ask_ingresses=ask)
    async with client(recipe(), Puppets(), metrics=metrics) as http:
        text = await scraped(http)
    running = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running{")]
    assert sorted(re.findall(r'ingress="(\d)"', " ".join(running))) == ["0", "1"]
    assert text.count("# TYPE vllm:prompt_tokens_total") == 1
    ups = [value(text, "slimmoa_up", part="ingress", name=number) for number in "012"]
    assert ups == [1, 1, 0]


async def test_ingresses_that_hang_leave_the_scraped_one_its_own_numbers() -> None:
    async def ask() -> dict[str, Any]:
        await asyncio.sleep(3600)
        raise AssertionError

    metrics = ServerMetrics(recipe(), 0, ask_ingresses=ask)
    async with client(recipe(), Puppets(), metrics=metrics) as http:
        text = await scraped(http)
    assert value(text, "slimmoa_up", part="ingress", name="0") == 1


async def test_openmetrics_is_given_if_asked_for_with_the_same_names() -> None:
    async with client(recipe(), Puppets()) as http:
        text = await scraped(http)
        accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        answer = await http.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    read: Callable[[str], Any] = openmetrics_families
    families = list(read(answer.text))
    found = {sample.name for family in families for sample in family.samples}
    assert found == {name for name, _ in samples(text)}
    assert any(name.startswith("vllm:") for name in found)


async def test_a_scrape_without_compression_is_plain() -> None:
    async with client(recipe(), Puppets()) as http:
        answer = await http.get("/metrics", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in answer.headers
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text.startswith("# HELP ")


def with_access(**access: Any) -> Recipe:
    return Recipe.model_validate(recipe().model_dump(mode="json") | {"access": access})


PROMETHEUS, OTHER = "sk-prometheus-0123456789", "sk-other-0123456789012345"


def keys() -> list[Key]:
    from serve_app.access.api_keys import parse_environment

    return list(parse_environment(f"{PROMETHEUS},{OTHER}"))


@pytest.mark.parametrize(
    ("access", "statuses"),
    [
        ({}, (401, 200, 200)),
        ({"metrics": "open"}, (200, 200, 200)),
        ({"metrics": "off"}, (401, 404, 404)),
        ({"metrics_keys": ["SLIMMOA_API_KEYS[1]"]}, (401, 200, 403)),
    ],
    ids=["keys", "open", "off", "one key"],
)
async def test_the_recipe_says_who_reads_the_numbers(
    access: dict[str, Any], statuses: Sequence[int]
) -> None:
    async with client(with_access(**access), Puppets(), env_keys=keys()) as http:
        headers = [{}, *({"authorization": f"Bearer {key}"} for key in (PROMETHEUS, OTHER))]
        found = [(await http.get("/metrics", headers=each)).status_code for each in headers]
        assert tuple(found) == tuple(statuses)
        assert (await http.get("/v1/models")).status_code == 401


async def test_series_are_bounded_by_names_that_exist() -> None:
    """After ten thousand odd requests there are no more series than after one of each kind."""
    puppets = Puppets()
    kinds: list[dict[str, Any]] = [
        {"content": b"{"},
        {"json": MIXTURE | {"model": "ODD"}},
        {"json": MIXTURE | {"temperature": "ODD"}},
        {"json": {"model": "mix", "messages": [{"role": "ODD", "content": "x"}]}},
        {"json": MIXTURE, "headers": {"x-request-id": "ODD"}},
    ]
    served = with_access(allowance={"concurrency": 1})
    metrics = ServerMetrics(served)
    async with client(served, puppets, metrics=metrics) as http:
        held = asyncio.create_task(http.post("/v1/chat/completions", json=MIXTURE))
        await puppets.call("one")

        async def ask(odd: str) -> None:
            for kind in kinds:
                body = (
                    json.loads(json.dumps(kind["json"]).replace("ODD", odd)) if "json" in kind else None
                )
                await http.post(
                    "/v1/chat/completions",
                    content=kind.get("content"),
                    json=body,
                    headers={"authorization": f"Bearer {odd}", "content-type": "application/json"},
                )
            await http.get(f"/{odd}")

        await ask("first")
        before = set(samples(await scraped(http)))
        for number in range(20):
            await ask(f"odd{number}")
        for number in range(10_000):
            odd = f"odd{number}"
            error = BadRequest(odd, model=odd, param=odd)
            metrics.observer.refuse(Refused(odd, "anyone", odd, f"/{odd}", error, 400))
        text = await scraped(http)
        held.cancel()
    assert set(samples(text)) == before
    assert "odd" not in text
