"""Virtual time for what is asynchronous."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest


class InstantLoop(asyncio.SelectorEventLoop):
    """Nothing waits: when no callback is ready, it is already the time of the next timer."""

    _virtual = 0.0

    def time(self) -> float:
        return self._virtual

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._virtual = max(self._virtual, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def _run(scene: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3_000):
            await scene

    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(bounded())


@pytest.fixture(scope="session")
def in_virtual_time() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine on a loop whose clock jumps from timer to timer."""
    return _run
