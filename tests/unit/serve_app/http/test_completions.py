"""Answers in one piece, of the mixture and of its models, also as OpenAI's own client reads them."""

from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion

from configs.errors import EngineError, EngineUnavailable, Overloaded, RequestError
from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import CHAT, HELLO, MIXTURE, Exchange, Puppets, Scripted, recipe

Ask = Callable[..., Exchange]


async def completion(http: httpx.AsyncClient, **fields: Any) -> ChatCompletion:
    response = await http.post(CHAT, json=MIXTURE | fields)
    assert response.status_code == 200
    assert response.headers["x-slimmoa-degraded"] == "false"
    return ChatCompletion.model_validate(response.json(), strict=True)


def extra(thing: Any, name: str) -> Any:
    """A field that OpenAI's object does not have."""
    return thing.model_extra[name]


async def test_the_mixture_answers_with_the_aggregators_text(http: httpx.AsyncClient) -> None:
    answer = await completion(http)
    (choice,) = answer.choices
    assert (answer.object, answer.model, choice.finish_reason) == ("chat.completion", "mix", "stop")
    assert answer.id.startswith("chatcmpl-")
    assert (choice.message.role, choice.message.refusal) == ("assistant", None)
    assert answer.system_fingerprint == "slimmoa"
    assert len((choice.message.content or "").split()) == 6
    moa = extra(answer, "moa")
    assert (moa["type"], moa["answered_by"], moa["degraded"], moa["missing"]) == (
        "summary",
        "writer",
        False,
        [],
    )
    assert [stage["stage"] for stage in moa["stages"]] == ["layer 1", "aggregator"]
    assert "proposals" not in moa


@pytest.mark.parametrize("choice", [None, "auto", "none"])
async def test_tools_that_may_be_left_are_left_and_the_answer_says_so(
    http: httpx.AsyncClient, choice: str | None
) -> None:
    tools = [{"type": "function", "function": {"name": "clock", "parameters": {}}}]
    answer = await completion(http, seed=1, tools=tools, tool_choice=choice)
    assert extra(answer, "moa")["ignored"] == ["tools"]
    without = await completion(http, seed=1, tools=[])
    assert answer.choices == without.choices
    assert "ignored" not in extra(without, "moa")


async def test_usage_is_that_of_the_answer_and_the_sums_of_all_calls_stand_beside_it(
    http: httpx.AsyncClient,
) -> None:
    usage = (await completion(http)).usage
    alone = (await completion(http, model="one")).usage
    assert usage is not None
    assert alone is not None
    # As with one model: a client reads from these how full the context is.
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (2, 6, 8)
    assert (alone.prompt_tokens, alone.completion_tokens, alone.total_tokens) == (2, 6, 8)
    rows = {row["model"]: row for row in extra(usage, "by_model")}
    assert {model: (row["role"], row["calls"]) for model, row in rows.items()} == {
        "one": ("proposer", 1),
        "two": ("proposer", 1),
        "writer": ("aggregator", 1),
    }
    assert [row["completion_tokens"] for row in rows.values()] == [6, 6, 6]
    read = sum(row["prompt_tokens"] for row in rows.values())
    assert extra(usage, "all_calls") == {
        "prompt_tokens": read,
        "completion_tokens": 18,
        "total_tokens": read + 18,
    }
    assert rows["writer"]["prompt_tokens"] > rows["one"]["prompt_tokens"] == 2


async def test_proposals_come_with_the_answer_where_asked_for(http: httpx.AsyncClient) -> None:
    answer = await completion(http, moa={"events": True})
    proposals = extra(answer, "moa")["proposals"]
    assert sorted(p["model"] for p in proposals) == ["one", "two"]
    assert all(len(p["text"].split()) == p["completion_tokens"] == 6 for p in proposals)


async def test_the_requests_sampling_reaches_the_aggregator_only(
    http: httpx.AsyncClient, scripted: Scripted
) -> None:
    await completion(http, temperature=0.1, top_p=0.2, max_tokens=3, stop=["zz"], presence_penalty=1)
    asked = {model: sampling for model, _, sampling in scripted.asked}
    base = recipe()
    assert asked["one"] == base.layers[0].proposers[0].sampling
    said = {"temperature": 0.1, "top_p": 0.2, "max_tokens": 3, "stop": ("zz",), "presence_penalty": 1.0}
    assert asked["writer"] == base.aggregator.sampling.model_copy(update=said)


async def test_max_tokens_ends_the_answer_with_length(http: httpx.AsyncClient) -> None:
    (choice,) = (await completion(http, max_completion_tokens=2)).choices
    assert choice.finish_reason == "length"
    assert len((choice.message.content or "").split()) == 2


async def test_the_same_seed_gives_the_same_answer(http: httpx.AsyncClient) -> None:
    first, again, other = [await completion(http, seed=seed) for seed in (7, 7, 8)]
    assert first.choices == again.choices
    assert first.choices != other.choices
    assert first.id != again.id
    assert extra(first, "moa")["seed"] == 7


async def test_a_model_asked_directly_answers_alone(
    http: httpx.AsyncClient, scripted: Scripted
) -> None:
    answer = await completion(http, model="one")
    assert answer.model == "one"
    assert [(model, list(messages)) for model, messages, _ in scripted.asked] == [("one", HELLO)]
    assert extra(answer.usage, "by_model")[0]["role"] == "direct"
    assert answer.choices[0].logprobs is None


@pytest.mark.parametrize("top", [0, 1])
async def test_a_model_asked_directly_gives_logprobs(http: httpx.AsyncClient, top: int) -> None:
    (choice,) = (await completion(http, model="one", logprobs=True, top_logprobs=top)).choices
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert "".join(token.token for token in tokens) == choice.message.content
    assert {len(token.top_logprobs) for token in tokens} == {top}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (EngineError("it broke", model="one"), 502, "server_error", "engine_error"),
        (EngineUnavailable("it is gone", model="one"), 503, "server_error", "engine_unavailable"),
        (Overloaded("it is busy", model="one"), 429, "rate_limit_error", "overloaded"),
    ],
    ids=lambda value: str(value)[:12],
)
async def test_a_failure_before_the_first_token_keeps_its_status_and_names_the_model(
    puppets: Puppets, ask: Ask, error: RequestError, status: int, kind: str, code: str, stream: bool
) -> None:
    exchange = ask(model="one", stream=stream)
    (await puppets.call("one")).fail(error)
    start = await exchange.start()
    assert start["status"] == status
    assert ((b"retry-after", b"1") in start["headers"]) == (status in (429, 503))
    body = await exchange.whole()
    assert body["error"].pop("request_id")
    assert body["error"] == {
        "message": error.message,
        "type": kind,
        "param": None,
        "code": code,
        "model": "one",
    }


async def test_a_mixture_without_quorum_names_every_cause(puppets: Puppets, ask: Ask) -> None:
    exchange = ask()
    (await puppets.call("one")).fail(EngineError("it broke", model="one"))
    (await puppets.call("two")).end()
    assert (await exchange.start())["status"] == 503
    body = await exchange.whole()
    assert body["error"]["code"] == "quorum_not_met"
    assert "one: engine_error: it broke" in body["error"]["message"]
    assert "two: empty: " in body["error"]["message"]


async def test_an_answer_without_all_proposers_is_degraded_and_says_why(
    puppets: Puppets, ask: Ask
) -> None:
    exchange = ask()
    (await puppets.call("one")).fail(EngineError("it broke", model="one"))
    await puppets.answer("two")
    await puppets.answer("writer")
    assert (b"x-slimmoa-degraded", b"true") in (await exchange.start())["headers"]
    body = await exchange.whole()
    assert body["choices"][0]["message"]["content"] == "by writer"
    assert body["moa"]["degraded"] is True
    assert body["system_fingerprint"] == "slimmoa-degraded"
    assert body["moa"]["missing"] == [
        {"layer": 1, "model": "one", "cause": "engine_error", "detail": "it broke"}
    ]


async def test_a_defect_is_an_internal_error_that_does_not_tell_its_text(
    puppets: Puppets, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = ask(model="one")
    (await puppets.call("one")).fail(RuntimeError("secret"))
    assert (await exchange.start())["status"] == 500
    body = await exchange.whole()
    assert body["error"]["code"] == "internal_error"
    assert "RuntimeError" in body["error"]["message"]
    assert "secret" not in body["error"]["message"]
    await exchange.app
    assert "RuntimeError at" in caplog.text
    assert "conftest.py" in caplog.text
    assert 'RuntimeError("secret")' not in caplog.text


async def test_openais_client_gets_its_types(scripted: Scripted, listen: Callable[..., Any]) -> None:
    client: openai.AsyncOpenAI = await listen(create_api(recipe(), scripted))
    answer = await client.chat.completions.create(
        model="mix", messages=[{"role": "user", "content": "x"}]
    )
    assert len((answer.choices[0].message.content or "").split()) == 6
    # What was answered can be sent back as it is.
    messages: Any = [*HELLO, answer.choices[0].message, *HELLO]
    again = await client.chat.completions.create(model="mix", messages=messages)
    assert again.usage is not None
    assert [model.id async for model in client.models.list()] == ["mix", "one", "two", "writer"]


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"n": 2}, openai.BadRequestError, "n"),
        ({"model": "gpt-4o"}, openai.NotFoundError, "model"),
    ],
)
async def test_openais_client_raises_its_errors(
    scripted: Scripted,
    listen: Callable[..., Any],
    fields: dict[str, Any],
    error: type[openai.APIStatusError],
    param: str,
) -> None:
    client: openai.AsyncOpenAI = await listen(create_api(recipe(), scripted))
    with pytest.raises(error) as caught:
        await client.chat.completions.create(**(MIXTURE | fields))
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
