"""The cards of this machine: its GPUs as NVML shows them, or its CPU if it has none.

The variable SLIMMOA_CARDS (`A100-80GB,A100-80GB`) replaces them by cards of the catalog, to try out
placements and to simulate the nodes of a cluster.
"""

import logging
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.cards.card import GIB, Card, this_machine
from cluster.cards.catalog import UNIFIED_SHARE, card_by_name, find_similar
from cluster.cards.gpu_state import is_exclusive, remarks, require_usable
from cluster.cards.limits import available_memory
from cluster.cards.nvml import NvmlFailed, as_text, ask, in_words, open_nvml, read_memory
from cluster.cards.visible import VISIBLE, UnusableGpu, allowed_gpus, hides_all, visible_entries

__all__ = ["UnusableGpu", "detect_cards", "detect_gpus", "visible_gpus"]

VARIABLE = "SLIMMOA_CARDS"
"""Environment variable with names of cards in the catalog, separated by commas."""
ORDER = "CUDA_DEVICE_ORDER"
"""CUDA's environment variable that says how CUDA numbers GPUs."""
PCI_ORDER = "PCI_BUS_ID"
"""The value of CUDA_DEVICE_ORDER with which CUDA numbers GPUs as NVML and nvidia-smi do. By default
CUDA puts the fastest GPU first."""
USE_CPU = f"Set {VISIBLE}= (empty) to use the CPU."
"""What to do if no GPU can be used."""
DEVICES = Path("/dev")
"""Where the devices are."""

logger = logging.getLogger(__name__)


class NoGpu(Exception):
    """This machine has no GPU for programs, or none is wanted; the message says why."""


def detect_cards() -> list[Card]:
    """The cards that SLIMMOA_CARDS names; without it, this machine's GPUs or, if it has none, its CPU.

    Raises:
        UnknownCard: SLIMMOA_CARDS has a name that the catalog does not have.
        UnusableGpu: see `detect_gpus`.
    """
    if names := os.environ.get(VARIABLE):
        cards = [card_by_name(name.strip(), n) for n, name in enumerate(names.split(","))]
        return [replace(card, node=socket.gethostname()) for card in cards]
    why = ""
    try:
        if gpus := detect_gpus():
            return gpus
    except NoGpu as reason:
        why = str(reason)
    cpu = this_machine()
    return [replace(cpu, remarks=(why, *cpu.remarks)) if why else cpu]


def visible_gpus(gpus: Sequence[int]) -> dict[str, str]:
    """CUDA's environment variables for a process that may use these GPUs, by NVML's numbers.

    With any other CUDA_DEVICE_ORDER the numbers could mean other GPUs.
    """
    return {VISIBLE: ",".join(map(str, gpus)), ORDER: PCI_ORDER}


def detect_gpus() -> list[Card]:
    """The GPUs that NVML shows and CUDA_VISIBLE_DEVICES allows; none without a driver or pynvml.

    A GPU that cannot be used is left out with a remark, and does not hide the others.

    Raises:
        NoGpu: there is a reason in words for which the CPU is to be used.
        UnusableGpu: there are GPUs, and none of them can be used; or CUDA_VISIBLE_DEVICES names a MIG
            instance or what is no GPU, or its numbers do not mean the GPUs that NVML numbers so.
    """
    entries = visible_entries()
    if hides_all(entries):
        raise NoGpu(f"no GPU is used, because {VISIBLE} is {os.environ[VISIBLE]!r}")
    try:
        with open_nvml() as nvml:
            if nvml is None:
                raise NoGpu(_why_no_nvml(entries))
            return _usable_gpus(nvml, entries)
    except NvmlFailed as error:
        if not error.is_loaded:
            raise NoGpu(f"no GPU is used, because NVIDIA's driver is not loaded: {error}") from error
        message = f"NVIDIA's driver does not answer (NVML): {error}\n{USE_CPU}"
        raise UnusableGpu(message) from error


def _usable_gpus(nvml: Any, entries: Sequence[str] | None) -> list[Card]:
    count = nvml.nvmlDeviceGetCount()
    if count == 0:
        raise NoGpu("no GPU is used: NVIDIA's driver is here and finds none (`nvidia-smi -L`)")
    allowed = allowed_gpus(entries, [_uuid(nvml, number) for number in range(count)])
    cards, reasons = [], []
    for number in sorted(allowed.numbers):
        try:
            cards.append(_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(number), number))
        except nvml.NVMLError as error:
            reasons.append(f"GPU {number} cannot be used: {in_words(error)}")
        except UnusableGpu as error:
            reasons.append(f"GPU {number} cannot be used: {error}")
    if entries is not None:
        _require_pci_order(nvml, entries)
    if reasons and not cards:
        raise UnusableGpu("\n".join([*reasons, USE_CPU]))
    words = filter(None, [allowed.remark, *reasons])
    return [replace(cards[0], remarks=(*words, *cards[0].remarks)), *cards[1:]]


def _uuid(nvml: Any, number: int) -> str:
    """The name of a GPU; "" if it cannot be read."""
    device = ask(nvml, lambda: nvml.nvmlDeviceGetHandleByIndex(number))
    found = None if device is None else ask(nvml, lambda: nvml.nvmlDeviceGetUUID(device))
    return "" if found is None else as_text(found)


def _gpu(nvml: Any, device: Any, number: int) -> Card:
    require_usable(nvml, device, number)
    name, memory = as_text(nvml.nvmlDeviceGetName(device)), read_memory(nvml, device)
    capability = ask(nvml, lambda: nvml.nvmlDeviceGetCudaComputeCapability(device))
    card = Card(
        name=name,
        total_bytes=0,
        kind="gpu",
        capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        node=socket.gethostname(),
        indices=(number,),
        is_exclusive=is_exclusive(nvml, device),
    )
    if memory is None:
        return _with_ram(card, number)
    host = this_machine()
    return replace(
        _with_speed(card, memory.total),
        total_bytes=memory.total,
        free_bytes=memory.free,
        host_bytes=host.total_bytes,
        remarks=(*remarks(nvml, device, number, memory), *host.remarks),
    )


def _with_speed(card: Card, total_bytes: int) -> Card:
    """The card with the speeds of the catalog's card of this name and memory, if there is one."""
    known = find_similar(card.name, total_bytes)
    if known is None:
        return card
    return replace(card, bandwidth=known.bandwidth, flops=known.flops, link=known.link)


def _with_ram(card: Card, number: int) -> Card:
    """A GPU without memory of its own, with a part of the RAM."""
    host = this_machine()
    share = int(UNIFIED_SHARE * host.total_bytes)
    free = min(share, available_memory() or share)
    return replace(
        _with_speed(card, host.total_bytes),
        total_bytes=host.total_bytes,
        free_bytes=free,
        host_bytes=host.total_bytes - share,
        remarks=(
            f"GPU {number} ({card.name}) has no memory of its own, or does not tell it (NVML): of "
            f"{host.total_bytes / GIB:.1f} GiB of RAM {free / GIB:.1f} count as the GPU's, and "
            f"{(host.total_bytes - share) / GIB:.1f} are left to processes and to models that sleep",
            *host.remarks,
        ),
    )


def _why_no_nvml(entries: Sequence[str] | None) -> str:
    """Why no GPU is used although there is, or should be, one; "" on a machine without."""
    with suppress(OSError):
        found = sorted(path.name for path in DEVICES.iterdir())
        if any(name.startswith("nvidia") and name.removeprefix("nvidia").isdecimal() for name in found):
            return (
                "no GPU is used: there is one in /dev, but no libnvidia-ml.so.1 of its driver; a "
                "container needs NVIDIA_DRIVER_CAPABILITIES=compute,utility"
            )
        if "kfd" in found:
            return "no GPU is used: one of AMD is here, and only NVIDIA's are supported"
    if entries is None:
        return ""
    return (
        f"no GPU is used: {VISIBLE} is {os.environ[VISIBLE]!r}, and there is no driver of NVIDIA here "
        "(libnvidia-ml.so.1); a container gets it with `--gpus all`"
    )


def _require_pci_order(nvml: Any, entries: Sequence[str]) -> None:
    """Check that numbers in CUDA_VISIBLE_DEVICES mean the same GPUs to CUDA and to NVML.

    GPUs of one kind have the same order either way.

    Raises:
        UnusableGpu: CUDA_DEVICE_ORDER gives the numbers another meaning.
    """
    order = os.environ.get(ORDER)
    if order == PCI_ORDER or not any(word.isdecimal() for word in entries):
        return
    kinds = set()
    for number in range(nvml.nvmlDeviceGetCount()):
        try:
            kinds.add(as_text(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(number))))
        except nvml.NVMLError:
            kinds.add(str(number))  # a GPU of unknown kind
    if len(kinds) < 2:
        return
    if order is not None:
        raise UnusableGpu(
            f"{ORDER} is {order!r}, so the numbers in {VISIBLE} do not mean the GPUs that nvidia-smi "
            f"numbers so; set {ORDER}={PCI_ORDER} and nvidia-smi's numbers, or give names (GPU-...)"
        )
    logger.warning("%s=%s is read as nvidia-smi's numbers (%s)", VISIBLE, ",".join(entries), PCI_ORDER)
