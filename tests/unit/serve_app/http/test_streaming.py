"""Streams: what is sent, and when. The tests hold the engines back to prove the order."""

from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from configs.errors import EngineError
from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import MIXTURE, Call, Exchange, Puppets, Scripted, recipe

Ask = Callable[..., Exchange]

STARTED = {"type": "stage.started", "stage": "layer 1", "models": ["one", "two"], "references": []}


def content(chunk: dict[str, Any]) -> str | None:
    return chunk["choices"][0]["delta"].get("content") if chunk["choices"] else None


async def open_stream(ask: Ask, **fields: Any) -> Exchange:
    """Open a stream and read its role chunk, and the beginning of the first layer if it is shown."""
    exchange = ask(stream=True, **fields)
    assert (await exchange.start())["status"] == 200
    role, *shown = await exchange.events()
    if fields.get("moa") and not shown:
        shown = await exchange.events()
    assert [event["moa"] for event in shown] == (
        [STARTED | {"at_s": shown[0]["moa"]["at_s"]}] if fields.get("moa") else []
    )
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    return exchange


async def open_until_aggregator(puppets: Puppets, ask: Ask, **fields: Any) -> tuple[Exchange, Call]:
    """Open a stream and complete its proposals; return it with the aggregator's call."""
    exchange = await open_stream(ask, **fields)
    await puppets.answer("one")
    await puppets.answer("two")
    return exchange, await puppets.call("writer")


async def test_the_role_comes_before_any_proposer_has_said_anything(ask: Ask) -> None:
    exchange = ask(stream=True)
    start = await exchange.start()
    headers = dict(start["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"no-cache"
    assert headers[b"x-accel-buffering"] == b"no"
    (role,) = await exchange.events()
    assert role["choices"][0]["delta"]["role"] == "assistant"


async def test_a_silent_mixture_is_kept_alive(puppets: Puppets, ask: Ask) -> None:
    exchange = await open_stream(ask, limits={"keepalive_s": 0.001})
    assert [await exchange.events() for _ in range(3)] == [["keep-alive"]] * 3
    for model in ("one", "two", "writer"):
        await puppets.answer(model)
    rest = [event for event in await exchange.rest() if event != "keep-alive"]
    assert [content(event) for event in rest[:-1]] == ["by writer", None]


@pytest.mark.parametrize("model", ["mix", "one"])
async def test_each_token_arrives_before_the_next_is_written(
    puppets: Puppets, ask: Ask, model: str
) -> None:
    if model == "mix":
        exchange, call = await open_until_aggregator(puppets, ask)
    else:
        exchange = ask(stream=True, model="one")
        call = await puppets.call("one")
        call.say("first ")
        await exchange.start()
        role, first = await exchange.events()
        assert role["choices"][0]["delta"]["role"] == "assistant"
        assert content(first) == "first "
    for text in ("some ", "more ", "words"):
        call.say(text)
        (chunk,) = await exchange.events()
        assert content(chunk) == text
    call.end()
    (last, done) = await exchange.rest()
    assert last["choices"][0]["finish_reason"] == "stop"
    assert done == "[DONE]"


async def test_every_chunk_is_openais_and_only_the_last_has_moa_and_none_has_usage(
    puppets: Puppets, ask: Ask
) -> None:
    exchange, call = await open_until_aggregator(puppets, ask)
    call.say("text")
    call.end()
    *chunks, _done = await exchange.rest()
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
        assert chunk["object"] == "chat.completion.chunk"
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert [chunk.get("moa", {}).get("type") for chunk in chunks] == [None, "summary"]
    assert [chunk.get("system_fingerprint") for chunk in chunks] == [None, "slimmoa"]
    assert all("usage" not in chunk for chunk in chunks)


async def test_usage_where_asked_for_is_in_a_last_chunk_and_null_before(
    puppets: Puppets, ask: Ask
) -> None:
    exchange, call = await open_until_aggregator(puppets, ask, stream_options={"include_usage": True})
    call.say("text")
    call.end(prompt_tokens=30, completion_tokens=1)
    *chunks, usage, _done = await exchange.rest()
    assert [chunk["usage"] for chunk in chunks] == [None] * len(chunks)
    assert usage["choices"] == []
    total = {key: usage["usage"][f"{key}_tokens"] for key in ("prompt", "completion", "total")}
    assert total == {"prompt": 10, "completion": 1, "total": 11}
    assert usage["usage"]["all_calls"] == {
        "prompt_tokens": 50,
        "completion_tokens": 5,
        "total_tokens": 55,
    }
    rows = usage["usage"]["by_model"]
    assert {row["model"]: row["completion_tokens"] for row in rows} == {"one": 2, "two": 2, "writer": 1}


async def test_proposals_are_shown_as_they_grow_where_asked_for(puppets: Puppets, ask: Ask) -> None:
    exchange = await open_stream(ask, moa={"events": True})
    one, two = await puppets.call("one"), await puppets.call("two")
    for text in ("it ", "grows"):
        one.say(text)
        (event,) = await exchange.events()
        assert event["choices"] == []
        assert event["moa"] == {
            "type": "proposal.delta",
            "layer": 1,
            "place": 0,
            "model": "one",
            "text": text,
        }
    one.end(completion_tokens=2)
    (done,) = await exchange.events()
    assert (done["moa"]["type"], done["moa"]["text"]) == ("proposal.done", "it grows")
    assert done["moa"]["completion_tokens"] == 2
    assert 0 <= done["moa"]["first_s"] <= done["moa"]["seconds"]
    two.fail(EngineError("it broke", model="two"))
    (dropped,) = await exchange.events()
    assert dropped["moa"] == {
        "type": "proposal.dropped",
        "place": 1,
        "layer": 1,
        "model": "two",
        "cause": "engine_error",
        "detail": "it broke",
        "seconds": dropped["moa"]["seconds"],
    }
    stage, last_stage = await exchange.events()
    assert (stage["moa"]["type"], stage["moa"]["stage"]) == ("stage.done", "layer 1")
    assert last_stage["moa"]["references"] == [{"layer": 1, "place": 0}]
    assert last_stage["moa"]["models"] == ["writer"]
    await puppets.answer("writer")
    *events, last, _done = await exchange.rest()
    assert [event.get("moa", {}).get("stage") for event in events] == [None, "aggregator"]
    assert last["moa"]["type"] == "summary"
    assert last["moa"]["degraded"] is True
    for event in (done, dropped, stage, *events, last):
        ChatCompletionChunk.model_validate(event, strict=True)


async def test_a_proposer_that_thinks_says_so_where_asked_for_and_not_what(
    puppets: Puppets, ask: Ask
) -> None:
    exchange = await open_stream(ask, moa={"events": True})
    one, two = await puppets.call("one"), await puppets.call("two")
    one.think("a secret")
    (thinks,) = await exchange.events()
    one.think(" thought")
    one.say("aloud")
    (grows,) = await exchange.events()
    assert thinks["choices"] == []
    assert thinks["moa"] == {"type": "proposal.thinks", "layer": 1, "place": 0, "model": "one"}
    assert (grows["moa"]["type"], grows["moa"]["text"]) == ("proposal.delta", "aloud")
    ChatCompletionChunk.model_validate(thinks, strict=True)
    one.end()
    two.end()
    await puppets.answer("writer")
    assert not any("secret" in str(chunk) or "thought" in str(chunk) for chunk in await exchange.rest())


async def test_trimmed_references_are_reported_where_asked_for(puppets: Puppets, ask: Ask) -> None:
    exchange = await open_stream(ask, moa={"events": True}, max_tokens=3500)
    one, two = await puppets.call("one"), await puppets.call("two")
    one.say("long " * 5000)
    one.end()
    two.end()
    await puppets.answer("writer")
    *events, _done = await exchange.rest()
    trimmed = [event["moa"] for event in events if event.get("moa", {}).get("type") == "trimmed"]
    assert [(event["layer"], event["model"]) for event in trimmed] == [(0, "writer")]
    assert trimmed[0]["tokens_removed"] > 0
    assert events[-1]["moa"]["trimmed"][0]["tokens_removed"] == trimmed[0]["tokens_removed"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (EngineError("it broke", model="writer"), "engine_error", "it broke"),
        (ValueError("secret"), "internal_error", "internal error (ValueError)"),
    ],
    ids=["known", "defect"],
)
async def test_a_failure_after_the_first_token_ends_the_stream_with_an_error(
    puppets: Puppets, ask: Ask, error: Exception, code: str, message: str
) -> None:
    exchange, call = await open_until_aggregator(puppets, ask)
    call.say("half")
    (half,) = await exchange.events()
    assert content(half) == "half"
    call.fail(error)
    failed, done = await exchange.rest()
    assert (failed["error"]["code"], failed["error"]["message"]) == (code, message)
    assert done == "[DONE]"


async def test_a_text_that_cannot_be_sent_ends_the_stream_with_an_error(
    puppets: Puppets, ask: Ask
) -> None:
    exchange, call = await open_until_aggregator(puppets, ask)
    call.say("a lone surrogate: \ud800")
    failed, done = await exchange.rest()
    assert failed["error"]["message"] == "internal error (UnicodeEncodeError)"
    assert done == "[DONE]"


async def test_a_slow_model_asked_directly_opens_its_stream_after_one_keep_alive_interval(
    puppets: Puppets, ask: Ask
) -> None:
    exchange = ask(stream=True, model="one", limits={"keepalive_s": 0.001})
    call = await puppets.call("one")
    await exchange.start()
    role, *rest = await exchange.events()
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert set(rest) <= {"keep-alive"}
    call.fail(EngineError("it broke", model="one"))
    failed = [event for event in await exchange.rest() if event != "keep-alive"]
    assert failed[0]["error"]["model"] == "one"


async def test_openais_client_reads_the_stream(scripted: Scripted, listen: Callable[..., Any]) -> None:
    client: openai.AsyncOpenAI = await listen(create_api(recipe(), scripted))
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    texts, usage = [], None
    async for chunk in await client.chat.completions.create(**MIXTURE, **options):
        texts += [choice.delta.content or "" for choice in chunk.choices]
        usage = chunk.usage
    assert len("".join(texts).split()) == 6
    assert usage is not None
    assert usage.completion_tokens == 6
    assert usage.model_extra["all_calls"]["completion_tokens"] == 18


@pytest.mark.parametrize("events", [False, True])
async def test_openais_accumulating_client_reads_the_stream(
    scripted: Scripted, listen: Callable[..., Any], events: bool
) -> None:
    client: openai.AsyncOpenAI = await listen(create_api(recipe(), scripted))
    extra: Any = {"moa": {"events": events}}
    async with client.chat.completions.stream(**MIXTURE, extra_body=extra) as stream:
        final = await stream.get_final_completion()
    assert len((final.choices[0].message.content or "").split()) == 6
    assert final.choices[0].finish_reason == "stop"


async def test_openais_client_raises_the_error_of_a_stream(
    puppets: Puppets, listen: Callable[..., Any]
) -> None:
    client: openai.AsyncOpenAI = await listen(create_api(recipe(), puppets))
    stream: Any = await client.chat.completions.create(**MIXTURE, stream=True)
    for model in ("one", "two"):
        (await puppets.call(model)).fail(EngineError("it broke", model=model))
    with pytest.raises(openai.APIError, match="0 came") as caught:
        async for _ in stream:
            pass
    assert (caught.value.code, caught.value.type) == ("quorum_not_met", "server_error")
