"""What NVML, the library of NVIDIA's driver, says of GPUs: their names, memory and capabilities.

NVML numbers GPUs by PCI bus. CUDA does so only if CUDA_DEVICE_ORDER is PCI_BUS_ID.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

V1_RESERVE = 0.02
"""Share of a GPU's memory that counts as the driver's own where NVML cannot tell. Where NVML can tell,
the share is 0.9% (A100 80GB: 767 of 81,920 MiB) to 1.7% (RTX 4090)."""


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """The memory of one GPU, in bytes."""

    total: int
    """What the driver leaves to programs."""
    free: int
    """What no program has taken."""


@contextmanager
def open_nvml() -> Iterator[Any]:
    """NVML's Python module, ready for calls; None without a driver or without the module."""
    try:
        import pynvml as nvml
    except ImportError:
        yield None
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def read_memory(nvml: Any, device: Any) -> GpuMemory:
    """The memory of a GPU.

    Only version 2 of NVML's answer tells what the driver keeps: of the A100's 81,920 MiB a CUDA program
    sees 79.1 GiB. Older drivers and some kinds of GPUs have version 1 alone.

    Raises:
        NVMLError: of NVML, if it knows neither version.
    """
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(device, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError, AttributeError, TypeError):
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
        return GpuMemory(int(memory.total * (1 - V1_RESERVE)), memory.free)
    return GpuMemory(memory.total - memory.reserved, memory.free)


def is_in_mig_mode(nvml: Any, device: Any) -> bool:
    """Whether the GPU is divided into MIG instances. Most kinds of GPUs cannot be."""
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(device)
    except (nvml.NVMLError, AttributeError):
        return False
    return bool(current)
