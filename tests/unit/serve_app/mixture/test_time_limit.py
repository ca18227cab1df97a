"""A limit of time that holds for many waits, and for nothing between them."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from serve_app.mixture.time_limit import TimeLimit

pytestmark = pytest.mark.virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
async def limit() -> AsyncIterator[TimeLimit]:
    """A limit in 10 s."""
    made = TimeLimit(now() + 10)
    yield made
    made.close()


async def test_a_wait_ends_at_the_limit(limit: TimeLimit) -> None:
    began = now()
    for _ in range(3):
        with limit:
            await asyncio.sleep(3)
    with pytest.raises(TimeoutError), limit:
        await asyncio.sleep(3)
    assert now() - began == 10


async def test_between_the_waits_the_limit_ends_nothing(limit: TimeLimit) -> None:
    with limit:
        await asyncio.sleep(1)
    await asyncio.sleep(100)
    with pytest.raises(TimeoutError), limit:
        pytest.fail("the block began after the limit")


async def test_the_limit_can_be_moved(limit: TimeLimit) -> None:
    began = now()
    with limit:
        await asyncio.sleep(1)
    limit.when += 20
    with limit:
        await asyncio.sleep(15)
    with pytest.raises(TimeoutError), limit:
        await asyncio.sleep(15)
    assert now() - began == 30


async def test_the_task_can_go_on_after_the_limit(limit: TimeLimit) -> None:
    with pytest.raises(TimeoutError), limit:
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(1)


async def test_a_cancellation_is_not_taken_for_the_limit(limit: TimeLimit) -> None:
    async def wait() -> None:
        with limit:
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    asyncio.get_running_loop().call_at(limit.when, task.cancel)  # at the same time as the limit
    await asyncio.wait([task])
    assert task.cancelled()


async def test_an_error_in_the_block_is_passed_on(limit: TimeLimit) -> None:
    with pytest.raises(ValueError, match="own"), limit:
        raise ValueError("own")


async def test_waits_share_one_timer(limit: TimeLimit, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, set_at = asyncio.get_running_loop(), list[float]()
    call_at = loop.call_at

    def count(when: float, callback: Callable[..., object]) -> asyncio.TimerHandle:
        set_at.append(when)
        return call_at(when, callback)

    monkeypatch.setattr(loop, "call_at", count)
    for _ in range(100):
        with limit:
            await asyncio.sleep(0)
    assert set_at == [limit.when]
