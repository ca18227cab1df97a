"""GET /metrics: what it counts, who may read it, and that its series are bounded."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from actors.engine import Delta
from actors.keeper.card_report import CardReport, MemberReport
from actors.replica import ReplicaStats
from cluster.residency.state import State, TurnState
from configs.errors import BadRequest, EngineError, EngineUnavailable
from configs.schema import Recipe
from serve_app.access.api_keys import Key
from serve_app.http.api import create_api
from serve_app.metrics import names
from serve_app.metrics.cluster import ANSWER_S, FRESH_S
from serve_app.metrics.names import sample_names
from serve_app.metrics.server_metrics import ServerMetrics
from serve_app.observe import Refused
from tests.unit.serve_app.conftest import MIXTURE, Call, Exchange, Puppets, recipe

pytestmark = pytest.mark.virtual_time
GRAFANA = Path(__file__).parents[4] / "docs" / "grafana"
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


@pytest.fixture(autouse=True)
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what runs in threads run at once: the virtual clock knows nothing of threads."""

    async def run(work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", run)


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


async def test_a_call_counts_under_vllms_names_with_the_times_of_its_replica() -> None:
    puppets = Puppets()
    async with answered(puppets) as (http, asked):
        for model in ("one", "two", "writer"):
            call = await puppets.call(model)
            end(call, prompt_tokens=10, completion_tokens=4, cached_tokens=6)
        assert (await asked).status_code == 200
        text = await scraped(http)
    for name, expected in {
        "vllm:prompt_tokens_total": 10,
        "vllm:prompt_tokens_cached_total": 6,
        "vllm:generation_tokens_total": 4,
        "vllm:time_to_first_token_seconds_sum": 1.0,
        "vllm:e2e_request_latency_seconds_sum": 2.5,
        "vllm:request_queue_time_seconds_sum": 0.5,
        "vllm:request_prefill_time_seconds_sum": 0.5,
        "vllm:request_decode_time_seconds_sum": 1.5,
        "vllm:request_time_per_output_token_seconds_sum": 0.5,
        "vllm:request_prompt_tokens_count": 1,
    }.items():
        assert value(text, name, model_name="writer") == expected, name
    assert value(text, "vllm:request_success_total", model_name="one", finished_reason="stop") == 1
    assert value(text, "slimmoa_key_tokens_total", key="anyone") == 42
    assert value(text, "slimmoa_key_requests_total", key="anyone") == 1


async def test_the_mixture_counts_as_its_client_sees_it() -> None:
    puppets = Puppets()
    async with answered(puppets) as (http, asked):
        one, two = await puppets.call("one"), await puppets.call("two")
        await asyncio.sleep(1)
        end(one, prompt_tokens=10, completion_tokens=4)
        await asyncio.sleep(3)
        assert value(await scraped(http), "vllm:num_requests_running", model_name="mix") == 1
        end(two, prompt_tokens=12, completion_tokens=4)
        writer = await puppets.call("writer")
        await asyncio.sleep(2)
        writer.say("a")
        await asyncio.sleep(4)
        end(writer, prompt_tokens=40, completion_tokens=5)
        await asked
        text = await scraped(http)
    for name, expected in {
        "vllm:num_requests_running": 0,
        "vllm:e2e_request_latency_seconds_sum": 10,
        "vllm:time_to_first_token_seconds_sum": 6,
        "vllm:request_time_per_output_token_seconds_sum": 1,
        "vllm:prompt_tokens_total": 12,
        "vllm:generation_tokens_total": 5,
        "slimmoa_ttft_after_last_proposal_seconds_sum": 2,
    }.items():
        assert value(text, name, model_name="mix") == pytest.approx(expected), name
    assert value(text, "slimmoa_stage_seconds_sum", model_name="mix", stage="layer 1") == 4
    assert value(text, "slimmoa_stage_seconds_sum", model_name="mix", stage="aggregator") == 6
    assert value(text, "slimmoa_straggler_wait_seconds_sum", layer="1") == 3
    assert answers(text) == {("mix", "ok", "none"): 1}


def answers(text: str) -> dict[tuple[str, str, str], float]:
    """The answers that were counted, by model, outcome and fallback."""
    return {
        (found["model_name"], found["outcome"], found["fallback"]): count
        for (name, labels), count in samples(text).items()
        if name == "slimmoa_answers_total" and count
        for found in [dict(labels)]
    }


async def test_a_proposal_is_counted_with_what_became_of_it() -> None:
    puppets = Puppets()
    served = recipe(layer_deadline_s=5)
    async with answered(puppets, served) as (http, asked):
        one = await puppets.call("one")
        await puppets.call("two")  # late
        end(one, prompt_tokens=1, completion_tokens=1)
        end(await puppets.call("writer"), prompt_tokens=1, completion_tokens=1)
        await asked
        text = await scraped(http)
    found = {"metric": "slimmoa_proposals_total", "layer": "1"}
    assert value(text, **found, model_name="one", outcome="done") == 1
    assert value(text, **found, model_name="two", outcome="late") == 1
    assert value(text, "slimmoa_aggregations_total", model_name="writer", outcome="done") == 1
    assert answers(text) == {("mix", "degraded", "none"): 1}


async def test_a_proposal_that_is_dropped_after_its_end_counts_once() -> None:
    data = recipe(quorum=2).model_dump(mode="json")
    data["layers"].append(data["layers"][0])
    puppets = Puppets()
    async with answered(puppets, Recipe.model_validate(data)) as (http, asked):
        for model in ("one", "two", "one"):
            await puppets.answer(model)
        (await puppets.call("two")).fail(EngineError("it broke"))
        await puppets.answer("writer")
        await asked
        text = await scraped(http)
    second = {"metric": "slimmoa_proposals_total", "layer": "2"}
    assert value(text, **second, model_name="one", outcome="quorum_not_met") == 1
    assert value(text, **second, model_name="one", outcome="done") == 0
    assert value(text, **second, model_name="two", outcome="engine_error") == 1


async def test_a_call_that_gives_nothing_usable_and_one_that_is_made_again_are_counted() -> None:
    class Living(Puppets):
        async def is_alive(self, _model: str) -> bool:
            return True

    puppets = Living()
    async with answered(puppets) as (http, asked):
        end(await puppets.call("one"), text="", prompt_tokens=3, completion_tokens=0)
        (await puppets.call("two")).fail(EngineUnavailable("gone", model="two"))
        await puppets.answer("two")
        (await puppets.call("writer")).fail(EngineError("it broke", model="writer"))
        await asked
        text = await scraped(http)
    assert value(text, "slimmoa_unused_tokens_total", model_name="one") == 3
    assert value(text, "slimmoa_retries_total", model_name="two") == 1
    aggregation = {"metric": "slimmoa_aggregations_total", "model_name": "writer"}
    assert value(text, **aggregation, outcome="engine_error") == 1
    assert answers(text) == {("mix", "degraded", "reference"): 1}


async def test_a_request_that_a_route_gives_to_one_model_counts_there() -> None:
    route = {"model": "one", "begins": ["Write a title for this"]}
    served = Recipe.model_validate(recipe().model_dump(mode="json") | {"routes": [route]})
    puppets = Puppets()
    title = [{"role": "user", "content": "Write a title for this chat"}]
    async with client(served, puppets) as http:
        body = MIXTURE | {"messages": title}
        asked = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        await puppets.answer("one")
        assert (await asked).status_code == 200
        text = await scraped(http)
    assert answers(text) == {("one", "ok", "none"): 1}


async def test_the_labels_of_proposals_that_a_client_gives_are_in_no_series() -> None:
    puppets = Puppets()
    async with client(recipe(), puppets) as http:
        fuse = {"proposals": [{"model": "whoever", "text": "text"}]}
        body = MIXTURE | {"moa": {"fuse": fuse}}
        asked = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        (await puppets.call("writer")).fail(EngineError("it broke", model="writer"))
        assert (await asked).status_code == 200
        text = await scraped(http)
    assert answers(text) == {("mix", "degraded", "reference"): 1}
    assert "whoever" not in text


async def test_an_answer_that_fails_counts_under_the_errors_code() -> None:
    puppets = Puppets()
    async with answered(puppets) as (http, asked):
        for model in ("one", "two"):
            (await puppets.call(model)).fail(EngineError("it broke", model=model))
        assert (await asked).status_code == 503
        text = await scraped(http)
    assert answers(text) == {("mix", "quorum_not_met", "none"): 1}
    found = {"metric": "slimmoa_proposals_total", "layer": "1", "outcome": "engine_error"}
    assert value(text, **found, model_name="two") == 1


async def test_a_client_that_leaves_is_counted_as_such() -> None:
    puppets = Puppets()
    api = create_api(recipe(), puppets)
    answer = Exchange(api, MIXTURE)
    await puppets.call("one")
    answer.leave()
    await answer.app
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        text = await scraped(http)
    assert answers(text) == {("mix", "left", "none"): 1}
    assert value(text, "vllm:num_requests_running", model_name="mix") == 0


async def test_refusals_count_by_code_and_those_of_a_key_by_its_name() -> None:
    served = recipe()
    data = served.model_dump(mode="json")
    data["access"] = {"allowance": {"requests_per_minute": 1}}
    puppets = Puppets()
    async with answered(puppets, Recipe.model_validate(data)) as (http, asked):
        for model in ("one", "two", "writer"):
            await puppets.answer(model)
        await asked
        for _ in range(2):
            assert (await http.post("/v1/chat/completions", json=MIXTURE)).status_code == 429
        assert (await http.get("/v1/nothing")).status_code == 404
        text = await scraped(http)
    found = {"metric": "slimmoa_refusals_total"}
    assert value(text, **found, reason="rate_limit_exceeded", status="429") == 2
    assert value(text, **found, reason="invalid_request", status="404") == 1
    over = {"metric": "slimmoa_key_refusals_total", "reason": "rate_limit_exceeded"}
    assert value(text, **over, key="anyone") == 2


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


def used_names(value: Any) -> set[str]:
    """The names of metrics in the expressions of a board or of alert rules."""
    if isinstance(value, dict):
        text = value.get("expr")
        own = (
            set(re.findall(r"\b(?:vllm:|slimmoa_|process_)\w+", text))
            if isinstance(text, str)
            else set()
        )
        return own | used_names(list(value.values()))
    if isinstance(value, list):
        return set().union(*map(used_names, value))
    return set()


BOARD = json.loads((GRAFANA / "slimmoa.json").read_text("utf-8"))
ALERTS = yaml.safe_load((GRAFANA / "alerts.yaml").read_text("utf-8"))


@pytest.mark.parametrize("source", [BOARD, ALERTS], ids=["board", "alerts"])
async def test_every_metric_of_the_board_and_of_the_alerts_is_there(source: Any) -> None:
    puppets = Puppets()
    async with answered(puppets, metrics=Cluster().metrics()) as (http, asked):
        for model in ("one", "two", "writer"):
            await puppets.answer(model)
        await asked
        found = {name for name, _ in samples(await scraped(http))}
    # A key has no refusals before the first one.
    assert used_names(source) - found <= {"slimmoa_key_refusals_total"}
    assert used_names(source)


async def test_the_metrics_are_those_that_are_described() -> None:
    puppets = Puppets()
    async with answered(puppets, metrics=Cluster().metrics()) as (http, asked):
        for model in ("one", "two", "writer"):
            await puppets.answer(model)
        await asked
        found = {name for name, _ in samples(await scraped(http))}
    described = {s for named in (*names.OF_INGRESSES, *names.OF_ALL) for s in sample_names(named)}
    assert {name for name in found if not name.startswith("process_")} == described - {
        "slimmoa_key_refusals_total"
    }


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_the_board_has_its_rows_and_panels_as_grafana_wants_them() -> None:
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Answers", "Proposals", "Card and turns", "Engines", "Door"]
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(BOARD):
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])
    taken = set[tuple[int, int]]()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    used = set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(BOARD)))
    assert used == {variable["name"] for variable in BOARD["templating"]["list"]}


def test_the_row_of_engines_has_vllms_names_alone() -> None:
    """So the row also shows a bare vLLM server."""
    rows = [panel["title"] if panel["type"] == "row" else panel for panel in BOARD["panels"]]
    engines = rows[rows.index("Engines") + 1 : rows.index("Door")]
    assert all(name.startswith("vllm:") for name in used_names(engines))


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["do"].endswith(".")
    tested = yaml.safe_load((GRAFANA / "alerts_test.yaml").read_text("utf-8"))["tests"]
    names_tested = {t["alertname"] for test in tested for t in test["alert_rule_test"]}
    assert names_tested == {rule["alert"] for rule in rules}
