"""Where a test's clock jumps, the store's thread must not be waited for by the event loop."""

import pytest

from jobs.store.writer import Action, Writer


@pytest.fixture
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is on the disk before anything else happens."""

    async def write(self: Writer, action: Action) -> None:
        self.write_now(action)

    monkeypatch.setattr(Writer, "write", write)
