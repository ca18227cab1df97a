"""What a server refuses is learned once, and a call is made again in the way that the server takes."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web

from actors.engine import Message
from actors.engines.openai_http import OpenAIHttpEngine
from configs.errors import BadRequest, EngineError, EngineUnavailable, TemplateRefused
from configs.schema import Sampling
from tests.unit.actors.engines.http_servers import (
    HELLO,
    KEY,
    Connect,
    Reply,
    answer,
    model,
    refusal,
    text,
    whole,
)

UNKNOWN_OPTION: list[Any] = [
    {"error": {"message": "Unrecognized request argument supplied: stream_options"}},
    {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs"}]},
    {"object": "error", "message": "[{'loc': ('body', 'stream_options'), 'msg': 'extra'}]"},
    {"message": {"detail": [{"loc": ["body", "stream_options", "include_usage"], "msg": "Extra"}]}},
    {"error": {"message": "property 'stream_options' is unsupported"}},
    {"error": 'json: unknown field "stream_options"'},
    [{"error": {"code": 400, "message": 'Unknown name "stream_options": Cannot find field.'}}],
]


@pytest.mark.parametrize("said", UNKNOWN_OPTION, ids=range(len(UNKNOWN_OPTION)))
@pytest.mark.parametrize("status", [200, 400, 422, 500])
async def test_stream_options_are_left_out_for_good_once_they_are_refused(
    connect: Connect, said: Any, status: int
) -> None:
    engine, server = await connect(whole(json.dumps(said), "application/json", status), whole(HELLO))
    assert text(await answer(engine)) == "Hello"
    assert text(await answer(engine)) == "Hello"
    assert ["stream_options" in body for body in server.bodies] == [True, False, False]


def knows(*names: str) -> Reply:
    """A server that refuses all other names, one at a time, as OpenAI does."""

    async def reply(request: web.Request) -> web.StreamResponse:
        for name in await request.json():
            if name not in names:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                if name == "max_tokens":
                    message += " Use 'max_completion_tokens' instead."
                error = {"message": message, "param": name, "code": "unsupported_parameter"}
                return web.json_response({"error": error}, status=400)
        return await whole(HELLO)(request)

    return reply


NEEDED = ("model", "messages", "stream")


@pytest.mark.parametrize(
    ("known", "sampling", "sent"),
    [
        (("stream_options", "max_completion_tokens"), {"max_tokens": 9}, {"max_completion_tokens": 9}),
        (("max_tokens",), {"max_tokens": 9, "seed": 4}, {"max_tokens": 9}),
        ((), {"seed": 4, "top_p": 1, "temperature": 1, "top_k": 0, "min_p": 0}, {}),
        (("top_p",), {"temperature": 1, "top_p": 0.5}, {"top_p": 0.5}),
    ],
)
async def test_what_nobody_needs_is_left_out_and_a_name_is_changed(
    connect: Connect, known: Sequence[str], sampling: dict[str, Any], sent: dict[str, Any]
) -> None:
    engine, server = await connect(knows(*NEEDED, *known))
    assert text(await answer(engine, **sampling)) == "Hello"
    asked = len(server.bodies)
    assert text(await answer(engine, **sampling)) == "Hello"
    assert len(server.bodies) == asked + 1
    left = {name: v for name, v in server.bodies[-1].items() if name not in (*NEEDED, "stream_options")}
    assert left == sent


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.7},
        {"top_p": 0.5},
        {"stop": ["x"]},
        {"presence_penalty": 1},
    ],
    ids=lambda s: next(iter(s)),
)
async def test_what_was_asked_for_is_never_left_out_but_the_way_out_is_named(
    connect: Connect, sampling: dict[str, Any]
) -> None:
    engine, server = await connect(knows(*NEEDED, "stream_options"))
    with pytest.raises(BadRequest, match=r"`omit: \[") as failure:
        await answer(engine, **sampling)
    assert next(iter(sampling)) in failure.value.message
    assert len(server.bodies) == 1


async def test_top_p_is_sent_after_a_refusal_of_its_neutral_value(connect: Connect) -> None:
    engine, server = await connect(
        refusal(400, {"message": "`temperature` and `top_p` cannot both be specified"}), whole(HELLO)
    )
    await answer(engine, temperature=0.5, top_p=1)
    await answer(engine, top_p=0.5)
    assert ["top_p" in body for body in server.bodies] == [True, False, True]
    assert [body.get("temperature") for body in server.bodies] == [0.5, 0.5, None]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "max_tokens is too large: 4096"),
        (400, "seed must be positive"),
        (401, "stream_options: wrong key"),
        (400, "the system is down"),
    ],
)
async def test_another_refusal_is_final(connect: Connect, status: int, message: str) -> None:
    engine, server = await connect(refusal(status, {"message": message}))
    with pytest.raises((BadRequest, EngineError), match=message):
        await answer(engine, max_tokens=4096, seed=-1)
    assert len(server.bodies) == 1


# The words are those of templates (Gemma 2, Mistral 7B and Nemo, Llama 2), of llama.cpp's frame around
# them, and of APIs (Anthropic, OpenAI, Perplexity, DeepSeek, Gemini, Bedrock).
NO_SYSTEM = [
    "System role not supported",
    "Only user and assistant roles are supported!",
    "in source:\n{{ raise_exception('Conversation roles must alternate') }}\n"
    "Error: Jinja Exception: System role not supported",
    'Unexpected role "system". The Messages API accepts a top-level `system` parameter',
    "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
    "Developer instruction is not enabled for models/gemma-3-27b-it",
    "This model doesn't support system messages. Try again without a system message",
]
ALTERNATING = [
    "Conversation roles must alternate user/assistant/user/assistant/...",
    "After the optional system message, conversation roles must alternate user/assistant",
    "After the (optional) system message(s), user or tool message(s) should alternate with assistant",
    'messages: roles must alternate, but found multiple "user" roles in a row',
    "deepseek-reasoner does not support successive user or assistant messages. You should interleave",
    "Please ensure that multiturn requests alternate between user and model",
    "A conversation must start with a user message. Try again with one that does.",
]


def takes(system: bool, alternating: bool, words: Sequence[str], status: int) -> Reply:
    """A server whose template refuses other conversations, with these words for each fault."""

    async def reply(request: web.Request) -> web.StreamResponse:
        roles = [message["role"] for message in (await request.json())["messages"]]
        fault = ""
        if "system" in roles and not system:
            fault = words[0]
        turns = [role for role in roles if role != "system"]
        if alternating and turns != [("user", "assistant")[n % 2] for n in range(len(turns))]:
            fault = words[-1]
        if fault:
            body = json.dumps({"error": {"message": fault, "code": status}})
            return await whole(body, "application/json", status)(request)
        return await whole(HELLO)(request)

    return reply


def conversation(roles: str) -> list[Message]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [Message(role=names[r], content=f"{r}{n}") for n, r in enumerate(roles)]


def sent(server: Any) -> list[tuple[str, str]]:
    return [(m["role"][0], m["content"]) for m in server.bodies[-1]["messages"]]


async def read(engine: OpenAIHttpEngine, roles: str) -> str:
    return text([d async for d in engine.stream(conversation(roles), Sampling())])


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("words", NO_SYSTEM, ids=range(len(NO_SYSTEM)))
async def test_a_system_message_that_is_refused_goes_into_the_users(
    connect: Connect, words: str, status: int
) -> None:
    engine, server = await connect(takes(False, False, [words], status))
    assert await read(engine, "su") == "Hello"
    assert sent(server) == [("u", "s0\n\nu1")]
    assert await read(engine, "suas") == "Hello"
    assert sent(server) == [("u", "s0\n\nu1"), ("a", "a2"), ("u", "s3")]
    assert await read(engine, "usa") == "Hello"  # the answer goes on behind the last message
    assert sent(server) == [("u", "u0"), ("u", "s1"), ("a", "a2")]
    assert len(server.bodies) == 4  # the form is remembered


@pytest.mark.parametrize("words", ALTERNATING, ids=range(len(ALTERNATING)))
async def test_turns_of_one_side_in_a_row_are_joined(connect: Connect, words: str) -> None:
    engine, server = await connect(takes(True, True, [words], 400))
    assert await read(engine, "suuaau") == "Hello"
    assert sent(server) == [("s", "s0"), ("u", "u1\n\nu2"), ("a", "a3\n\na4"), ("u", "u5")]
    assert await read(engine, "au") == "Hello"
    assert sent(server) == [("u", "Hello."), ("a", "a0"), ("u", "u1")]
    assert len(server.bodies) == 3


async def test_a_template_that_refuses_both_gets_neither(connect: Connect) -> None:
    engine, server = await connect(takes(False, True, [NO_SYSTEM[0], ALTERNATING[0]], 500))
    assert await read(engine, "suua") == "Hello"
    assert sent(server) == [("u", "s0\n\nu1\n\nu2"), ("a", "a3")]


async def test_a_form_that_does_not_help_is_forgotten(connect: Connect) -> None:
    engine, server = await connect(
        refusal(400, {"message": NO_SYSTEM[0]}), refusal(400, {"message": "no"}), whole(HELLO)
    )
    with pytest.raises(BadRequest):
        await read(engine, "su")
    assert await read(engine, "su") == "Hello"
    assert sent(server) == [("s", "s0"), ("u", "u1")]


async def test_a_template_that_refuses_every_form_says_why(connect: Connect) -> None:
    engine, server = await connect(
        refusal(500, {"message": "Jinja Exception: System role not supported"})
    )
    with pytest.raises(TemplateRefused, match="System role not supported") as failure:
        await read(engine, "suu")
    assert failure.value.status == 400
    assert len(server.bodies) == 3  # the form that the words ask for, and that with joined turns


async def test_extra_fields_headers_and_omissions_are_the_recipes(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_KEY", KEY)
    headers = {"X-Title": "a b", "api-key": "${FAR_KEY}", "X-Both": "a-${FAR_KEY}-b"}
    engine, server = await connect(
        whole(HELLO),
        refusal(500, {"message": f"{KEY} is wrong"}),
        retries=0,
        headers=headers,
        extra_body={"provider": {"order": ["a"]}, "safe_prompt": False},
        omit=["stream_options", "temperature"],
    )
    await answer(engine, temperature=0.5, top_p=0.5)
    body = {name: value for name, value in server.bodies[0].items() if name != "messages"}
    extra = {"provider": {"order": ["a"]}, "safe_prompt": False}
    assert body == {"model": "m", "stream": True, "top_p": 0.5} | extra
    received = server.requests[0].headers
    assert [received[name] for name in headers] == ["a b", KEY, f"a-{KEY}-b"]
    with pytest.raises(EngineError, match=r"\*\*\* is wrong") as failure:
        await answer(engine)
    assert KEY not in failure.value.message


@pytest.mark.parametrize(("value", "said"), [(None, "is not set"), ("a\nb", "holds what")])
async def test_a_header_whose_variable_cannot_be_used_is_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, value: str | None, said: str
) -> None:
    monkeypatch.delenv("FAR_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("FAR_KEY", value)
    engine = OpenAIHttpEngine("far", model(base_url="http://x/v1", headers={"a": "x ${FAR_KEY}"}))
    with pytest.raises(EngineUnavailable, match=rf"FAR_KEY \(headers\.a\) {said}"):
        await engine.start()
