"""The cards of this machine: its GPUs as NVML shows them, or else its CPU.

SLIMMOA_CARDS names others in their place (`A100-80GB,A100-80GB`), to try out placements, and on the
nodes of a simulated cluster.
"""

import os
import socket
from dataclasses import replace
from typing import Any

from cluster.cards.card import Card, this_machine
from cluster.cards.catalog import card_by_name, like

VARIABLE = "SLIMMOA_CARDS"


def detect_cards() -> list[Card]:
    """The cards of this machine: those that SLIMMOA_CARDS names, else its GPUs, else its CPU.

    Raises:
        UnknownCard: SLIMMOA_CARDS has a name that the catalog lacks.
    """
    if names := os.environ.get(VARIABLE):
        cards = [card_by_name(name.strip(), n) for n, name in enumerate(names.split(","))]
        return [replace(card, node=socket.gethostname()) for card in cards]
    return gpus() or [this_machine()]


def gpus() -> list[Card]:
    """The GPUs that this process may use, by NVML; none where there is no driver."""
    try:
        import pynvml as nvml
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        return [_gpu(nvml, n) for n in range(nvml.nvmlDeviceGetCount()) if _is_visible(nvml, n)]
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Card:
    device = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(device, version=nvml.nvmlMemory_v2)
    name = nvml.nvmlDeviceGetName(device)
    # Programs never get what the driver reserves: 81,920 MiB of NVML are 79.1 GiB to CUDA.
    total = memory.total - memory.reserved
    known = like(name, total)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(device)
    return Card(
        name=name,
        total_bytes=total,
        kind="gpu",
        free_bytes=memory.free,
        bandwidth=known.bandwidth if known else None,
        flops=known.flops if known else None,
        link=known.link if known else None,
        capability=f"{major}.{minor}",
        node=socket.gethostname(),
        indices=(index,),
        host_bytes=this_machine().total_bytes,
    )


def _is_visible(nvml: Any, index: int) -> bool:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return True
    uuid = nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index))
    chosen = [v.strip() for v in visible.split(",") if v.strip()]
    return any(v == str(index) or (v.startswith("GPU-") and uuid.startswith(v)) for v in chosen)
