"""What cards there are. A machine without a GPU is one card: its RAM and its cores.

Knows nothing of models. `catalog.py` holds cards by name, `inventory.py` finds those that are here.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MIB = 1 << 20
GIB = 1 << 30
CGROUP = Path("/sys/fs/cgroup")  # version 2; limits of a container stand here

Kind = Literal["gpu", "cpu"]

# Typical, for predictions only: two channels of DDR4-2666 at half their nominal 42.7 GB/s, and cores
# of 3 GHz with one AVX2 FMA of 8 lanes per clock. On 2 cores they predict 178 tokens/s of
# SmolLM2-135M in 4 bits over 4 sequences; 180 were measured, over 8.
CPU_BANDWIDTH = 20e9
CPU_FLOPS_PER_CORE = 48e9


@dataclass(frozen=True, slots=True)
class Card:
    """One card.

    name: what people call it; total_bytes: its memory, as its driver gives it to programs;
    cores: CPU cores that compute on it; free_bytes: what is free now, None if nobody looked;
    bandwidth, link: bytes per second of its memory, and from host RAM; flops: dense bf16 operations
    per second; None: unknown. capability: CUDA's. node: the machine it is in; indices: the numbers
    there of the GPUs that it is made of; host_bytes: that machine's RAM, None if unknown.
    """

    name: str
    total_bytes: int
    cores: int = 0
    kind: Kind = "cpu"
    free_bytes: int | None = None
    bandwidth: float | None = None
    flops: float | None = None
    link: float | None = None
    capability: str | None = None
    node: str = ""
    indices: tuple[int, ...] = (0,)
    host_bytes: int | None = None


def this_machine() -> Card:
    """The CPU of this machine as a card: the cores that this process may use, and the RAM."""
    cores = [len(_affinity())]
    match _limits("cpu.max"):
        case [int(quota), int(period)]:
            cores.append(max(1, quota // period))
    memory = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_limits("memory.max")]
    return Card(
        name="cpu",
        total_bytes=min(memory),
        cores=min(cores),
        bandwidth=CPU_BANDWIDTH,
        flops=min(cores) * CPU_FLOPS_PER_CORE,
        node=socket.gethostname(),
        host_bytes=min(memory),
    )


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
