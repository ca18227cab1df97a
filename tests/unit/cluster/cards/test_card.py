"""The machine as a card: what this process may use, not what the machine has."""

import os
from pathlib import Path

import pytest

from cluster.cards import card
from cluster.cards.card import this_machine

TOTAL_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True)
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container's limits (none at first), on a machine of 8 cores."""
    monkeypatch.setattr(card, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path


def test_without_limits_it_is_the_whole_machine() -> None:
    whole = this_machine()
    assert (whole.name, whole.total_bytes, whole.cores) == ("cpu", TOTAL_BYTES, 8)
    assert whole.host_bytes == TOTAL_BYTES


def test_affinity_bounds_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert this_machine().cores == 2


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000\n", 8),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("", 8),
        ("nonsense\n", 8),
        ("x 100000\n", 8),
    ],
)
def test_a_container_bounds_the_cores(cgroup: Path, cpu_max: str, cores: int) -> None:
    (cgroup / "cpu.max").write_text(cpu_max)
    assert this_machine().cores == cores


@pytest.mark.parametrize(
    ("memory_max", "total_bytes"), [("max\n", TOTAL_BYTES), ("1048576\n", 1 << 20), ("", TOTAL_BYTES)]
)
def test_a_container_bounds_the_memory(cgroup: Path, memory_max: str, total_bytes: int) -> None:
    (cgroup / "memory.max").write_text(memory_max)
    assert this_machine().total_bytes == total_bytes


def test_a_system_without_affinity_has_all_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert this_machine().cores == 6
