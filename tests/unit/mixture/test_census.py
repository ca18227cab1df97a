"""When replicas are counted, and what becomes of a count that fails."""

import asyncio
from typing import Any

from serve_app.census import FIRST_S, LOOK_S, Census, Running
from serve_app.ledger import Ledger


class Told(Ledger):
    def __init__(self) -> None:
        super().__init__({})
        self.told: list[tuple[dict[str, int], int]] = []

    def count(self, replicas: Any, ingresses: int) -> None:
        self.told.append((dict(replicas), ingresses))


class Look:
    """takes_s: each look; fails: at which look, from 1."""

    def __init__(self, takes_s: float = 0.0, fails: int = 0) -> None:
        self.looks, self._takes_s, self._fails = 0, takes_s, fails

    async def __call__(self) -> Running:
        self.looks += 1
        await asyncio.sleep(self._takes_s)
        if self.looks == self._fails:
            raise ConnectionError
        return Running({"m": self.looks}, 2)


async def test_the_first_request_waits_and_the_others_look_now_and_then() -> None:
    ledger, look = Told(), Look(takes_s=0.5)
    census = Census(ledger, look)
    await census.keep()
    assert ledger.told == [({"m": 1}, 2)]
    for _ in range(10):
        await census.keep()
    assert look.looks == 1
    await asyncio.sleep(LOOK_S)
    began = asyncio.get_running_loop().time()
    await census.keep()
    assert asyncio.get_running_loop().time() == began, "only the first waits"
    await asyncio.sleep(1)
    assert ledger.told[1:] == [({"m": 2}, 2)]


async def test_a_look_that_takes_long_or_fails_costs_no_request() -> None:
    ledger = Told()
    slow = Census(ledger, Look(takes_s=60))
    began = asyncio.get_running_loop().time()
    await slow.keep()
    assert asyncio.get_running_loop().time() - began == FIRST_S
    failing = Census(ledger, Look(fails=1))
    await failing.keep()
    await asyncio.sleep(LOOK_S)
    await failing.keep()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert ledger.told == [({"m": 2}, 2)]
