"""When replicas are counted, who waits for a count, and what a failed count does."""

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from serve_app.access.admission import AdmissionControl
from serve_app.access.replica_counts import (
    COUNT_EVERY_S,
    STALE_S,
    WAIT_S,
    ReplicaCounter,
    ReplicaCounts,
)

pytestmark = pytest.mark.virtual_time


class Recorder(AdmissionControl):
    """Notes the counts that it is given."""

    def __init__(self) -> None:
        super().__init__({})
        self.counts: list[tuple[dict[str, int], int]] = []

    def set_counts(self, replicas: Any, ingresses: int) -> None:
        self.counts.append((dict(replicas), ingresses))


class Count:
    """Finds one replica more each time.

    Args:
        takes_s: how long each count takes.
        fails: the number of the count that fails, from 1.
    """

    def __init__(self, takes_s: float = 0.0, fails: int = 0) -> None:
        self.started = 0
        self._takes_s = takes_s
        self._fails = fails

    async def __call__(self) -> ReplicaCounts:
        self.started += 1
        await asyncio.sleep(self._takes_s)
        if self.started == self._fails:
            raise ConnectionError
        return ReplicaCounts({"m": self.started}, 2)


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_requests_wait_for_the_first_count_and_for_no_later_one() -> None:
    control, count = Recorder(), Count(takes_s=0.5)
    counter, began = ReplicaCounter(control, count), now()
    await asyncio.gather(*(counter.refresh() for _ in range(3)))
    assert control.counts == [({"m": 1}, 2)], "one count for all that came before there was any"
    assert now() - began == 0.5
    for _ in range(10):
        await counter.refresh()
    assert count.started == 1
    await asyncio.sleep(COUNT_EVERY_S)
    began = now()
    await counter.refresh()
    assert now() == began
    await asyncio.sleep(1)
    assert control.counts[1:] == [({"m": 2}, 2)]


async def test_after_a_long_silence_a_request_waits_for_a_new_count() -> None:
    control = Recorder()
    counter = ReplicaCounter(control, Count(takes_s=0.5))
    await counter.refresh()
    await asyncio.sleep(10 * STALE_S)
    await counter.refresh()
    assert control.counts == [({"m": 1}, 2), ({"m": 2}, 2)]


async def test_a_slow_count_delays_no_request_that_comes_later() -> None:
    control, count = Recorder(), Count(takes_s=60)
    counter, began = ReplicaCounter(control, count), now()
    await counter.refresh()
    assert now() - began == WAIT_S
    await asyncio.sleep(COUNT_EVERY_S)
    for _ in range(3):
        await counter.refresh()
    assert now() - began == WAIT_S + COUNT_EVERY_S
    assert count.started == 1, "nor is another one started beside it"
    await asyncio.sleep(60)
    assert control.counts == [({"m": 1}, 2)]


async def test_a_count_does_not_end_with_the_request_that_started_it() -> None:
    request: ContextVar[str | None] = ContextVar("request", default=None)
    seen: list[str | None] = []

    async def count() -> ReplicaCounts:
        seen.append(request.get())
        return ReplicaCounts({}, 1)

    request.set("Ray cancels what is asked on behalf of a cancelled call")
    await ReplicaCounter(Recorder(), count).refresh()
    assert seen == [None]


async def test_a_count_that_fails_is_logged_and_fails_no_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    control = Recorder()
    counter = ReplicaCounter(control, Count(fails=1))
    await counter.refresh()
    assert control.counts == []
    assert "the replicas could not be counted" in caplog.text
    await asyncio.sleep(COUNT_EVERY_S)
    await counter.refresh()
    assert control.counts == [({"m": 2}, 2)]


async def test_without_a_way_to_count_nothing_happens() -> None:
    control = Recorder()
    await ReplicaCounter(control, None).refresh()
    assert control.counts == []
