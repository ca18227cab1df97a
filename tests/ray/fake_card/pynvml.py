"""NVML as its Python module looks, for one GPU that is an actor (`card.py`).

A folder with this file on PYTHONPATH hides the real module. Without the variable FAKE_CARD there is no
driver, so that other tests see no GPU.
"""

import os
from types import SimpleNamespace
from typing import Any

import ray
from ray.exceptions import RayError

nvmlMemory_v2 = 2  # noqa: N816


class NVMLError(Exception):
    pass


def _ask(method: str) -> Any:
    try:
        card = ray.get_actor("card", namespace="fake")
        return ray.get(getattr(card, method).remote(), timeout=10)
    except (RayError, ValueError) as error:
        raise NVMLError(str(error)) from error


def nvmlInit() -> None:  # noqa: N802
    if "FAKE_CARD" not in os.environ:
        raise NVMLError("no driver")


def nvmlShutdown() -> None:  # noqa: N802
    pass


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return 1


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    return index


def nvmlDeviceGetName(_device: int) -> str:  # noqa: N802
    return "NVIDIA GeForce RTX 4090"


def nvmlDeviceGetUUID(_device: int) -> str:  # noqa: N802
    return "GPU-fake"


def nvmlDeviceGetMigMode(_device: int) -> list[int]:  # noqa: N802
    raise NVMLError("Not Supported")


def nvmlDeviceGetCudaComputeCapability(_device: int) -> tuple[int, int]:  # noqa: N802
    return 8, 9


def nvmlDeviceGetMemoryInfo(_device: int, version: int | None = None) -> SimpleNamespace:  # noqa: N802
    total, free = _ask("memory")
    reserved = 400 << 20
    return SimpleNamespace(
        total=total + reserved, reserved=reserved if version else None, free=free, used=total - free
    )
