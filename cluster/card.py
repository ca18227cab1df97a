"""What cards this machine has. A machine without a GPU is one card: its RAM and its cores."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Card:
    """One card.

    name: what people call it; total_bytes: its memory; cores: CPU cores that compute on it.
    """

    name: str
    total_bytes: int
    cores: int


def this_machine() -> Card:
    """The CPU of this machine as a card: the cores that this process may use, and the RAM."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    cores = min(len(_affinity()), _cgroup_cores() or os.cpu_count() or 1)
    return Card(name="cpu", total_bytes=pages * page_bytes, cores=cores)


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))  # macOS has no affinity


def _cgroup_cores() -> int | None:
    """Whole cores that a container may use (cgroup v2 `cpu.max`), at least 1; None: no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))
