"""What NVML, the library of NVIDIA's driver, says of GPUs: their names, memory and capabilities.

NVML numbers GPUs by PCI bus. CUDA does so only if CUDA_DEVICE_ORDER is PCI_BUS_ID.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

V1_RESERVE = 0.02
"""Share of a GPU's memory that counts as the driver's own where NVML cannot tell. Where NVML can tell,
the share is 0.9% (A100 80GB: 767 of 81,920 MiB) to 1.7% (RTX 4090)."""
NOT_SUPPORTED, NO_DRIVER, NO_LIBRARY = 3, 9, 12
"""Numbers of NVML's errors (nvml.h): of a question that has no answer for this GPU, of a driver that is
not loaded, and of a machine that has no driver."""
ADVICE = {
    4: "this user may not open the devices in /dev (nvidiactl, nvidia0 and so on)",
    8: "its power cables are not connected",
    9: "`modprobe nvidia` loads it; after an update of the kernel, build it again",
    11: "its interrupts do not arrive: `dmesg` says more",
    13: "the driver is older than its library, or half of an update is missing: install it again",
    14: "its infoROM is corrupted: `nvidia-smi -q` says more",
    15: "it does not answer on the bus any more: reboot; `dmesg` has the cause (Xid)",
    16: "run `nvidia-smi --gpu-reset` for it, or reboot",
    17: "the system, or the container, blocks the devices in /dev",
    18: "the driver was updated, and the old one is still loaded: reboot; start a container anew",
    999: "`nvidia-smi` and `dmesg` say more; in a container that has run for long, start it anew",
}
"""What to do about an error of NVML, by its number."""
SPOKEN = {"not supported": NOT_SUPPORTED, "mismatch": 18, "not loaded": NO_DRIVER}
"""Parts of the words of errors that have no number, in lower case."""
T = TypeVar("T")


class NvmlFailed(Exception):
    """NVML is on this machine and does not work; the message says why and what to do.

    Args:
        message: the cause.
        is_loaded: whether the system has loaded a driver.
    """

    def __init__(self, message: str, *, is_loaded: bool) -> None:
        super().__init__(message)
        self.is_loaded = is_loaded


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """The memory of one GPU, in bytes."""

    total: int
    """What the driver leaves to programs."""
    free: int
    """What no program has taken."""


@contextmanager
def open_nvml() -> Iterator[Any]:
    """NVML's Python module, ready for calls; None without a driver or without the module.

    Raises:
        NvmlFailed: there is a driver, and NVML does not start, or fails in the block.
    """
    try:
        import pynvml as nvml
    except ImportError:
        yield None
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if error_number(error) not in (0, NO_LIBRARY):
            raise NvmlFailed(in_words(error), is_loaded=error_number(error) != NO_DRIVER) from error
        yield None
        return
    try:
        yield nvml
    except nvml.NVMLError as error:
        raise NvmlFailed(in_words(error), is_loaded=True) from error
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def error_number(error: Exception) -> int:
    """The number of an error of NVML; 0 if it is not known."""
    words = str(error).lower()
    by_words = next((number for part, number in SPOKEN.items() if part in words), 0)
    return int(getattr(error, "value", by_words))


def in_words(error: Exception) -> str:
    """An error of NVML with what to do about it, as far as that is known."""
    said = str(error).strip().rstrip(".")
    advice = ADVICE.get(error_number(error))
    return said if advice is None else f"{said}: {advice}"


def ask(nvml: Any, question: Callable[[], T]) -> T | None:
    """What NVML answers; None if this GPU or this driver has no answer."""
    try:
        return question()
    except (nvml.NVMLError, AttributeError, TypeError):
        return None


def as_text(value: Any) -> str:
    """A text of NVML. Old versions of its module give bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def read_memory(nvml: Any, device: Any) -> GpuMemory | None:
    """The memory of a GPU; None if the GPU has none of its own, but uses the RAM (GB10, Jetson).

    Only version 2 of NVML's answer tells what the driver keeps: of the A100's 81,920 MiB a CUDA program
    sees 79.1 GiB. Older drivers and some kinds of GPUs have version 1 alone.

    Raises:
        NVMLError: of NVML, if it cannot read the memory.
    """
    newer = ask(nvml, lambda: _read_version_2(nvml, device))
    if newer is not None and newer.total > 0:
        return newer
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
    except nvml.NVMLError as error:
        if error_number(error) != NOT_SUPPORTED:
            raise
        return None
    if memory.total <= 0:
        return None
    return GpuMemory(int(memory.total * (1 - V1_RESERVE)), memory.free)


def _read_version_2(nvml: Any, device: Any) -> GpuMemory:
    memory = nvml.nvmlDeviceGetMemoryInfo(device, version=nvml.nvmlMemory_v2)
    return GpuMemory(memory.total - memory.reserved, memory.free)
