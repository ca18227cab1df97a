"""The cards of this machine: its GPUs as NVML shows them, or its CPU if it has none.

The variable SLIMMOA_CARDS (`A100-80GB,A100-80GB`) replaces them by cards of the catalog, to try out
placements and to simulate the nodes of a cluster.
"""

import os
import socket
from dataclasses import replace
from typing import Any

from cluster.cards.card import Card, this_machine
from cluster.cards.catalog import card_by_name, find_similar

VARIABLE = "SLIMMOA_CARDS"
"""Environment variable with names of cards in the catalog, separated by commas."""


def detect_cards() -> list[Card]:
    """The cards that SLIMMOA_CARDS names; without it, this machine's GPUs or, if it has none, its CPU.

    Raises:
        UnknownCard: SLIMMOA_CARDS has a name that the catalog does not have.
    """
    if names := os.environ.get(VARIABLE):
        cards = [card_by_name(name.strip(), n) for n, name in enumerate(names.split(","))]
        return [replace(card, node=socket.gethostname()) for card in cards]
    return detect_gpus() or [this_machine()]


def detect_gpus() -> list[Card]:
    """The GPUs that NVML shows and CUDA_VISIBLE_DEVICES allows; none without a driver or pynvml."""
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
    # The driver keeps the reserved part: of NVML's 81,920 MiB a CUDA program sees 79.1 GiB.
    total = memory.total - memory.reserved
    known = find_similar(name, total)
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
    """Whether CUDA_VISIBLE_DEVICES allows the GPU, by its number or by the start of its UUID."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return True
    uuid = nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index))
    chosen = [v.strip() for v in visible.split(",") if v.strip()]
    return any(v == str(index) or (v.startswith("GPU-") and uuid.startswith(v)) for v in chosen)
