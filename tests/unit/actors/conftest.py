"""Virtual time for tests that are no coroutines themselves."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.unit.scripts import JumpingLoop


def _run(scene: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(scene)


@pytest.fixture(scope="session")
def in_virtual_time() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine on a loop whose clock jumps to the next timer."""
    return _run
