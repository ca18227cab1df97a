"""Fixtures of runs. On a clock that jumps, the event loop must not wait for the store's thread."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.store import Store
from jobs.store.writer import Action, Writer
from tests.unit.jobs.answering import Bench
from tests.unit.jobs.fake_apps import Apps


@pytest.fixture
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write is on the disk before anything else happens."""

    async def write(self: Writer, action: Action) -> None:
        self.write_now(action)

    monkeypatch.setattr(Writer, "write", write)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Store.open(tmp_path) as store:
        yield Bench(store)


@pytest.fixture
def apps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Apps]:
    """Jobs find these applications instead of those on a cluster."""
    found = Apps()
    monkeypatch.setattr("jobs.run.open_model_app", found.open)
    before = signal.getsignal(signal.SIGTERM)
    yield found
    signal.signal(signal.SIGTERM, before)
