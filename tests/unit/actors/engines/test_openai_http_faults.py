"""The HTTP engine against servers that fail: which calls it tries again and which errors it raises."""

import asyncio
import json
import time
from email.utils import formatdate

import pytest
from aiohttp import web

from actors.engines import openai_errors, openai_http
from actors.engines.openai_http import OpenAIHttpEngine
from configs.errors import (
    BadRequest,
    ContextTooLong,
    EngineError,
    EngineUnavailable,
    Overloaded,
    RequestError,
    ServerUnreachable,
)
from configs.schema import Sampling
from tests.unit.actors.engines.http_servers import (
    HELLO,
    KEY,
    MESSAGES,
    Connect,
    Reply,
    answer,
    chunk,
    disconnect,
    hang,
    model,
    piecewise,
    refusal,
    text,
    whole,
)

LATE_FAULTS: list[tuple[str, str]] = [
    ("", "the answer ends early"),
    ('data: {"error": {"message": "out of memory"}}\n\n', "out of memory"),
    ('data: {"error": "out of memory"}\n\n', "out of memory"),
    ("data: {]\n\n", "not a chat chunk"),
    ('data: {"choices": [{"delta": {"content": "\n\n', "not a chat chunk"),
    (f"data: {'[' * 100_000}\n\n", "not a chat chunk"),
    ("data: 5\n\ndata: null\n\ndata: ping\n\n", "the answer ends early"),
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


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_disconnect_after_the_first_token_is_an_error(connect: Connect, streamed: bool) -> None:
    engine, server = await connect(piecewise(chunk("Hel"), then=disconnect))
    with pytest.raises(EngineError):
        await answer(engine, streamed=streamed)
    assert len(server.requests) == 1


async def test_a_disconnect_after_the_end_of_the_answer_is_none(connect: Connect) -> None:
    engine, _ = await connect(piecewise(chunk("Hello", "stop"), then=disconnect))
    assert text(await answer(engine)) == "Hello"


@pytest.mark.parametrize("streamed", [True, False])
async def test_silence_after_the_first_token_is_an_error(connect: Connect, streamed: bool) -> None:
    engine, server = await connect(piecewise(chunk("Hel"), then=hang), read_timeout_s=0.05)
    with pytest.raises(EngineError, match=r"silent for 0\.05 s"):
        await answer(engine, streamed=streamed)
    assert len(server.requests) == 1


async def test_silence_on_a_connection_that_served_a_call_before_is_an_error_too(
    connect: Connect,
) -> None:
    engine, server = await connect(whole(HELLO), hang, read_timeout_s=0.05, retries=0)
    assert text(await answer(engine)) == "Hello"
    with pytest.raises(ServerUnreachable, match=r"silent for 0\.05 s"):
        await answer(engine)
    assert server.peers[0] == server.peers[1]


EARLY_FAULTS: list[tuple[Reply, type[RequestError], str]] = [
    (refusal(408), EngineError, "answered 408"),
    (refusal(429), Overloaded, "answered 429"),
    (refusal(500), EngineError, "answered 500"),
    (refusal(502), EngineError, "answered 502"),
    (refusal(503), EngineError, "answered 503"),
    (refusal(504), EngineError, "answered 504"),
    (whole(""), ServerUnreachable, "ends early"),
    (whole("<html>hello</html>", "text/html"), EngineError, "/v1: hello$"),
    (whole(json.dumps({"error": "broken"}), "application/json"), EngineError, "/v1: broken$"),
    (whole("data: {]\n\n"), EngineError, "not a chat chunk"),
    (piecewise(then=disconnect), ServerUnreachable, "/v1: ."),
    (piecewise(": comment\n\n", then=disconnect), ServerUnreachable, "/v1: ."),
    (hang, ServerUnreachable, r"silent for 0\.05 s"),
]


@pytest.mark.parametrize(("fault", "error", "said"), EARLY_FAULTS)
async def test_a_fault_before_the_first_token_is_tried_again(
    connect: Connect, fault: Reply, error: type[RequestError], said: str
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
REFUSALS: list[tuple[Reply, type[RequestError], str]] = [
    (refusal(400, {"message": "bad seed"}), BadRequest, "answered 400: bad seed"),
    (refusal(422, {"message": "bad seed"}), BadRequest, "answered 422: bad seed"),
    (refusal(400, {"message": "m", "code": "context_length_exceeded"}), ContextTooLong, "400"),
    (refusal(400, {"message": "m", "type": "exceed_context_size_error"}), ContextTooLong, "400"),
    (refusal(400, TOO_LONG), ContextTooLong, "maximum context length"),
    (whole(f'data: {{"error": {json.dumps(TOO_LONG)}}}\n\n'), ContextTooLong, "maximum context"),
    (refusal(401, {"message": "wrong key"}), EngineError, "answered 401: wrong key"),
    (refusal(403), EngineError, "answered 403: no"),
    (refusal(404, {"message": "no such model"}), EngineError, "answered 404: no such model"),
    (whole("<h1>Not here</h1>", "text/html", 404), EngineError, "answered 404: Not here$"),
    (whole("", "text/plain", 404), EngineError, "answered 404: Not Found"),
    (whole("[1]", "application/json", 405), EngineError, r"answered 405: \[1\]"),
    (refusal(418, "x" * 10_000), EngineError, "answered 418"),
]


@pytest.mark.parametrize(("reply", "error", "said"), REFUSALS)
async def test_a_refusal_is_final_and_says_why(
    connect: Connect, reply: Reply, error: type[RequestError], said: str
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
        (formatdate(999_000, usegmt=True), 0),
        ("Mon, 12 Jan 1970 13:47:40 -0000", 60),
        ("Mon, 12 Jan 1970 13:47:40", 60),
        ("inf", 0),
        ("nan", 0),
        ("-5", 0),
        ("", 0),
        ("soon", 0),
        ("²", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(
    monkeypatch: pytest.MonkeyPatch, header: str, seconds: float
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    assert openai_errors.retry_after_s({"Retry-After": header}) == seconds


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
