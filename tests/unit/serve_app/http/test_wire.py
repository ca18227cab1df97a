"""Raw connections to uvicorn, which Serve's proxy runs too: `tests/ray/test_access.py`."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest

from serve_app.access.api_keys import Key, generate_key
from serve_app.http.api import create_api
from tests.unit.serve_app.conftest import Scripted, listening, recipe
from tests.wire import CLOSE, ambiguous, asked, attempt, head, post, smuggled

KEY = generate_key()


@pytest.fixture
async def url(scripted: Scripted) -> AsyncIterator[str]:
    settings = recipe(read_timeout_s=0.2, max_body_bytes=4096)
    key = Key("alice", hashlib.sha256(KEY.encode()).digest())
    async with listening(create_api(settings, scripted, [key])) as url:
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
    sent = head("X: " + "x" * 1_000_000, CLOSE)
    assert 200 not in await asyncio.to_thread(attempt, url, sent)
