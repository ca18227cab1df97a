"""Measures memory: of a card by NVML, of a CPU by the processes of the check, and of the host."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import psutil

from cluster.cards.card import MIB, Card

SETTLE_S = 10.0
"""Most seconds to wait until the used bytes of a card stop changing."""
PAUSE_S = 0.25
"""Seconds between two looks at the used bytes."""
SAMPLE_S = 0.02
"""Seconds between two samples of a peak, and between two looks whether memory is back."""
BACK_S = 60.0
"""Most seconds to wait until a dead engine's memory is back."""


@dataclass(frozen=True, slots=True)
class HostMemory:
    """The RAM of the machine at one moment, in bytes."""

    used: int
    """Bytes that no program can get without swapping: MemTotal less MemAvailable. The difference of
    both counts pinned memory and does not change when a virtual machine grows."""
    resident: int
    """Bytes of the check's processes, shared pages divided among those that share them (PSS)."""
    total: int
    """MemTotal."""


class Meter(Protocol):
    """Measures one card and its machine."""

    def used_bytes(self) -> int:
        """Bytes of the card that are used now."""

    def bytes_by_process(self) -> dict[int, int]:
        """Bytes of the card by process ID; empty if nothing tells."""

    def host(self) -> HostMemory:
        """The RAM of the machine."""


class GpuMeter:
    """A GPU by NVML, where all processes count. So nobody else may use the GPU meanwhile."""

    def __init__(self, index: int) -> None:
        import pynvml

        pynvml.nvmlInit()  # until this process ends, because it takes longer than a sample
        self._nvml: Any = pynvml
        self._device = pynvml.nvmlDeviceGetHandleByIndex(index)

    def used_bytes(self) -> int:
        try:  # version 2 leaves out what the driver reserves, as the planner does
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._device, version=self._nvml.nvmlMemory_v2)
        except self._nvml.NVMLError:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._device)
        return int(memory.used)

    def bytes_by_process(self) -> dict[int, int]:
        try:
            found = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._device)
        except self._nvml.NVMLError:
            return {}
        return {p.pid: int(p.usedGpuMemory) for p in found if p.usedGpuMemory is not None}

    def host(self) -> HostMemory:
        return _host()


class RamMeter:
    """The RAM of a CPU, as the processes below this one use it."""

    def used_bytes(self) -> int:
        return sum(self.bytes_by_process().values())

    def bytes_by_process(self) -> dict[int, int]:
        return _resident_below()

    def host(self) -> HostMemory:
        return _host()


def meter_of(card: Card) -> Meter:
    """The meter of a card of this machine."""
    return GpuMeter(card.indices[0]) if card.kind == "gpu" else RamMeter()


def _resident_below() -> dict[int, int]:
    """PSS of each process below this one. Where the system has no PSS, its resident bytes."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            memory = process.memory_full_info()
            found[process.pid] = int(getattr(memory, "pss", memory.rss))
        except psutil.Error:
            continue  # it has just ended, or it is a zombie
    return found


def _host() -> HostMemory:
    memory = psutil.virtual_memory()
    resident = sum(_resident_below().values())
    return HostMemory(memory.total - memory.available, resident, memory.total)


async def settled_bytes(meter: Meter, at_most: int | None = None) -> int:
    """The used bytes, once they have stopped changing and are at most `at_most`, or after SETTLE_S."""
    deadline = _now() + SETTLE_S
    before, now = -1, meter.used_bytes()
    while _now() < deadline:
        if abs(now - before) < MIB and (at_most is None or now <= at_most):
            break
        await asyncio.sleep(PAUSE_S)
        before, now = now, meter.used_bytes()
    return now


async def seconds_until(meter: Meter, at_most: int, within_s: float = BACK_S) -> float | None:
    """Seconds until the used bytes are at most `at_most`; None if they are not after `within_s`."""
    began = _now()
    while meter.used_bytes() > at_most:
        if _now() - began > within_s:
            return None
        await asyncio.sleep(SAMPLE_S)
    return _now() - began


class Peak:
    """Samples the used bytes of a card while a block of code runs: `async with Peak(meter) as peak`."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._sampling: asyncio.Task[None] | None = None
        self.bytes = 0
        """The most bytes that were used at one of the samples."""

    async def __aenter__(self) -> Self:
        self.bytes = self._meter.used_bytes()
        self._sampling = asyncio.create_task(self._sample())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._sampling is not None
        self._sampling.cancel()
        self.bytes = max(self.bytes, self._meter.used_bytes())

    async def _sample(self) -> None:
        while True:
            began = time.monotonic()
            self.bytes = max(self.bytes, self._meter.used_bytes())
            # To add up the memory of many processes takes long; half of the time is enough for that.
            await asyncio.sleep(max(SAMPLE_S, time.monotonic() - began))


def _now() -> float:
    return asyncio.get_running_loop().time()
