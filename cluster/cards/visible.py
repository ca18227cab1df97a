"""Which GPUs the environment variable CUDA_VISIBLE_DEVICES allows, as CUDA reads the variable. Pure.

CUDA reads the variable from left to right and stops at the first entry that is no GPU of the machine:
all behind it are hidden (CUDA C++ Programming Guide, "CUDA Environment Variables"). `-1` and
`NoDevFiles` are used to hide all of them; SLURM writes the latter for jobs without a GPU.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""CUDA's environment variable with the GPUs that a program may use."""
HIDES_ALL = ("-1", "nodevfiles", "none", "void")
"""Entries with which people hide all GPUs, in lower case."""


class UnusableGpu(UserError):
    """A GPU that the environment names, or every GPU of this machine, cannot be used."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The GPUs that a program may use."""

    numbers: frozenset[int]
    """NVML's numbers."""
    remark: str = ""
    """What a person should know of how the variable was read; "" if it says what it means."""


def visible_entries() -> list[str] | None:
    """The entries of CUDA_VISIBLE_DEVICES; None if the variable is not set.

    Raises:
        UnusableGpu: an entry is a MIG instance.
    """
    value = os.environ.get(VISIBLE)
    if value is None:
        return None
    entries = [word.strip() for word in value.split(",") if word.strip()]
    for word in entries:
        if word.upper().startswith("MIG"):
            raise UnusableGpu(
                f"{VISIBLE} names the MIG instance {word!r}, and models are placed on whole GPUs only; "
                "give numbers of GPUs as `nvidia-smi -L` shows them (0), or their names (GPU-...)"
            )
    return entries


def hides_all(entries: Sequence[str] | None) -> bool:
    """Whether the variable hides all GPUs on purpose."""
    return entries is not None and (not entries or entries[0].casefold() in HIDES_ALL)


def allowed_gpus(entries: Sequence[str] | None, uuids: Sequence[str]) -> Allowed:
    """The GPUs that the entries of CUDA_VISIBLE_DEVICES allow.

    Args:
        entries: what `visible_entries` returned.
        uuids: the name (GPU-...) of each GPU of the machine by its number; "" if it cannot be read.

    Raises:
        UnusableGpu: the first entry is no GPU of this machine.
    """
    if entries is None:
        return Allowed(frozenset(range(len(uuids))))
    found: list[int] = []
    for word in entries:
        number = _number(word, uuids)
        if number is None:
            if word.casefold() in HIDES_ALL:
                break
            what = f"{VISIBLE} names {word!r}, and {_has(uuids)}"
            if not found:
                raise UnusableGpu(
                    f"{what}; give numbers of GPUs as `nvidia-smi -L` shows them (0), or their names "
                    f"(GPU-...), or set {VISIBLE}= (empty) to use the CPU"
                )
            return Allowed(frozenset(found), f"{what}: CUDA hides this one and all behind it")
        found.append(number)
    return Allowed(frozenset(found))


def _number(word: str, uuids: Sequence[str]) -> int | None:
    """The number of the GPU that an entry means; None if it means none or several."""
    if word.isdecimal():
        return int(word) if int(word) < len(uuids) else None
    if not word.startswith("GPU-"):
        return None
    named = [number for number, uuid in enumerate(uuids) if uuid.startswith(word)]
    return named[0] if len(named) == 1 else None


def _has(uuids: Sequence[str]) -> str:
    """What GPUs this machine has, in words."""
    if len(uuids) == 1:
        return f"this machine has only GPU 0 ({uuids[0]})"
    names = ", ".join(filter(None, uuids))
    return f"this machine has the GPUs 0 to {len(uuids) - 1}" + (f" ({names})" if names else "")
