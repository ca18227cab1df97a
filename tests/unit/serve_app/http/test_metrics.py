"""GET /metrics: what is counted of answers, calls, proposals and refusals."""

import asyncio

import httpx
import pytest

from configs.errors import EngineError, EngineUnavailable
from configs.schema import Recipe
from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import MIXTURE, Exchange, Puppets, recipe
from tests.unit.serve_app.http.scrapes import (
    answered,
    answers,
    client,
    end,
    scraped,
    value,
)

pytestmark = [pytest.mark.virtual_time, pytest.mark.usefixtures("without_threads")]


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
    assert answers(text) == {("mix", "ok", "none", "merge"): 1}


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
    assert answers(text) == {("mix", "degraded", "none", "merge"): 1}


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
    assert answers(text) == {("mix", "degraded", "reference", "stand_in"): 1}


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
    assert answers(text) == {("one", "ok", "none", "direct"): 1}


async def test_the_labels_of_proposals_that_a_client_gives_are_in_no_series() -> None:
    puppets = Puppets()
    async with client(recipe(), puppets) as http:
        fuse = {"proposals": [{"model": "whoever", "text": "text"}]}
        body = MIXTURE | {"moa": {"fuse": fuse}}
        asked = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        (await puppets.call("writer")).fail(EngineError("it broke", model="writer"))
        assert (await asked).status_code == 200
        text = await scraped(http)
    assert answers(text) == {("mix", "degraded", "reference", "stand_in"): 1}
    assert "whoever" not in text


async def test_an_answer_that_fails_counts_under_the_errors_code() -> None:
    puppets = Puppets()
    async with answered(puppets) as (http, asked):
        for model in ("one", "two"):
            (await puppets.call(model)).fail(EngineError("it broke", model=model))
        assert (await asked).status_code == 503
        text = await scraped(http)
    assert answers(text) == {("mix", "quorum_not_met", "none", "none"): 1}
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
    assert answers(text) == {("mix", "left", "none", "none"): 1}
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
