"""The HTTP engine against local servers that behave well, badly and oddly."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from email.utils import formatdate
from typing import Any, Protocol

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from actors.engine import Delta, Message
from actors.engines import openai_http, openai_wire
from actors.engines.openai_http import OpenAIHttpEngine
from actors.errors import (
    BadRequest,
    ContextTooLong,
    EngineError,
    EngineUnavailable,
    Overloaded,
    ServerUnreachable,
    SlimMoAError,
)
from configs.schema import OpenAIHttpModel, Sampling

MESSAGES: list[Message] = [{"role": "user", "content": "hello"}]
KEY = "sk-very-secret"
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Gives its replies in order, the last one again and again; keeps what it was asked."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = replies
        self.requests: list[web.Request] = []
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.peers: list[object] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.times.append(time.monotonic())
        assert request.transport is not None
        self.peers.append(request.transport.get_extra_info("peername"))
        self.bodies.append(await request.json())
        return await self.replies[min(len(self.bodies), len(self.replies)) - 1](request)


class Connect(Protocol):
    async def __call__(
        self, *replies: Reply, **settings: object
    ) -> tuple[OpenAIHttpEngine, Server]: ...


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Server], Awaitable[str]]]:
    """Put a server on a port; gives its origin."""
    async with AsyncExitStack() as stack:

        async def start(server: Server) -> str:
            app = web.Application()
            app.router.add_post("/v1/chat/completions", server.answer)
            listening = TestServer(app)
            await listening.start_server(shutdown_timeout=0.1)
            stack.push_async_callback(listening.close)
            return str(listening.make_url("/")).rstrip("/")

        yield start


@pytest.fixture
async def connect(serve: Callable[[Server], Awaitable[str]]) -> AsyncIterator[Connect]:
    """A started engine and its server, which gives these replies."""
    async with AsyncExitStack() as stack:

        async def make(*replies: Reply, **settings: object) -> tuple[OpenAIHttpEngine, Server]:
            server = Server(*replies)
            url = await serve(server)
            engine = OpenAIHttpEngine("far", model(**{"base_url": f"{url}/v1"} | settings))
            await engine.start()
            stack.push_async_callback(engine.stop)
            return engine, server

        yield make


def model(**settings: object) -> OpenAIHttpModel:
    quick = {"engine": "openai_http", "model": "m", "backoff_s": 0.001}
    return OpenAIHttpModel.model_validate(quick | settings)


def whole(body: bytes | str, content_type: str = "text/event-stream", status: int = 200) -> Reply:
    """A response that is all there at once."""

    async def reply(_request: web.Request) -> web.StreamResponse:
        raw = body.encode() if isinstance(body, str) else body
        return web.Response(body=raw, content_type=content_type, status=status)

    return reply


def piecewise(*parts: str, then: Callable[[web.Request], Awaitable[object]] | None = None) -> Reply:
    """A stream that is written part by part; `then` happens before it would end."""

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await response.write(part.encode())
        if then is not None:
            await then(request)
        return response

    return reply


def refusal(status: int, error: object = "no", **headers: str) -> Reply:
    async def reply(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": error}, status=status, headers=headers)

    return reply


async def hang(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def disconnect(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


def chunk(text: str | None = None, finish: str | None = None, **more: object) -> str:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]} | more)}\n\n"


USAGE = {"prompt_tokens": 7, "completion_tokens": 2}
COUNTED = f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\n"
DONE = "data: [DONE]\n\n"
HELLO = chunk("Hel") + chunk("lo") + chunk(finish="stop") + COUNTED + DONE


async def answer(engine: OpenAIHttpEngine, **sampling: object) -> list[Delta]:
    return [d async for d in engine.stream(MESSAGES, Sampling.model_validate(sampling))]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


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


LATE_FAULTS: list[tuple[str, str]] = [
    ("", "the answer ends early"),
    ('data: {"error": {"message": "out of memory"}}\n\n', "out of memory"),
    ('data: {"error": "out of memory"}\n\n', "out of memory"),
    ("data: {]\n\n", "not a chat chunk"),
    ("data: 5\n\n", "not a chat chunk"),
    ("data: null\n\n", "not a chat chunk"),
    ('data: {"choices": 3}\n\n', "not a chat chunk"),
    ('data: {"choices": [{"delta": {"content": 3}}]}\n\n', "not a chat chunk"),
    ('data: {"choices": [{"delta": {"content": "\\ud83d"}}]}\n\n', "not a chat chunk"),
    (f"data: {'x' * 5_000_000}\n\n", "an event of more than"),
]


@pytest.mark.parametrize(("fault", "said"), LATE_FAULTS)
async def test_a_fault_after_the_first_token_is_an_error_and_no_second_attempt(
    connect: Connect, fault: str, said: str
) -> None:
    engine, server = await connect(whole(chunk("Hel") + fault))
    deltas = engine.stream(MESSAGES, Sampling())
    assert (await anext(deltas)).text == "Hel"
    with pytest.raises(EngineError, match=said) as failure:
        await anext(deltas)
    assert failure.value.model == "far"
    assert len(failure.value.message) < 700
    assert len(server.requests) == 1


async def test_a_disconnect_after_the_first_token_is_an_error(connect: Connect) -> None:
    engine, server = await connect(piecewise(chunk("Hel"), then=disconnect))
    with pytest.raises(EngineError):
        await answer(engine)
    assert len(server.requests) == 1


async def test_a_disconnect_after_the_end_of_the_answer_is_none(connect: Connect) -> None:
    engine, _ = await connect(piecewise(chunk("Hello", "stop"), then=disconnect))
    assert text(await answer(engine)) == "Hello"


async def test_silence_after_the_first_token_is_an_error(connect: Connect) -> None:
    engine, server = await connect(piecewise(chunk("Hel"), then=hang), read_timeout_s=0.05)
    with pytest.raises(EngineError, match=r"silent for 0\.05 s"):
        await answer(engine)
    assert len(server.requests) == 1


EARLY_FAULTS: list[tuple[Reply, type[SlimMoAError], str]] = [
    (refusal(408), EngineError, "answered 408"),
    (refusal(429), Overloaded, "answered 429"),
    (refusal(500), EngineError, "answered 500"),
    (refusal(502), EngineError, "answered 502"),
    (refusal(503), EngineError, "answered 503"),
    (refusal(504), EngineError, "answered 504"),
    (whole(""), ServerUnreachable, "ends early"),
    (whole("<html>hello</html>", "text/html"), ServerUnreachable, "ends early"),
    (piecewise(then=disconnect), ServerUnreachable, "/v1: ."),
    (piecewise(": comment\n\n", then=disconnect), ServerUnreachable, "/v1: ."),
    (hang, ServerUnreachable, r"silent for 0\.05 s"),
]


@pytest.mark.parametrize(("fault", "error", "said"), EARLY_FAULTS)
async def test_a_fault_before_the_first_token_is_tried_again(
    connect: Connect, fault: Reply, error: type[SlimMoAError], said: str
) -> None:
    settings = {"retries": 2, "read_timeout_s": 0.05}
    engine, server = await connect(fault, fault, whole(HELLO), **settings)
    assert text(await answer(engine)) == "Hello"
    engine, server = await connect(fault, **settings)
    with pytest.raises(error, match=said) as failure:
        await answer(engine)
    assert type(failure.value) is error
    assert failure.value.model == "far"
    assert len(server.requests) == 3


TOO_LONG = {"message": "This model's maximum context length is 8 tokens", "type": "BadRequestError"}
REFUSALS: list[tuple[Reply, type[SlimMoAError], str]] = [
    (refusal(400, {"message": "bad seed"}), BadRequest, "answered 400: bad seed"),
    (refusal(422, {"message": "bad seed"}), BadRequest, "answered 422: bad seed"),
    (refusal(400, {"message": "m", "code": "context_length_exceeded"}), ContextTooLong, "400"),
    (refusal(400, {"message": "m", "type": "exceed_context_size_error"}), ContextTooLong, "400"),
    (refusal(400, TOO_LONG), ContextTooLong, "maximum context length"),
    (whole(f'data: {{"error": {json.dumps(TOO_LONG)}}}\n\n'), ContextTooLong, "maximum context"),
    (whole(json.dumps({"error": "broken"}), "application/json"), EngineError, "broken"),
    (refusal(401, {"message": "wrong key"}), EngineError, "answered 401: wrong key"),
    (refusal(403), EngineError, "answered 403: no"),
    (refusal(404, {"message": "no such model"}), EngineError, "answered 404: no such model"),
    (whole("<h1>Not here</h1>", "text/html", 404), EngineError, "answered 404: <h1>Not here"),
    (whole("", "text/plain", 404), EngineError, "answered 404: Not Found"),
    (whole("[1]", "application/json", 405), EngineError, r"answered 405: \[1\]"),
    (refusal(418, "x" * 10_000), EngineError, "answered 418"),
]


@pytest.mark.parametrize(("reply", "error", "said"), REFUSALS)
async def test_a_refusal_is_final_and_says_why(
    connect: Connect, reply: Reply, error: type[SlimMoAError], said: str
) -> None:
    engine, server = await connect(reply)
    with pytest.raises(error, match=said) as failure:
        await answer(engine)
    assert type(failure.value) is error
    assert failure.value.model == "far"
    assert len(failure.value.message) < 700
    assert len(server.requests) == 1


async def test_a_redirect_is_not_followed(connect: Connect) -> None:
    async def redirect(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=301, headers={"Location": "https://elsewhere/v1"}, body=b"")

    engine, server = await connect(redirect)
    with pytest.raises(EngineError, match="answered 301: https://elsewhere/v1"):
        await answer(engine)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [200, 401, 500])
async def test_the_key_is_sent_but_never_repeated(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("FAR_KEY", f" {KEY}\n")
    reply = refusal(status, {"message": f"{KEY} is not a key; {KEY} is not"})
    engine, server = await connect(reply, api_key_env="FAR_KEY", retries=0)
    with pytest.raises(EngineError, match=r"\*\*\* is not a key") as failure:
        await answer(engine)
    assert KEY not in failure.value.message
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("value", [None, "", " "])
async def test_a_missing_key_is_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("FAR_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("FAR_KEY", value)
    engine = OpenAIHttpEngine("far", model(base_url="http://localhost/v1", api_key_env="FAR_KEY"))
    with pytest.raises(EngineUnavailable, match="FAR_KEY"):
        await engine.start()


async def test_retry_after_is_waited_for_up_to_a_limit(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_http, "MOST_BACKOFF_S", 0.1)
    headers = {"Retry-After": "3600"}
    engine, server = await connect(refusal(429, **headers), whole(HELLO))
    assert text(await answer(engine)) == "Hello"
    assert server.times[1] - server.times[0] >= 0.1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3),
        ("0.5", 0.5),
        (formatdate(1_000_060, usegmt=True), 60),
        (formatdate(999_000, usegmt=True), -1000),
        ("", 0),
        ("soon", 0),
        ("²", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(
    monkeypatch: pytest.MonkeyPatch, header: str, seconds: float
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    assert openai_wire.retry_after_s(header) == seconds


async def test_nobody_listening_is_unavailable_after_the_retries(
    connect: Connect, unused_tcp_port: int
) -> None:
    engine, _ = await connect(base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    with pytest.raises(EngineUnavailable, match="Cannot connect"):
        await answer(engine)


async def test_a_connection_that_does_not_come_about_is_given_up(connect: Connect) -> None:
    async def mute(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closing.wait()
        writer.close()

    # TLS needs an answer before the connection is there.
    closing = asyncio.Event()
    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"https://127.0.0.1:{port}/v1"
        engine, _ = await connect(base_url=url, connect_timeout_s=0.05, retries=1)
        with pytest.raises(EngineUnavailable, match=r"no connection within 0\.05 s"):
            await answer(engine)
        closing.set()


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
    monkeypatch.setattr(openai_http, "LINGER_S", 0.01)
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
async def test_sampling_is_sent_and_defaults_of_penalties_are_not(
    connect: Connect, sampling: dict[str, object], sent: dict[str, object]
) -> None:
    engine, server = await connect(whole(HELLO))
    await answer(engine, **sampling)
    always = {
        "model": "m",
        "messages": MESSAGES,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.7,
        "top_p": 1,
        "max_tokens": 512,
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
    ends = openai_wire.estimated_ends(sample, ratio)
    assert ends == sorted(ends)
    assert ends[-1:] == ([len(sample)] if sample else [])
    assert len(ends) >= sum(not character.isascii() for character in sample)
    for n, end in enumerate(ends, 1):
        assert len(openai_wire.estimated_ends(sample[:end], ratio)) <= n
