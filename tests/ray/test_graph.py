"""The Serve graph with scripted engines: errors, limits and faults across real processes."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, cast

import httpx
import openai
import pytest
import ray
from ray import serve

from configs.load import load
from configs.schema import Recipe
from tests.conftest import Endpoint, Serving

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def endpoint(serving: Serving) -> Iterator[Endpoint]:
    recipe = Recipe.model_validate(
        {
            "name": "mix",
            "models": {
                "quick": {"engine": "scripted", "tokens": 8},
                "broken": {"engine": "scripted", "fail_share": 1},
                "narrow": {"engine": "scripted", "context_tokens": 128, "tokens": 8},
                "busy": {"engine": "scripted", "concurrency": 1, "first_token_s": 600},
                "writer": {"engine": "scripted", "tokens": 40, "token_s": 0.01},
            },
            "layers": [
                {
                    "proposers": [
                        {"model": "quick"},
                        {"model": "broken"},
                        {"model": "narrow", "sampling": {"max_tokens": 32}},
                    ]
                }
            ],
            "aggregator": {"model": "writer", "sampling": {"max_tokens": 64}},
            "limits": {"queue": 1, "keepalive_s": 0.2},
        }
    )
    with serving(recipe) as served:
        yield served


def test_a_failing_proposer_is_named_and_its_error_is_no_proposal(endpoint: Endpoint) -> None:
    answer = endpoint.client().chat.completions.create(
        model="mix", messages=HELLO, extra_body={"moa": {"events": True}}
    )
    assert answer.choices[0].message.content
    assert answer.moa["degraded"] is True
    assert [(m["model"], m["cause"]) for m in answer.moa["missing"]] == [("broken", "engine_error")]
    assert {p["model"] for p in answer.moa["proposals"]} == {"quick", "narrow"}


def test_a_proposer_that_cannot_hold_the_conversation_sits_out(endpoint: Endpoint) -> None:
    messages = [{"role": "user", "content": "word " * 200}]
    answer = endpoint.client().chat.completions.create(model="mix", messages=messages)
    causes = {m["model"]: m["cause"] for m in answer.moa["missing"]}
    assert causes == {"broken": "engine_error", "narrow": "context_length_exceeded"}


def test_errors_keep_their_class_and_model_on_the_way_between_processes(endpoint: Endpoint) -> None:
    client = endpoint.client()
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="broken", messages=HELLO)
    assert failed.value.status_code == 502
    assert cast("dict[str, Any]", failed.value.body)["model"] == "broken"
    assert "Traceback" not in failed.value.message
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(
            model="narrow", messages=[{"role": "user", "content": "word " * 200}], max_tokens=32
        )
    assert too_long.value.code == "context_length_exceeded"
    assert "narrow" in too_long.value.message


def test_calls_beyond_the_queue_are_refused_at_once(endpoint: Endpoint) -> None:
    client = endpoint.client()
    with ExitStack() as held:
        for _ in range(2):  # one runs, one waits; each stream opens with its first keep-alive
            stream = client.chat.completions.create(model="busy", messages=HELLO, stream=True)
            held.enter_context(closing(stream))
        now = endpoint.stats("busy")
        assert (now.in_flight, now.waiting) == (1, 1)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="busy", messages=HELLO)
        assert refused.value.response.headers["retry-after"]
        assert cast("dict[str, Any]", refused.value.body)["model"] == "busy"
    closed = time.monotonic()
    while endpoint.stats("busy").in_flight or endpoint.stats("busy").waiting:
        assert time.monotonic() - closed < 1


def test_a_dead_replica_degrades_answers_and_comes_back(endpoint: Endpoint) -> None:
    client = endpoint.client()
    actors = ray.util.list_named_actors(all_namespaces=True)
    (name,) = [a["name"] for a in actors if "model-quick" in a["name"]]
    ray.kill(ray.get_actor(name, namespace="serve"))
    answer = client.chat.completions.create(model="mix", messages=HELLO)
    assert answer.choices[0].message.content
    missing = {m["model"] for m in answer.moa["missing"]}
    while "quick" in missing:  # until Serve has replaced the replica; the test's timeout bounds it
        answer = client.chat.completions.create(model="mix", messages=HELLO)
        assert answer.choices[0].message.content
        missing = {m["model"] for m in answer.moa["missing"]}
    assert missing == {"broken"}


def test_readiness_names_each_model(endpoint: Endpoint) -> None:
    said = httpx.get(f"{endpoint.base_url}/readyz")
    assert said.status_code == 200
    assert said.json() == {"ready": True, "models": dict.fromkeys(endpoint.recipe.models, "ready")}


@pytest.mark.parametrize("phase", ["proposers", "aggregator"])
def test_closing_the_stream_stops_every_engine_within_a_second(serving: Serving, phase: str) -> None:
    slow = {"engine": "scripted", "tokens": 100_000, "token_s": 0.01, "context_tokens": 1_000_000}
    proposer = slow if phase == "proposers" else slow | {"tokens": 8}
    recipe = Recipe.model_validate(
        {
            "name": "mix",
            "models": {"one": proposer, "two": proposer, "writer": slow},
            "layers": [
                {"proposers": [{"model": m, "sampling": {"max_tokens": 9999}} for m in ("one", "two")]}
            ],
            "aggregator": {"model": "writer", "sampling": {"max_tokens": 9999}},
        }
    )
    working = ("one", "two") if phase == "proposers" else ("writer",)
    with serving(recipe) as served:
        stream = served.client().chat.completions.create(
            model="mix", messages=HELLO, stream=True, extra_body={"moa": {"events": True}}
        )
        with closing(stream):
            while not all(served.stats(model).in_flight for model in working):
                next(stream)
        closed = time.monotonic()
        while any(served.stats(model).in_flight for model in recipe.models):
            assert time.monotonic() - closed < 1
        assert [served.stats(model).cancelled for model in working] == [1] * len(working)


def test_faulty_proposers_never_cost_an_answer_or_its_deadline(serving: Serving) -> None:
    """One of three proposers fails 20% of its calls and another hangs in 5%: see the preset."""
    recipe = load("scripted")
    limits = recipe.limits
    with serving(recipe) as served:
        client = served.async_client()

        async def ask(n: int) -> tuple[float, dict[str, Any]]:
            began = time.monotonic()
            answer = await client.chat.completions.create(
                model=recipe.name, messages=[{"role": "user", "content": f"question {n}"}]
            )
            assert answer.choices[0].message.content
            return time.monotonic() - began, answer.moa

        async def all_of_them() -> list[tuple[float, dict[str, Any]]]:
            slots = asyncio.Semaphore(16)

            async def one(n: int) -> tuple[float, dict[str, Any]]:
                async with slots:
                    return await ask(n)

            return await asyncio.gather(*(one(n) for n in range(200)))

        answers = asyncio.run(all_of_them())
        assert max(seconds for seconds, _ in answers) <= limits.deadline_s
        missing = [(m["model"], m["cause"]) for _, moa in answers for m in moa["missing"]]
        failed, hung = missing.count(("failing", "engine_error")), missing.count(("hanging", "late"))
        assert len(missing) == failed + hung
        assert failed == served.stats("failing").failed
        assert hung == served.stats("hanging").cancelled
        assert 20 <= failed <= 60
        assert 2 <= hung <= 25
        degraded = [moa["degraded"] for _, moa in answers]
        assert degraded == [bool(moa["missing"]) for _, moa in answers]


def test_serve_refuses_a_graph_without_a_recipe_before_it_deploys_anything() -> None:
    from serve_app.app import BuildArgs

    both = {"config": "tiny_cpu", "recipe": load("scripted").model_dump()}
    for arguments in ({}, both, {"conf": "x"}):
        with pytest.raises(ValueError, match=r"config|conf"):
            BuildArgs.model_validate(arguments)
    assert "default" not in serve.status().applications
