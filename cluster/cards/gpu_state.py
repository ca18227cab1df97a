"""Whether a GPU can take engines now, and what a person should know of its state.

NVML answers some of these questions for some kinds of GPUs and drivers only. A question without an
answer is passed over.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from cluster.cards.card import GIB
from cluster.cards.nvml import GpuMemory, as_text, ask
from cluster.cards.visible import VISIBLE, UnusableGpu

PROHIBITED, EXCLUSIVE = 2, 3
"""NVML's numbers of compute modes (nvml.h)."""
UNCORRECTED, SINCE_LOADED = 1, 0
"""NVML's numbers of errors of memory that were not corrected, and of counts since the start."""
IN_USE_BYTES = GIB
"""Memory that other programs may have before it is worth a word; a desktop takes about as much."""
MOST_PROGRAMS = 3
"""Most programs that are named."""


def require_usable(nvml: Any, device: Any, number: int) -> None:
    """Raise an error if no engine could run on the whole GPU.

    Raises:
        UnusableGpu: the GPU is divided into MIG instances, or lets no program use it.
    """
    if (mode := ask(nvml, lambda: nvml.nvmlDeviceGetMigMode(device))) is not None and mode[0]:
        none = "" if _has_instances(nvml, device) else " without any instance"
        raise UnusableGpu(
            f"it is in MIG mode{none}, and models are placed on whole GPUs only; end the mode with "
            f"`nvidia-smi -i {number} -mig 0`, or leave the GPU out of {VISIBLE}"
        )
    if ask(nvml, lambda: nvml.nvmlDeviceGetComputeMode(device)) == PROHIBITED:
        raise UnusableGpu(
            f"its compute mode is Prohibited; allow programs with `nvidia-smi -i {number} -c 0`"
        )


def is_exclusive(nvml: Any, device: Any) -> bool:
    """Whether the GPU lets only one process use it at a time."""
    return ask(nvml, lambda: nvml.nvmlDeviceGetComputeMode(device)) == EXCLUSIVE


def remarks(nvml: Any, device: Any, number: int, memory: GpuMemory) -> Iterator[str]:
    """What a person should know of a GPU that can be used."""
    if is_exclusive(nvml, device):
        yield (
            f"GPU {number} lets one process use it (compute mode Exclusive), so it takes one engine "
            f"only; `nvidia-smi -i {number} -c 0` ends that"
        )
    errors = ask(nvml, lambda: nvml.nvmlDeviceGetTotalEccErrors(device, UNCORRECTED, SINCE_LOADED))
    rows = ask(nvml, lambda: nvml.nvmlDeviceGetRemappedRows(device))
    if errors or (rows is not None and any(rows[2:])):
        yield (
            f"GPU {number} has errors in its memory that could not be corrected (ECC): engines on it "
            f"may fail until `nvidia-smi --gpu-reset -i {number}`, a reboot, or a repair"
        )
    taken = memory.total - memory.free
    if taken >= IN_USE_BYTES:
        yield (
            f"GPU {number} has {memory.free / GIB:.1f} of {memory.total / GIB:.1f} GiB free; programs "
            f"that run now have the rest{_programs(nvml, device)}"
        )


def _has_instances(nvml: Any, device: Any) -> bool:
    count = ask(nvml, lambda: int(nvml.nvmlDeviceGetMaxMigDeviceCount(device)))
    if count is None:
        return True  # nobody knows
    find = partial(nvml.nvmlDeviceGetMigDeviceHandleByIndex, device)
    return any(ask(nvml, partial(find, index)) is not None for index in range(count))


def _programs(nvml: Any, device: Any) -> str:
    """The largest of the programs that use a GPU. A container is told none, or numbers of its host."""
    found = ask(nvml, lambda: list(nvml.nvmlDeviceGetComputeRunningProcesses(device))) or []
    sizes = [(getattr(each, "usedGpuMemory", None) or 0, each.pid) for each in found]
    named = []
    for size, pid in sorted(sizes, reverse=True)[:MOST_PROGRAMS]:
        text = (ask(nvml, partial(_process_name, nvml, pid)) or "").rpartition("/")[2]
        named.append(
            f"{text or 'a program'} (process {pid}{f', {size / GIB:.1f} GiB' if size else ''})"
        )
    if len(sizes) > len(named):
        named.append(f"{len(sizes) - len(named)} more")
    return f": {', '.join(named)}" if named else ""


def _process_name(nvml: Any, pid: int) -> str:
    return as_text(nvml.nvmlSystemGetProcessName(pid))
