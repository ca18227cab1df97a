"""When replicas are counted, and what becomes of a count that fails."""

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from serve_app.access.admission import AdmissionControl
from serve_app.access.replica_counts import LOOK_S, STALE_S, WAIT_S, ReplicaCounter, ReplicaCounts

pytestmark = pytest.mark.virtual_time


class Told(AdmissionControl):
    def __init__(self) -> None:
        super().__init__({})
        self.told: list[tuple[dict[str, int], int]] = []

    def count(self, replicas: Any, ingresses: int) -> None:
        self.told.append((dict(replicas), ingresses))


class Look:
    """takes_s: each look; fails: at which look, from 1."""

    def __init__(self, takes_s: float = 0.0, fails: int = 0) -> None:
        self.looks, self._takes_s, self._fails = 0, takes_s, fails

    async def __call__(self) -> ReplicaCounts:
        self.looks += 1
        await asyncio.sleep(self._takes_s)
        if self.looks == self._fails:
            raise ConnectionError
        return ReplicaCounts({"m": self.looks}, 2)


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_requests_wait_for_the_first_count_and_then_no_more() -> None:
    ledger, look = Told(), Look(takes_s=0.5)
    census, began = ReplicaCounter(ledger, look), now()
    await asyncio.gather(*(census.keep() for _ in range(3)))
    assert ledger.told == [({"m": 1}, 2)], "of all that came before there was a count"
    assert now() - began == 0.5
    for _ in range(10):
        await census.keep()
    assert look.looks == 1
    await asyncio.sleep(LOOK_S)
    began = now()
    await census.keep()
    assert now() == began
    await asyncio.sleep(1)
    assert ledger.told[1:] == [({"m": 2}, 2)]


async def test_a_count_from_before_a_long_silence_is_none() -> None:
    ledger, look = Told(), Look(takes_s=0.5)
    census = ReplicaCounter(ledger, look)
    await census.keep()
    await asyncio.sleep(10 * STALE_S)
    await census.keep()
    assert ledger.told == [({"m": 1}, 2), ({"m": 2}, 2)]


async def test_a_look_that_takes_long_holds_up_nobody_who_comes_later() -> None:
    ledger, look = Told(), Look(takes_s=60)
    slow, began = ReplicaCounter(ledger, look), now()
    await slow.keep()
    assert now() - began == WAIT_S
    await asyncio.sleep(LOOK_S)
    for _ in range(3):
        await slow.keep()
    assert now() - began == WAIT_S + LOOK_S
    assert look.looks == 1, "nor is another one begun beside it"
    await asyncio.sleep(60)
    assert ledger.told == [({"m": 1}, 2)]


async def test_a_look_is_of_all_requests_and_not_of_the_one_that_began_it() -> None:
    request: ContextVar[str | None] = ContextVar("request", default=None)
    ours: list[str | None] = []

    async def look() -> ReplicaCounts:
        ours.append(request.get())
        return ReplicaCounts({}, 1)

    request.set("Ray cancels what is asked on behalf of a cancelled call")
    await ReplicaCounter(Told(), look).keep()
    assert ours == [None]


async def test_a_look_that_fails_costs_no_request() -> None:
    ledger = Told()
    failing = ReplicaCounter(ledger, Look(fails=1))
    await failing.keep()
    assert ledger.told == []
    await asyncio.sleep(LOOK_S)
    await failing.keep()
    assert ledger.told == [({"m": 2}, 2)]
