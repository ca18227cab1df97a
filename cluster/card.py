"""What cards this machine has. A machine without a GPU is one card: its RAM and its cores."""

import os
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # version 2; limits of a container stand here


@dataclass(frozen=True, slots=True)
class Card:
    """One card.

    name: what people call it; total_bytes: its memory; cores: CPU cores that compute on it.
    """

    name: str
    total_bytes: int
    cores: int


def this_machine() -> Card:
    """The CPU of this machine as a card: the cores and the memory that this process may use."""
    cores = [len(_affinity())]
    match _limits("cpu.max"):
        case [int(quota), int(period)]:
            cores.append(max(1, quota // period))
    memory = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_limits("memory.max")]
    return Card(name="cpu", total_bytes=min(memory), cores=min(cores))


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))  # macOS has no affinity


def _limits(file: str) -> list[int]:
    """The numbers in a cgroup file; none where there is no limit ("max") or no such file."""
    try:
        return [int(word) for word in (CGROUP / file).read_text("ascii").split()]
    except (OSError, ValueError):
        return []
