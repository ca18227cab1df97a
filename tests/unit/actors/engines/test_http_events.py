"""When the silence of a server ends a response."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from actors.engines.http_events import LOOKS, Silence

pytestmark = pytest.mark.virtual_time

LIMIT_S = 80.0


class Content:
    """The part of aiohttp's StreamReader that is looked at."""

    total_bytes = 0
    ended_by: BaseException | None = None

    def set_exception(self, error: BaseException) -> None:
        self.ended_by = error


def watched(content: Content) -> Silence:
    response: Any = SimpleNamespace(content=content, connection=None)
    silence = Silence(response, LIMIT_S)
    silence.is_awaited = True
    return silence


async def test_a_silent_server_ends_the_response_after_the_limit_and_not_before() -> None:
    content = Content()
    watched(content)
    await asyncio.sleep(LIMIT_S - 0.1)
    assert content.ended_by is None
    await asyncio.sleep(LIMIT_S / LOOKS + 0.2)
    assert isinstance(content.ended_by, TimeoutError)


async def test_a_byte_within_the_limit_is_enough() -> None:
    content = Content()
    watched(content)
    for _ in range(5):
        await asyncio.sleep(LIMIT_S - 0.1)
        content.total_bytes += 1
    assert content.ended_by is None
    await asyncio.sleep(LIMIT_S - 0.1)
    assert content.ended_by is None
    await asyncio.sleep(LIMIT_S / LOOKS + 0.2)
    assert isinstance(content.ended_by, TimeoutError)


async def test_nothing_ends_while_our_own_caller_does_not_read() -> None:
    content = Content()
    watched(content).is_awaited = False
    await asyncio.sleep(3 * LIMIT_S)
    assert content.ended_by is None


async def test_nothing_ends_after_the_watch() -> None:
    content = Content()
    watched(content).stop()
    await asyncio.sleep(3 * LIMIT_S)
    assert content.ended_by is None
