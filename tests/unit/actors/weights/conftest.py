"""A Hub on this machine, and a user who has fetched nothing yet."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.fake_hub import FakeHub, FakeRepo, checkpoint, point_client_at, serve_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub with the repository `o/n`: a checkpoint in two files of weights."""
    with serve_hub() as hub:
        hub.repos["o/n"] = FakeRepo(checkpoint())
        point_client_at(hub.url, tmp_path, monkeypatch)
        yield hub
