"""Waits until a card has the memory that an engine is about to take.

Memory comes back late: a killed process gives its memory back some seconds after its death, and an
engine on its way out has tens of gigabytes to free. vLLM neither starts nor wakes on a card that is not
free yet. A start then fails with "Free memory on device ... is less than desired", and a wake with
"CUDA Error: out of memory", after which the engine has to be started again, for minutes.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.cards.card import GIB
from cluster.cards.detect import VARIABLE
from cluster.cards.nvml import NvmlFailed, open_nvml, read_memory

LONGEST_S = 60.0
"""Most seconds to wait for memory. A process that has tens of gigabytes to free takes some seconds."""
POLL_S = 0.5
"""Seconds between two readings of the free memory."""


@dataclass(frozen=True, slots=True)
class CardMemory:
    """What one engine takes of a card that GPUs form: the same number of bytes on each of the GPUs."""

    gpus: tuple[int, ...]
    """NVML's numbers of the GPUs."""
    start_bytes: int
    """Bytes on each GPU that the engine takes when it starts."""
    wake_bytes: int
    """Bytes on each GPU that the engine takes when it wakes, beside those that it keeps asleep."""


class MemoryMeter(Protocol):
    """Reads the free memory of GPUs."""

    async def free_bytes(self, gpus: Sequence[int]) -> list[int] | None:
        """The free bytes of each of these GPUs, by NVML's numbers; None if they cannot be read."""


class NvmlMeter:
    """Reads the free memory from NVML. Cards that SLIMMOA_CARDS names cannot be read."""

    async def free_bytes(self, gpus: Sequence[int]) -> list[int] | None:
        if os.environ.get(VARIABLE):
            return None
        return await asyncio.to_thread(_read_free, gpus)


def _read_free(gpus: Sequence[int]) -> list[int] | None:
    try:
        with open_nvml() as nvml:
            if nvml is None:
                return None
            try:
                found = [read_memory(nvml, nvml.nvmlDeviceGetHandleByIndex(n)) for n in gpus]
            except nvml.NVMLError:
                return None  # the engine's own start or wake will say what is wrong with the GPU
    except NvmlFailed:
        return None
    return None if None in found else [memory.free for memory in found if memory is not None]


class CardFull(Exception):
    """The memory that an engine needs has not become free in time."""


async def wait_for_memory(
    meter: MemoryMeter, gpus: Sequence[int], needed: int, longest_s: float = LONGEST_S
) -> None:
    """Return as soon as each of these GPUs has `needed` bytes free, or if nothing can be read.

    Raises:
        CardFull: a GPU still has fewer bytes after `longest_s` seconds.
    """
    due_at = asyncio.get_running_loop().time() + longest_s
    while True:
        free = await meter.free_bytes(gpus)
        if free is None or min(free, default=needed) >= needed:
            return
        if asyncio.get_running_loop().time() >= due_at:
            least, gpu = min(zip(free, gpus, strict=True))
            raise CardFull(
                f"GPU {gpu} has {least / GIB:.2f} GiB free and the engine needs {needed / GIB:.2f}"
                f" GiB; another program held the rest for {longest_s:g} s"
            )
        await asyncio.sleep(POLL_S)
