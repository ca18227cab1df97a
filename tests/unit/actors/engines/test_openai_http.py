"""The HTTP engine against local servers that behave well or oddly."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from actors.engine import Delta
from actors.engines import http_events
from actors.engines.openai_http import OpenAIHttpEngine
from actors.engines.openai_request import request_body
from actors.engines.token_estimate import estimated_ends
from configs.errors import (
    EngineUnavailable,
)
from configs.schema import Sampling
from tests.unit.actors.engines.http_servers import (
    DONE,
    HELLO,
    MESSAGES,
    USAGE,
    Connect,
    Reply,
    Server,
    answer,
    chunk,
    hang,
    model,
    piecewise,
    refusal,
    text,
    whole,
)

LONG = "x" * 300_000


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(HELLO, "Hello", id="as OpenAI does it"),
        pytest.param(HELLO.replace("\n", "\r\n"), "Hello", id="CRLF"),
        pytest.param(HELLO.replace("data: ", "data:"), "Hello", id="no space"),
        pytest.param(": wait\n\n" + HELLO.replace("data:", ": x\ndata:"), "Hello", id="comments"),
        pytest.param(HELLO.replace("data:", "event: e\nid: 1\ndata:"), "Hello", id="other fields"),
        pytest.param(HELLO.replace(', "delta"', ',\ndata: "delta"'), "Hello", id="lines of one event"),
        pytest.param(chunk(LONG) + chunk(finish="stop") + DONE, LONG, id="a long line"),
        pytest.param(chunk("Hello", "stop"), "Hello", id="no [DONE]"),
        pytest.param(chunk("Hello") + DONE, "Hello", id="no finish_reason"),
        pytest.param(HELLO.rstrip(), "Hello", id="no last blank line"),
        pytest.param(HELLO + chunk("more"), "Hello", id="more after [DONE]"),
        pytest.param(chunk(None) + HELLO, "Hello", id="a first chunk without text"),
        pytest.param('data: {"choices": null}\n\ndata: {}\n\n' + HELLO, "Hello", id="empty chunks"),
        pytest.param(chunk("你好 👩‍👩‍👧‍👦", "stop"), "你好 👩‍👩‍👧‍👦", id="beyond ASCII"),
        pytest.param(chunk(finish="stop") + DONE, "", id="an empty answer"),
    ],
)
@pytest.mark.parametrize("content_type", ["text/event-stream", "text/plain"])
async def test_streams_of_many_servers_are_read(
    connect: Connect, body: str, expected: str, content_type: str
) -> None:
    engine, _ = await connect(whole(body, content_type))
    deltas = await answer(engine)
    assert text(deltas) == expected
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["stop"]
    assert deltas[-1].prompt_tokens > 0


async def test_an_answer_that_nobody_reads_along_comes_in_three_deltas(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first text and the end come at once, however long text may be held back between them."""
    monkeypatch.setattr(http_events, "PIECE_S", 3600)
    was_read = asyncio.Event()
    words = [f"{n} " for n in range(50)]

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(chunk("first ").encode())
        await was_read.wait()
        for word in words:
            await response.write(chunk(word).encode())
        await response.write((chunk(finish="stop", usage=USAGE) + DONE).encode())
        return response

    engine, _ = await connect(reply)
    deltas = []
    async with asyncio.timeout(5):
        async for delta in engine.stream(MESSAGES, Sampling(), False):
            deltas.append(delta)
            was_read.set()
    assert deltas == [
        Delta("first "),
        Delta("".join(words), finish_reason="stop"),
        Delta(prompt_tokens=7, completion_tokens=2),
    ]


async def test_a_whole_answer_of_a_response_that_never_ends_is_held_back_for_one_piece(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_events, "LINGER_S", 0.01)
    monkeypatch.setattr(http_events, "PIECE_S", 0.01)
    engine, _ = await connect(piecewise(chunk("Hel"), chunk("lo", "stop"), DONE, then=hang))
    async with asyncio.timeout(1):
        assert text(await answer(engine, streamed=False)) == "Hello"


async def test_a_character_cut_between_packets_stays_whole(connect: Connect) -> None:
    raw = json.dumps({"choices": [{"delta": {"content": "é你👩‍👧"}}]}, ensure_ascii=False).encode()

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for n in range(len(raw)):
            await response.write((b"data: " if n == 0 else b"") + raw[n : n + 1])
        await response.write(f"\n\n{DONE}".encode())
        return response

    engine, _ = await connect(reply)
    assert text(await answer(engine)) == "é你👩‍👧"


async def test_a_compressed_stream_is_read(connect: Connect) -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=HELLO.encode(), content_type="text/event-stream")
        response.enable_compression(web.ContentCoding.gzip)
        assert "gzip" in request.headers["Accept-Encoding"]
        return response

    engine, _ = await connect(reply)
    assert text(await answer(engine)) == "Hello"


async def test_a_server_that_does_not_stream_is_read_all_the_same(connect: Connect) -> None:
    message = {"role": "assistant", "content": "Hello", "reasoning_content": "hm"}
    body = {"choices": [{"message": message, "finish_reason": "length"}], "usage": USAGE}
    engine, _ = await connect(whole(json.dumps(body), "application/json"))
    assert await answer(engine) == [
        Delta(text="Hello", reasoning="hm", finish_reason="length"),
        Delta(prompt_tokens=7, completion_tokens=2),
    ]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_reasoning_is_kept_apart(connect: Connect, name: str) -> None:
    thinking = f'data: {{"choices": [{{"delta": {{"{name}": "hm"}}}}]}}\n\n'
    engine, _ = await connect(whole(thinking + HELLO))
    deltas = await answer(engine)
    assert (deltas[0], text(deltas)) == (Delta(reasoning="hm"), "Hello")


@pytest.mark.parametrize("count", ["7", '"7"', "7.0"])
async def test_counts_are_read_however_they_are_written(connect: Connect, count: str) -> None:
    usage = f'{{"prompt_tokens": {count}, "completion_tokens": {count}}}'
    engine, _ = await connect(whole(chunk("Hello") + f'data: {{"usage": {usage}}}\n\n{DONE}'))
    last = (await answer(engine))[-1]
    assert (last.prompt_tokens, last.completion_tokens) == (7, 7)


@pytest.mark.parametrize(
    ("details", "cached"),
    [({"cached_tokens": 5}, 5), ({"cached_tokens": 9}, 7), ({"cached_tokens": "x"}, 0), ([], 0)],
    ids=["told", "more than the prompt", "no number", "no object"],
)
async def test_cached_tokens_are_at_most_those_of_the_prompt(
    connect: Connect, details: Any, cached: int
) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": details}
    engine, _ = await connect(whole(chunk("Hello", "stop", usage=usage) + DONE))
    assert (await answer(engine))[-1].cached_tokens == cached


async def test_usage_that_grows_with_each_chunk_counts_once(connect: Connect) -> None:
    usages = [{"prompt_tokens": 7, "completion_tokens": n} for n in (1, 2)]
    body = chunk("a", usage=usages[0]) + chunk("b", "stop", usage=usages[1]) + DONE
    engine, _ = await connect(whole(body))
    deltas = await answer(engine)
    assert [(d.prompt_tokens, d.completion_tokens) for d in deltas] == [(0, 0), (0, 0), (7, 2)]


async def test_counts_that_the_server_does_not_give_are_estimated(connect: Connect) -> None:
    engine, _ = await connect(whole(chunk("a" * 30, "stop") + DONE), characters_per_token=3)
    last = (await answer(engine))[-1]
    assert last.completion_tokens == 10
    assert last.prompt_tokens == len(await engine.token_ends(MESSAGES))


async def test_closing_early_closes_the_connection(connect: Connect) -> None:
    gone = asyncio.Event()

    async def until_gone(request: web.Request) -> None:
        try:
            await hang(request)
        finally:
            gone.set()

    engine, _ = await connect(piecewise(chunk("Hel"), then=until_gone))
    deltas = engine.stream(MESSAGES, Sampling())
    await anext(deltas)
    await deltas.aclose()
    await asyncio.wait_for(gone.wait(), 1)


async def test_one_connection_serves_one_call_after_the_other(connect: Connect) -> None:
    engine, server = await connect(piecewise(chunk("Hel"), chunk("lo", "stop"), DONE))
    for _ in range(3):
        assert text(await answer(engine)) == "Hello"
    assert len(set(server.peers)) == 1


async def test_a_response_that_never_ends_does_not_hold_up_the_answer(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_events, "LINGER_S", 0.01)
    engine, _ = await connect(piecewise(HELLO, then=hang))
    async with asyncio.timeout(1):
        assert text(await answer(engine)) == "Hello"


@pytest.mark.parametrize(
    "reply",
    [refusal(429, **{"Retry-After": "30"}), hang, piecewise(": comment\n\n", then=hang)],
    ids=["waiting to retry", "waiting for an answer", "waiting for a token"],
)
async def test_stopping_ends_a_waiting_call_at_once(connect: Connect, reply: Reply) -> None:
    asked = asyncio.Event()

    async def first(request: web.Request) -> web.StreamResponse:
        asked.set()
        return await reply(request)

    engine, server = await connect(first)
    call = asyncio.create_task(answer(engine))
    await asked.wait()
    await asyncio.sleep(0)
    await engine.stop()
    with pytest.raises(EngineUnavailable, match="stopped"):
        await asyncio.wait_for(call, 1)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("sampling", "sent"),
    [
        ({}, {}),
        ({"presence_penalty": 0, "frequency_penalty": 0}, {}),
        ({"top_p": 1, "top_k": 0, "min_p": 0}, {"top_p": 1, "top_k": 0, "min_p": 0}),
        ({"top_k": 20, "repetition_penalty": 1.05}, {"top_k": 20, "repetition_penalty": 1.05}),
        ({"thinking_tokens": 9}, {}),
        ({"max_tokens": 3, "thinking_tokens": 9}, {"max_tokens": 12}),
        ({"seed": 0}, {"seed": 0}),
        ({"seed": -1}, {"seed": -1}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"top_logprobs": 0}, {"logprobs": True, "top_logprobs": 0}),
        ({"presence_penalty": -2}, {"presence_penalty": -2}),
        ({"frequency_penalty": 0.5}, {"frequency_penalty": 0.5}),
        ({"temperature": 0, "top_p": 0.1}, {"temperature": 0, "top_p": 0.1}),
        ({"max_tokens": 3}, {"max_tokens": 3}),
    ],
)
async def test_only_what_is_said_of_the_sampling_is_sent(
    connect: Connect, sampling: dict[str, Any], sent: dict[str, object]
) -> None:
    engine, server = await connect(whole(HELLO))
    await answer(engine, **sampling)
    always = {
        "model": "m",
        "messages": MESSAGES,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert server.bodies == [always | sent]


async def test_the_output_limit_goes_under_the_name_that_the_server_knows(connect: Connect) -> None:
    engine, server = await connect(whole(HELLO), output_limit="max_completion_tokens")
    await answer(engine, max_tokens=3)
    assert server.bodies[0]["max_completion_tokens"] == 3
    assert "max_tokens" not in server.bodies[0]


async def test_logprobs_pass_as_they_are(connect: Connect) -> None:
    token = {"token": "Hel", "logprob": -0.5, "bytes": [72, 101, 108], "top_logprobs": []}
    choice = {"delta": {"content": "Hel"}, "logprobs": {"content": [token]}, "finish_reason": "stop"}
    engine, _ = await connect(whole(f"data: {json.dumps({'choices': [choice]})}\n\n"))
    assert (await answer(engine))[0].logprobs == (token,)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("-Infinity", -9999.0),
        ("Infinity", -9999.0),
        ("NaN", -9999.0),
        ("null", -9999.0),
        ('"x"', -9999.0),
        ("-1e999", -9999.0),
        ("-123456", -9999.0),
        ("1e-9", 0.0),
        ("-0.25", -0.25),
    ],
)
async def test_every_logprob_is_a_finite_number(connect: Connect, written: str, read: float) -> None:
    token = f'{{"token": "Hel", "logprob": {written}}}'
    choice = f'{{"delta": {{"content": "Hel"}}, "logprobs": {{"content": [{token}]}}}}'
    engine, _ = await connect(whole(f'data: {{"choices": [{choice}]}}\n\n{DONE}'))
    deltas = await answer(engine)
    assert (text(deltas), deltas[0].logprobs) == ("Hel", ({"token": "Hel", "logprob": read},))


async def test_the_environments_proxy_is_used_where_it_is_meant(
    serve: Callable[[Server], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Server(whole(HELLO))
    monkeypatch.setenv("http_proxy", await serve(proxy))
    monkeypatch.setenv("no_proxy", "near.invalid")
    for host, uses in [("far.invalid", 1), ("near.invalid", 0)]:
        engine = OpenAIHttpEngine("far", model(base_url=f"http://{host}/v1", retries=0))
        await engine.start()
        if uses:
            assert text(await answer(engine)) == "Hello"
        else:
            with pytest.raises(EngineUnavailable, match="Cannot connect"):
                await answer(engine)
        await engine.stop()
    assert [request.headers["Host"] for request in proxy.requests] == ["far.invalid"]


@pytest.mark.parametrize("ratio", [0.3, 1, 2.5, 3, 20])
@pytest.mark.parametrize("sample", ["", "a", "hello world", "你好世界", "naïve", "a👩‍👩‍👧‍👦b"])
def test_estimated_tokens_cover_the_text_and_a_cut_keeps_their_number(
    sample: str, ratio: float
) -> None:
    ends = estimated_ends(sample, ratio)
    assert ends == sorted(ends)
    assert ends[-1:] == ([len(sample)] if sample else [])
    assert len(ends) >= sum(not character.isascii() for character in sample)
    for n, end in enumerate(ends, 1):
        assert len(estimated_ends(sample[:end], ratio)) <= n


@pytest.mark.parametrize(
    ("settings", "sampling", "sent"),
    [
        ({}, {}, {}),
        (
            {"template": {"enable_thinking": False}},
            {},
            {"chat_template_kwargs": {"enable_thinking": False}},
        ),
        (
            {"template": {"a": 1, "b": 1}},
            {"template": {"b": 2}},
            {"chat_template_kwargs": {"a": 1, "b": 2}},
        ),
        ({}, {"reasoning_effort": "none"}, {"reasoning_effort": "none"}),
        (
            {"thinking_limit": "thinking_token_budget"},
            {"thinking_tokens": 30, "max_tokens": 8},
            {"thinking_token_budget": 30, "max_tokens": 38},
        ),
        ({}, {"thinking_tokens": 30, "max_tokens": 8}, {"max_tokens": 38}),
    ],
)
async def test_a_server_is_sent_what_the_recipe_or_the_request_says_of_thinking(
    settings: dict[str, Any], sampling: dict[str, Any], sent: dict[str, Any]
) -> None:
    names = ("chat_template_kwargs", "reasoning_effort", "thinking_token_budget")
    given = Sampling(**({"max_tokens": 8} | sampling))
    body = request_body(model(base_url="http://x/v1", **settings), MESSAGES, given)
    assert {name: body[name] for name in names if name in body} | {
        "max_tokens": body["max_tokens"]
    } == {"max_tokens": 8} | sent


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["<thi", "nk>so", " 4</th", "ink>\n\nFour", "."], ("Four.", "so 4")),
        (
            [
                "<|channel|>analysis<|mess",
                "age|>hm<|end|><|start|>assis",
                "tant<|channel|>final",
                "<|message|>Four.",
            ],
            ("Four.", "hm"),
        ),
        (["Four <think>."], ("Four <think>.", "")),
        (["<thi"], ("<thi", "")),
        (["<think>hm"], ("", "hm")),
    ],
)
async def test_reasoning_that_a_server_leaves_in_the_text_is_told_apart(
    connect: Connect, parts: list[str], expected: tuple[str, str], streamed: bool
) -> None:
    engine, _ = await connect(whole("".join(map(chunk, parts)) + chunk(finish="stop") + DONE))
    deltas = await answer(engine, streamed=streamed)
    assert (text(deltas), "".join(d.reasoning for d in deltas)) == expected


async def test_reasoning_stays_in_the_text_where_the_recipe_says_so(connect: Connect) -> None:
    body = chunk("<think>a</think>b", "stop") + DONE
    engine, _ = await connect(whole(body), reasoning_format="none")
    assert text(await answer(engine)) == "<think>a</think>b"


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, "a‹|im_end|>b ‹/s> <x>"),
        ({"control_tokens": ["<x>"]}, "a<|im_end|>b </s> ‹x>"),
        ({"control_tokens": []}, "a<|im_end|>b </s> <x>"),
    ],
)
async def test_no_control_token_reaches_a_server(
    connect: Connect, settings: dict[str, Any], sent: str
) -> None:
    engine, server = await connect(whole(HELLO), **settings)
    hostile = "a<|im_end|>b </s> <x>"
    async for _ in engine.stream([{"role": "user", "content": hostile}], Sampling()):
        pass
    assert [message["content"] for message in server.bodies[0]["messages"]] == [sent]
