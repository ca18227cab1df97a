"""Raw connections to the listener, and clients that people have. `tests/ray/test_access.py` sends the
same bytes to a served recipe."""

import asyncio
import hashlib
import json
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from starlette.types import Receive, Scope, Send

from serve_app.access.api_keys import Key, generate_key
from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import Scripted, listening, recipe
from tests.wire import (
    CHAT,
    CLOSE,
    UPGRADES,
    Answer,
    Wire,
    ambiguous,
    asked,
    attempt,
    head,
    post,
    smuggled,
    upgrading,
)

KEY = generate_key()
IDLE = 1000
MANY = 100_000


@pytest.fixture
async def url(scripted: Scripted) -> AsyncIterator[str]:
    settings = recipe(read_timeout_s=0.2, max_body_bytes=4096)
    key = Key("alice", hashlib.sha256(KEY.encode()).digest())
    async with listening(create_api(settings, scripted, [key]), head_timeout_s=0.2) as url:
        yield url


async def test_a_key_is_heard(url: str) -> None:
    body = asked("mix")
    sent = post(KEY, f"Content-Length: {len(body)}", CLOSE)
    assert await asyncio.to_thread(attempt, url, sent, body) == [200]


@pytest.mark.parametrize("name", ambiguous(KEY))
async def test_headers_and_paths_of_two_meanings_open_nothing(url: str, name: str) -> None:
    sent, expected = ambiguous(KEY)[name]
    assert await asyncio.to_thread(attempt, url, sent) == expected


async def test_a_body_of_two_lengths_smuggles_no_request(url: str) -> None:
    assert 200 not in await asyncio.to_thread(smuggled, url, KEY)


async def test_a_body_too_large_is_refused_while_it_comes(url: str) -> None:
    sent = post(KEY, "Content-Length: 1000000000")
    assert await asyncio.to_thread(attempt, url, sent, " " * 8192) == [413]


async def test_a_slow_body_is_refused_and_the_connection_closed(url: str) -> None:
    assert await asyncio.to_thread(attempt, url, post(KEY, "Content-Length: 500"), "{") == [408]


async def test_headers_of_any_size_open_nothing(url: str) -> None:
    sent = head(f"Authorization: Bearer {KEY}", "X: " + "x" * 1_000_000, CLOSE)
    assert await asyncio.to_thread(attempt, url, sent) in ([431], [])


@pytest.mark.parametrize("sent", ["", "GET / HTTP/1.1\nHost: loc"])
async def test_headers_that_stop_close_the_connection(url: str, sent: str) -> None:
    assert await asyncio.to_thread(attempt, url, sent) == ([408] if sent else [])


def exchange(url: str, *packets: str) -> list[Answer]:
    """What some packets get, over a connection that the server closes."""
    with Wire(url) as wire:
        for packet in packets:
            wire.send("", packet)
        return wire.answers()


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("packets", [1, 2])
async def test_an_offer_to_upgrade_changes_nothing(url: str, upgrade: str, packets: int) -> None:
    sent, body = upgrading(KEY, UPGRADES[upgrade])
    parts = [sent, body] if packets == 2 else [sent + body]
    found = await asyncio.to_thread(exchange, url, *parts)
    assert [answer.status for answer in found] == [200]


async def test_a_body_after_an_offer_to_upgrade_smuggles_no_request(url: str) -> None:
    hidden = head(f"Authorization: Bearer {KEY}", CLOSE).replace("\n", "\r\n")
    for lines in UPGRADES.values():
        sent, _ = upgrading(KEY, lines, hidden)
        found = await asyncio.to_thread(exchange, url, sent + hidden)
        assert [answer.status for answer in found] == [400]


async def test_a_client_of_http_1_0_gets_text_and_the_end(url: str) -> None:
    body = asked("mix", stream=True)
    sent = post(KEY, f"Content-Length: {len(body)}").replace("HTTP/1.1", "HTTP/1.0")
    (answer,) = await asyncio.to_thread(exchange, url, sent.replace("\n", "\r\n") + body)
    events = answer.body.removesuffix("\n\n").split("\n\n")
    assert all(event.startswith("data: ") for event in events)
    assert events[-1] == "data: [DONE]"


async def test_pipelined_requests_get_their_answers_in_order(url: str) -> None:
    body = asked("mix")
    first = post(KEY, f"Content-Length: {len(body)}").replace("\n", "\r\n") + body
    last = head(f"Authorization: Bearer {KEY}", CLOSE).replace("\n", "\r\n")
    found = await asyncio.to_thread(exchange, url, first + first + last)
    objects = [json.loads(answer.body)["object"] for answer in found]
    assert objects == ["chat.completion", "chat.completion", "list"]


async def test_a_thousand_idle_connections_hold_nobody_up(url: str) -> None:
    need = 2 * IDLE + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < need:
        pytest.skip("this process may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
    host, port = url.removeprefix("http://").split(":")
    async with AsyncExitStack() as stack:
        for _ in range(IDLE):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
        body = asked("mix")
        sent = post(KEY, f"Content-Length: {len(body)}", CLOSE)
        assert await asyncio.to_thread(attempt, url, sent, body) == [200]


async def test_a_client_that_reads_nothing_holds_nobody_up() -> None:
    sends = 0

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal sends
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while scope["path"] == "/endless" and sends < MANY:
            sends += 1
            await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"short"})

    async with listening(app) as url:
        with Wire(url) as reader:
            reader.send(head(path="/endless"))
            for _ in range(20):
                assert await asyncio.to_thread(attempt, url, head(CLOSE)) == [200]
        # The client has left, and the app still sends; it has not had the loop to itself.
        assert await asyncio.to_thread(attempt, url, head(CLOSE)) == [200]
        assert sends < MANY


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize(
    "options",
    [["--http2"], ["--http1.0"], ["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"]],
    ids=" ".join,
)
@pytest.mark.parametrize("stream", [False, True])
async def test_curl(url: str, options: list[str], stream: bool) -> None:
    headers = ["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json"]
    if options == ["--http2"] and "HTTP2" not in run("curl", "--version"):
        pytest.skip("this curl has no HTTP/2")
    body = asked("mix", stream=stream)
    said = await asyncio.to_thread(
        run, "curl", "-sS", "-i", *options, *headers, "-d", body, f"{url}{CHAT}"
    )
    assert "HTTP/1.1 200" in said
    assert said.rstrip().endswith("data: [DONE]" if stream else "}")


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node here")
async def test_node(url: str) -> None:
    script = f"""
        const options = {{method: 'POST', agent: new (require('http').Agent)({{keepAlive: true}}),
            headers: {{'content-type': 'application/json', authorization: 'Bearer {KEY}'}}}};
        const ask = (body, next) => {{
            const request = require('http').request('{url}{CHAT}', options, response => {{
                let text = '';
                response.on('data', part => text += part);
                response.on('end', () => {{
                    console.log(response.statusCode, text.length > 500);
                    next();
                }});
            }});
            request.end(body);
        }};
        ask(`{asked("mix")}`, () => ask(`{asked("mix", stream=True)}`, () => process.exit()));
    """
    assert await asyncio.to_thread(run, "node", "-e", script) == "200 true\n200 true\n"
