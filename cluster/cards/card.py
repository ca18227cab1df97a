"""A card: one GPU, or the CPU of a machine with its RAM and cores.

This folder knows nothing of models. `catalog.py` holds cards by name, `detect.py` finds the cards of
this machine, and `tensor_parallel.py` joins GPUs into wider cards.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MIB = 1 << 20
GIB = 1 << 30
CGROUP = Path("/sys/fs/cgroup")
"""Folder with the limits of a container (control groups, version 2)."""

Kind = Literal["gpu", "cpu"]

CPU_BANDWIDTH = 20e9
"""Bytes per second that a CPU reads from RAM, for predictions only: two channels of DDR4-2666 at half
of their nominal 42.7 GB/s. This and `CPU_FLOPS_PER_CORE` predict 178 tokens/s for SmolLM2-135M in 4
bits on 2 cores with 4 sequences; 180 tokens/s were measured with 8 sequences."""
CPU_FLOPS_PER_CORE = 48e9
"""Operations per second of one core, for predictions only: 3 GHz and one AVX2 fused multiply-add of 8
lanes per clock."""


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU, several GPUs joined into one card, or a CPU. None means that a value is not known."""

    name: str
    """The product's name, or `cpu`."""
    total_bytes: int
    """Memory for programs: of a GPU, what the driver leaves to them; of a CPU, RAM."""
    cores: int = 0
    """CPU cores; 0 for a GPU."""
    kind: Kind = "cpu"
    free_bytes: int | None = None
    """Bytes of its memory that were free when the card was detected."""
    bandwidth: float | None = None
    """Bytes per second that the card reads from its memory."""
    flops: float | None = None
    """Operations per second: dense bf16 on a GPU, 32-bit on a CPU."""
    link: float | None = None
    """Bytes per second from host RAM to the card."""
    capability: str | None = None
    """CUDA's compute capability, for example `8.0`."""
    node: str = ""
    """The machine that has the card: its host name, or Ray's node ID."""
    indices: tuple[int, ...] = (0,)
    """Numbers, on that machine, of the GPUs that form the card."""
    host_bytes: int | None = None
    """RAM, in bytes, of the machine that has the card."""


def this_machine() -> Card:
    """The CPU of this machine as a card: the cores and the RAM that this process may use."""
    cores = [len(_usable_cores())]
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


def _usable_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))  # macOS has no affinity


def _limits(file: str) -> list[int]:
    """The numbers in a cgroup file. Empty if the file says "max" (no limit) or does not exist."""
    try:
        return [int(word) for word in (CGROUP / file).read_text("ascii").split()]
    except (OSError, ValueError):
        return []
