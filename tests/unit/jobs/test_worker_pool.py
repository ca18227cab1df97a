"""Many items are worked on at once, and never more than allowed."""

import asyncio
from collections.abc import Iterator

import pytest

from jobs.worker_pool import work_on_all

pytestmark = pytest.mark.virtual_time


async def test_so_many_items_are_worked_on_at_once_and_drawn_only_then() -> None:
    drawn: list[int] = []
    running: set[int] = set()
    most: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10):
            drawn.append(item)
            yield item

    async def work(item: int) -> None:
        running.add(item)
        most.append(len(running))
        assert len(drawn) <= item + 3
        await asyncio.sleep(1 + item % 2)
        running.remove(item)

    await work_on_all(items(), work, 3)
    assert drawn == list(range(10))
    assert max(most) == 3
    assert not running


async def test_the_first_error_ends_all_work() -> None:
    began: list[int] = []
    ended: list[int] = []

    async def work(item: int) -> None:
        began.append(item)
        if item == 2:
            raise ZeroDivisionError("a defect")
        await asyncio.sleep(10)
        ended.append(item)

    with pytest.raises(ZeroDivisionError, match="a defect"):
        await work_on_all(range(10), work, 3)
    assert (began, ended) == ([0, 1, 2], [])


async def test_no_items_are_no_work() -> None:
    await work_on_all([], asyncio.sleep, 3)
