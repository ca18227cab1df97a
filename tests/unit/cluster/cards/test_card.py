"""The machine as a card: what this process may use, not what the machine has."""

import os
from pathlib import Path

import pytest

from cluster.cards import limits
from cluster.cards.card import GIB, this_machine

TOTAL_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True)
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The control groups of a container (without limits at first), on a machine of 8 cores."""
    monkeypatch.setattr(limits, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    return tmp_path / "sys/fs/cgroup"


def test_without_limits_it_is_the_whole_machine() -> None:
    whole = this_machine()
    assert (whole.name, whole.total_bytes, whole.cores) == ("cpu", TOTAL_BYTES, 8)
    assert whole.host_bytes == TOTAL_BYTES
    assert whole.remarks == ()


def test_affinity_bounds_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert this_machine().cores == 2


def test_a_container_bounds_both_and_the_card_says_so(groups: Path) -> None:
    (groups / "cpu.max").write_text("100000 100000\n")
    (groups / "memory.max").write_text(f"{3 * GIB}\n")
    small = this_machine()
    assert (small.cores, small.total_bytes, small.host_bytes) == (1, 3 * GIB, 3 * GIB)
    assert small.remarks == (
        "1 of 8 cores may be used: the limit in /sys/fs/cgroup/cpu.max",
        f"3.0 of {TOTAL_BYTES / GIB:.1f} GiB of RAM may be used: the limit in "
        "/sys/fs/cgroup/memory.max",
    )


def test_limits_above_what_there_is_change_nothing(groups: Path) -> None:
    (groups / "cpu.max").write_text("1600000 100000\n")
    (groups / "memory.max").write_text(f"{1 << 62}\n")
    large = this_machine()
    assert (large.cores, large.total_bytes, large.remarks) == (8, TOTAL_BYTES, ())


def test_a_system_without_affinity_has_all_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert this_machine().cores == 6
