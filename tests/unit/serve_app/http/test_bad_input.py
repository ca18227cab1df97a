"""Requests that cannot be served. Each is refused with what is wrong, and disturbs no other."""

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import CHAT, HELLO, MIXTURE, SCOPE, Scripted, recipe

TOOL = {"type": "function", "function": {"name": "clock"}}
SUMS = re.compile(r"requested (\d+) tokens \((\d+) in the messages, (\d+) in the completion")
CALL = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
ANSWER = {"role": "assistant", "content": "It is"}
JSON = {"content-type": "application/json"}


def body(**fields: Any) -> bytes:
    return json.dumps(MIXTURE | fields).encode()


def one_message(**fields: Any) -> bytes:
    """The body of a request with one message, which has these fields."""
    return body(messages=[HELLO[0] | fields])


async def refusal(http: httpx.AsyncClient, content: bytes, status: int = 400) -> dict[str, Any]:
    """The error that a bad request gets. Also checks that a good request is served after it."""
    response = await http.post(CHAT, content=content, headers=JSON)
    assert (await http.post(CHAT, json=MIXTURE)).status_code == 200
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error


async def test_a_field_that_is_nested_too_deeply_is_named(http: httpx.AsyncClient) -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [{"a": deep}]
    for fields, param in (
        ({"chat_template_kwargs": deep}, "chat_template_kwargs"),
        ({"stop": deep}, "stop"),
    ):
        error = await refusal(http, body(**fields))
        assert (error["param"], error["message"]) == (param, f"{param!r} is nested too deeply")
    assert (await http.post(CHAT, json=MIXTURE | {"metadata": deep})).status_code == 200  # never read


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"{'model': 'mix'}", "not valid JSON"),
        (body() + b"{}", "not valid JSON: Extra data"),
        (b"\xef\xbb\xbf" + body(), "not valid JSON: Unexpected UTF-8 BOM"),
        (body().decode().encode("utf-16"), "not valid UTF-8: byte 0"),
        (b'{"model": "\xc3\x28"}', "not valid UTF-8: byte 11"),
        (b'{"model": "\0"}', "not valid JSON: Invalid control character"),
        (one_message(content="\ud800"), "lone surrogate"),
        (body(metadata={"\udfff": "x"}), "lone surrogate"),
        (b'{"\\ud800": 1}', "lone surrogate"),
        (body(temperature=float("nan")), "not valid JSON: NaN is not JSON"),
        (body(temperature=float("inf")), "not valid JSON: Infinity is not JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"model": "a", "model": "b"}', "a name stands twice in one object"),
        (b"[" * 50_000, "nested too deeply"),
        (b"null", "has to be a JSON object"),
        (b"[]", "has to be a JSON object"),
        (b'"hello"', "has to be a JSON object"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_body_that_is_no_json_object_is_refused(
    http: httpx.AsyncClient, content: bytes, message: str
) -> None:
    error = await refusal(http, content)
    assert message in error["message"]
    assert (error["param"], error["code"], error["model"]) == (None, "invalid_request", None)


@pytest.mark.parametrize(
    ("content", "param", "message"),
    [
        (b"{}", "model", "Field required"),
        (body(model=None), "model", "Field required"),
        (body(model=""), "model", "at least 1 character"),
        (body(model=7), "model", "valid string, not 7"),
        (body(messages=None), "messages", "Field required"),
        (body(messages=[]), "messages", "at least 1 item"),
        (body(messages="hello"), "messages", "valid array, not 'hello'"),
        (body(messages=["hello"]), "messages.0", "an object, not 'hello'"),
        (body(messages=HELLO * 4097), "messages", "at most 4096 items"),
        (body(messages=[*HELLO, {"content": "x"}]), "messages.1.role", "Field required"),
        (one_message(role="robot"), "messages.0.role", "'tool' or 'function', not 'robot'"),
        (one_message(role="assistant"), "messages", "there is no message that could be answered"),
        (one_message(role="assistant", content=None), "messages", "all messages are empty"),
        (
            body(messages=[*HELLO, {"role": "assistant", "tool_calls": [CALL]}]),
            "messages.1.tool_calls",
            "the results of these calls are missing",
        ),
        (
            body(messages=[{"role": "assistant", "tool_calls": [CALL, {"id": "1"}]}, *HELLO]),
            "messages.0.tool_calls.1.function",
            "Field required",
        ),
        (
            body(messages=[{"role": "assistant", "tool_calls": [{"function": {}}]}, *HELLO]),
            "messages.0.tool_calls.0.function.name",
            "Field required",
        ),
        (one_message(images=["aGk="]), "messages.0.images", "models here read text only"),
        (
            body(messages=[{"role": "assistant", "audio": {"id": "a"}}, *HELLO]),
            "messages.0.audio",
            "cannot be read",
        ),
        (one_message(content=None), "messages.0.content", "Field required"),
        (one_message(content=7), "messages.0.content", "valid string, not 7"),
        (one_message(content=[]), "messages", "all messages are empty"),
        (one_message(content=[7]), "messages.0.content.0", "an object, not 7"),
        (one_message(content={"text": "x"}), "messages.0.content", "valid string"),
        (one_message(content=""), "messages", "all messages are empty"),
        (one_message(content=[{"type": "text", "text": " \n"}]), "messages", "all messages are empty"),
        (
            one_message(content=[{"type": "image_url", "image_url": {"url": "x"}}]),
            "messages.0.content.0.type",
            "models here read text, in parts of the types text, input_text, output_text, refusal, not "
            "'image_url'",
        ),
        (one_message(content=[{"type": "text"}]), "messages.0.content.0.text", "Field required"),
        (one_message(content=[{"type": "refusal"}]), "messages.0.content.0.refusal", "Field required"),
        (
            one_message(content=[{"type": "text", "text": "x", "image_url": {"url": "x"}}]),
            "messages.0.content.0.image_url",
            "cannot be read",
        ),
        (
            body(continue_final_message=True),
            "continue_final_message",
            "can only be false here: the last message is not the assistant's",
        ),
        (body(add_generation_prompt=False), "add_generation_prompt", "can only be true here"),
        (
            body(messages=[*HELLO, ANSWER], continue_final_message=False),
            "continue_final_message",
            "can only be true here: the last message is the assistant's",
        ),
        (
            body(messages=[*HELLO, ANSWER], add_generation_prompt=True),
            "add_generation_prompt",
            "can only be false here",
        ),
        (body(max_tokens=4096), "max_tokens", "max_tokens is too large: 4096. This model supports at"),
        (body(model="one", max_tokens=5000), "max_tokens", "at most 4095 completion tokens"),
        (
            body(model="one", max_completion_tokens=5000),
            "max_completion_tokens",
            "max_completion_tokens is too large: 5000",
        ),
        (body(temperature=3), "temperature", "less than or equal to 2, not 3"),
        (body(temperature=-0.1), "temperature", "greater than or equal to 0, not -0.1"),
        (body(temperature="0.5"), "temperature", "valid number, not '0.5'"),
        (body(temperature=True), "temperature", "valid number, not True"),
        (body().replace(b"{", b'{"temperature": 1e400,', 1), "temperature", "finite number"),
        (body(temperature=10**400), "temperature", "finite number"),
        (body(top_p=0), "top_p", "greater than 0, not 0"),
        (body(max_tokens=0), "max_tokens", "greater than or equal to 1, not 0"),
        (body(max_tokens=10**9), "max_tokens", "less than or equal to 1000000, not 1000000000"),
        (body(max_tokens=16.0), "max_tokens", "valid integer, not 16.0"),
        (body(max_tokens=True), "max_tokens", "valid integer, not True"),
        (body(max_completion_tokens=-1), "max_completion_tokens", "greater than or equal to 1"),
        (
            body(max_tokens=1, max_completion_tokens=2),
            "max_tokens",
            "max_completion_tokens 2; send one",
        ),
        (body(seed=2**63), "seed", "less than 9223372036854775808"),
        (body(presence_penalty=2.1), "presence_penalty", "less than or equal to 2"),
        (body(frequency_penalty=-2.1), "frequency_penalty", "greater than or equal to -2"),
        (body(stop=7), "stop", "valid string, not 7"),
        (body(stop=["a", 7]), "stop.1", "valid string, not 7"),
        (body(stop=""), "stop.0", "at least 1 character"),
        (body(stop=["x"] * 17), "stop", "at most 16 items"),
        (body(stream="yes"), "stream", "valid boolean, not 'yes'"),
        (body(stream=1), "stream", "valid boolean, not 1"),
        (body(stream_options={}), "stream_options", "needs stream to be true"),
        (body(stream=True, stream_options={"x": 1}), "stream_options.x", "not permitted"),
        (body(logprobs=True), "logprobs", "the mixture 'mix' gives no logprobs"),
        (body(model="one", top_logprobs=1), "top_logprobs", "needs logprobs"),
        (body(model="one", logprobs=True, top_logprobs=21), "top_logprobs", "less than or equal to 20"),
        (body(n=2), "n", "'n' is not supported here; leave it out or send 1"),
        (body(tools=[TOOL], tool_choice="required"), "tool_choice", 'send "none" or send "auto"'),
        (body(tools=TOOL), "tools", "has to be an array"),
        (body(audio={"voice": "alloy"}), "audio", "is not supported here; leave it out"),
        (body(response_format={"type": "json_object"}), "response_format", 'send {"type": "text"}'),
        (body(logit_bias={"50256": -100}), "logit_bias", "leave it out or send {}"),
        (body(temprature=1), "temprature", "not a parameter that this server knows"),
        (body(**{"x" * 50_000: 1}), "x" * 100, "not a parameter that this server knows"),
        (body(moa=True), "moa", "an object, not True"),
        (body(moa={"event": True}), "moa.event", "not permitted"),
    ],
    ids=lambda value: str(value)[:80],
)
async def test_a_bad_field_is_refused_by_name_value_and_what_is_allowed(
    http: httpx.AsyncClient, content: bytes, param: str, message: str
) -> None:
    error = await refusal(http, content)
    assert message in error["message"]
    assert len(error["message"]) < 300
    assert (error["param"], error["code"]) == (param, "invalid_request")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["mix", "one"])
async def test_a_conversation_that_does_not_fit_is_refused_with_the_sums(
    http: httpx.AsyncClient, scripted: Scripted, model: str, stream: bool
) -> None:
    words = {"role": "user", "content": "word " * 4000}
    fields = {"model": model, "messages": [words], "max_tokens": 200, "stream": stream}
    error = await refusal(http, body(**fields))
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert error["model"] == {"mix": "writer"}.get(model, model)
    # The words by which LiteLLM, LangChain and agents know an overflow, with OpenAI's sums.
    assert error["message"].endswith(" exceeds the context window (context_length_exceeded).")
    assert error["message"].startswith(
        "This model's maximum context length is 4096 tokens. However, you"
    )
    asked, read, written = map(int, SUMS.findall(error["message"])[0])
    assert (asked, written) == (read + 200 + (64 if model == "mix" else 0), 200)
    assert f": {asked - 4096} too many for model" in error["message"]
    assert len(scripted.asked) == 3  # only the good request's calls


async def test_an_unknown_model_is_named_beside_those_that_are_there(http: httpx.AsyncClient) -> None:
    error = await refusal(http, body(model="gpt-4o"), 404)
    assert error["message"] == "no model 'gpt-4o' here; there are mix, one, two, writer"
    assert (error["param"], error["code"]) == ("model", "model_not_found")


async def test_a_body_over_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    error = await refusal(http, one_message(content="x" * 200_000), 413)
    assert error["message"] == "the body is larger than 200000 bytes (limits.max_body_bytes)"
    assert error["code"] == "request_too_large"


async def test_a_body_without_end_is_read_no_further_than_the_limit(scripted: Scripted) -> None:
    read = 0
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    await create_api(recipe(max_body_bytes=2500), scripted)(SCOPE.copy(), receive, send)
    assert sent[0]["status"] == 413
    assert read == 3


@pytest.mark.parametrize("drips", [False, True])
async def test_a_body_that_does_not_come_in_time_is_refused(scripted: Scripted, drips: bool) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait() if not drips else await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    await create_api(recipe(read_timeout_s=0.05), scripted)(SCOPE.copy(), receive, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    error = json.loads(sent[1]["body"])["error"]
    assert error["message"] == "the body did not come within 0.05 s (limits.read_timeout_s)"
    assert error["code"] == "request_timeout"


async def test_a_client_that_leaves_within_its_body_is_no_error(scripted: Scripted) -> None:
    coming: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await create_api(recipe(), scripted)(SCOPE.copy(), receive, send)
    assert sent[0]["status"] == 499
    assert not scripted.asked


@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded", "", None])
async def test_other_types_than_json_are_refused(http: httpx.AsyncClient, sent: str | None) -> None:
    headers = {} if sent is None else {"content-type": sent}
    response = await http.post(CHAT, content=body(), headers=headers)
    assert response.status_code == 415
    assert "send content-type application/json, not" in response.json()["error"]["message"]


async def test_the_types_parameters_and_case_do_not_matter(http: httpx.AsyncClient) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await http.post(CHAT, content=body(), headers=headers)).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate, gzip", "x"])
async def test_compressed_bodies_are_refused(http: httpx.AsyncClient, coding: str) -> None:
    response = await http.post(CHAT, content=body(), headers=JSON | {"content-encoding": coding})
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "identity"  # RFC 9110, 15.5.16
    assert f"without content-encoding {coding!r}" in response.json()["error"]["message"]
    plain = await http.post(CHAT, content=body(), headers=JSON | {"content-encoding": "identity"})
    assert plain.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", CHAT, 405), ("DELETE", "/v1/models", 405), ("POST", "/v1/files", 404)],
)
async def test_other_paths_and_methods_get_an_error_of_openais_shape(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await http.request(method, path)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["message"].startswith(f"{method} {path}: ")
    assert error["type"] == "invalid_request_error"
    assert ("allow" in response.headers) == (status == 405)
    assert error["code"] == "invalid_request"
