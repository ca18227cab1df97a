"""The cards of this machine: its GPUs as NVML shows them, or its CPU if it has none.

The variable SLIMMOA_CARDS (`A100-80GB,A100-80GB`) replaces them by cards of the catalog, to try out
placements and to simulate the nodes of a cluster.
"""

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cluster.cards.card import Card, this_machine
from cluster.cards.catalog import card_by_name, find_similar
from cluster.cards.nvml import is_in_mig_mode, open_nvml, read_memory
from configs.errors import UserError

VARIABLE = "SLIMMOA_CARDS"
"""Environment variable with names of cards in the catalog, separated by commas."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's environment variable with the GPUs that a program may use."""
ORDER = "CUDA_DEVICE_ORDER"
"""CUDA's environment variable that says how CUDA numbers GPUs."""
PCI_ORDER = "PCI_BUS_ID"
"""The value of CUDA_DEVICE_ORDER with which CUDA numbers GPUs as NVML and nvidia-smi do. By default
CUDA puts the fastest GPU first."""

logger = logging.getLogger(__name__)


class UnusableGpu(UserError):
    """A GPU that the environment names, or every GPU of this machine, cannot be used."""


def detect_cards() -> list[Card]:
    """The cards that SLIMMOA_CARDS names; without it, this machine's GPUs or, if it has none, its CPU.

    Raises:
        UnknownCard: SLIMMOA_CARDS has a name that the catalog does not have.
        UnusableGpu: see `detect_gpus`.
    """
    if names := os.environ.get(VARIABLE):
        cards = [card_by_name(name.strip(), n) for n, name in enumerate(names.split(","))]
        return [replace(card, node=socket.gethostname()) for card in cards]
    return detect_gpus() or [this_machine()]


def visible_gpus(gpus: Sequence[int]) -> dict[str, str]:
    """CUDA's environment variables for a process that may use these GPUs, by NVML's numbers.

    With any other CUDA_DEVICE_ORDER the numbers could mean other GPUs.
    """
    return {VISIBLE: ",".join(map(str, gpus)), ORDER: PCI_ORDER}


def detect_gpus() -> list[Card]:
    """The GPUs that NVML shows and CUDA_VISIBLE_DEVICES allows; none without a driver or pynvml.

    A GPU that cannot be used is left out with a warning, and does not hide the others.

    Raises:
        UnusableGpu: none of the allowed GPUs can be used, or CUDA_VISIBLE_DEVICES names a MIG instance,
            or its numbers do not mean the GPUs that NVML numbers so.
    """
    with open_nvml() as nvml:
        if nvml is None:
            return []
        allowed = _allowed_gpus()
        cards, reasons = [], []
        for number in range(nvml.nvmlDeviceGetCount()):
            try:
                device = nvml.nvmlDeviceGetHandleByIndex(number)
                if not _is_allowed(allowed, number, nvml.nvmlDeviceGetUUID(device)):
                    continue
                cards.append(_gpu(nvml, device, number))
            except (nvml.NVMLError, UnusableGpu) as error:
                reasons.append(f"GPU {number} cannot be used: {error}")
        if allowed is not None:
            _require_pci_order(nvml, allowed)
    for reason in reasons:
        logger.warning(reason)
    if reasons and not cards:
        raise UnusableGpu("\n".join([*reasons, f"Set {VISIBLE}= (empty) to use the CPU."]))
    return cards


def _gpu(nvml: Any, device: Any, number: int) -> Card:
    if is_in_mig_mode(nvml, device):
        raise UnusableGpu(
            "it is in MIG mode, and models are placed on whole GPUs only; end the mode with "
            f"`nvidia-smi -i {number} -mig 0`, or leave the GPU out of {VISIBLE}"
        )
    memory = read_memory(nvml, device)
    name = nvml.nvmlDeviceGetName(device)
    known = find_similar(name, memory.total)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(device)
    return Card(
        name=name,
        total_bytes=memory.total,
        kind="gpu",
        free_bytes=memory.free,
        bandwidth=known.bandwidth if known else None,
        flops=known.flops if known else None,
        link=known.link if known else None,
        capability=f"{major}.{minor}",
        node=socket.gethostname(),
        indices=(number,),
        host_bytes=this_machine().total_bytes,
    )


def _allowed_gpus() -> list[str] | None:
    """The numbers and names in CUDA_VISIBLE_DEVICES; None if the variable is not set.

    Raises:
        UnusableGpu: it names a MIG instance.
    """
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return None
    allowed = [word.strip() for word in visible.split(",") if word.strip()]
    for word in allowed:
        if word.upper().startswith("MIG"):
            raise UnusableGpu(
                f"{VISIBLE} names the MIG instance {word!r}, and models are placed on whole GPUs only; "
                "give numbers of GPUs as `nvidia-smi -L` shows them (0), or their names (GPU-...)"
            )
    return allowed


def _is_allowed(allowed: Sequence[str] | None, number: int, uuid: str) -> bool:
    """Whether a GPU is among those allowed, by its number or by the start of its UUID."""
    if allowed is None:
        return True
    return any(
        word == str(number) or (word.startswith("GPU-") and uuid.startswith(word)) for word in allowed
    )


def _require_pci_order(nvml: Any, allowed: Sequence[str]) -> None:
    """Check that numbers in CUDA_VISIBLE_DEVICES mean the same GPUs to CUDA and to NVML.

    GPUs of one kind have the same order either way.

    Raises:
        UnusableGpu: CUDA_DEVICE_ORDER gives the numbers another meaning.
    """
    order = os.environ.get(ORDER)
    if order == PCI_ORDER or not any(word.isdecimal() for word in allowed):
        return
    kinds = set()
    for number in range(nvml.nvmlDeviceGetCount()):
        try:
            kinds.add(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(number)))
        except nvml.NVMLError:
            kinds.add(str(number))  # a GPU of unknown kind
    if len(kinds) < 2:
        return
    if order is not None:
        raise UnusableGpu(
            f"{ORDER} is {order!r}, so the numbers in {VISIBLE} do not mean the GPUs that nvidia-smi "
            f"numbers so; set {ORDER}={PCI_ORDER} and nvidia-smi's numbers, or give names (GPU-...)"
        )
    logger.warning("%s=%s is read as nvidia-smi's numbers (%s)", VISIBLE, ",".join(allowed), PCI_ORDER)
