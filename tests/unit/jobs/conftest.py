"""Where a test's clock jumps, the store's thread must not be waited for by the event loop."""

import asyncio
from collections.abc import Callable

import pytest

from jobs.store.writer import Action, Writer
from tests.unit.scripts import JumpingLoop

JUMPING = {"test_calls.py", "test_generate.py"}


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name in JUMPING:
        return {"jumping": JumpingLoop}
    return {"real": asyncio.new_event_loop}


@pytest.fixture
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is on the disk before anything else happens."""

    async def write(self: Writer, action: Action) -> None:
        self.write_now(action)

    monkeypatch.setattr(Writer, "write", write)
