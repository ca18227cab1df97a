"""A card: one GPU, or the CPU of a machine with its RAM and cores.

This folder knows nothing of models. `catalog.py` holds cards by name, `detect.py` finds the cards of
this machine, and `tensor_parallel.py` joins GPUs into wider cards.
"""

import os
import socket
from dataclasses import dataclass
from typing import Literal

from cluster.cards.limits import core_limit, memory_limit

MIB = 1 << 20
GIB = 1 << 30

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
    is_exclusive: bool = False
    """Whether the card lets only one process use it at a time (compute mode Exclusive)."""
    remarks: tuple[str, ...] = ()
    """What a person should know of how the card was found, a sentence each without its full stop."""


def this_machine() -> Card:
    """The CPU of this machine as a card: the cores and the RAM that this process may use."""
    cores, memory, remarks = len(_usable_cores()), physical_memory(), []
    if (fewer := core_limit()) is not None and fewer.value < cores:
        remarks.append(f"{fewer.value} of {cores} cores may be used: the limit in {fewer.file}")
        cores = fewer.value
    if (less := memory_limit()) is not None and less.value < memory:
        remarks.append(
            f"{less.value / GIB:.1f} of {memory / GIB:.1f} GiB of RAM may be used: the limit in "
            f"{less.file}"
        )
        memory = less.value
    return Card(
        name="cpu",
        total_bytes=memory,
        cores=cores,
        bandwidth=CPU_BANDWIDTH,
        flops=cores * CPU_FLOPS_PER_CORE,
        node=socket.gethostname(),
        host_bytes=memory,
        remarks=tuple(remarks),
    )


def physical_memory() -> int:
    """Bytes of RAM of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _usable_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))  # macOS has no affinity
