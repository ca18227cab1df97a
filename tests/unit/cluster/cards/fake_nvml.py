"""NVML as its Python module looks, with GPUs that a test describes and real errors."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

MIB = 1 << 20
NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
FUNCTION_NOT_FOUND = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
LOST = pynvml.NVML_ERROR_GPU_IS_LOST


@dataclass
class FakeGpu:
    """What NVML says of one GPU. `errors` are raised in place of answers."""

    name: str = "NVIDIA A100-SXM4-80GB"
    uuid: str = ""
    total_mib: int = 81920
    free_mib: int = 80000
    reserved_mib: int = 767
    capability: tuple[int, int] = (8, 0)
    mig: int = 0
    mig_instances: int = 0
    compute_mode: int = 0
    ecc_errors: int = 0
    programs: list[tuple[int, str, int]] = field(default_factory=list)
    """Number, path and MiB of each program."""
    errors: dict[str, int] = field(default_factory=dict)
    """NVML's error by the name of a function without `nvmlDevice`."""


class FakeNvml:
    """NVML with these GPUs.

    Args:
        gpus: the GPUs by their numbers.
        init: the error with which NVML does not start, or None.
        lacks: names of functions that this version does not have.
    """

    def __init__(self, *gpus: FakeGpu, init: int | None = None, lacks: tuple[str, ...] = ()) -> None:
        self.gpus = gpus
        self.init = init
        self.lacks = lacks
        self.shut_down = 0

    def __getattr__(self, name: str) -> Any:
        """What this class does not define: constants and errors."""
        if name in self.lacks or (name[:5] == "nvmlD" and callable(getattr(pynvml, name))):
            raise AttributeError(name)
        return getattr(pynvml, name)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "lacks"):
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802
        if self.init is not None:
            raise pynvml.NVMLError(self.init)

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut_down += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802
        return self._gpu(self.gpus[index], "GetHandleByIndex")

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:  # noqa: N802
        return self._gpu(gpu, "GetName").name

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:  # noqa: N802
        return self._gpu(gpu, "GetUUID").uuid or f"GPU-{self.gpus.index(gpu)}abc"

    def nvmlDeviceGetMemoryInfo(  # noqa: N802
        self, gpu: FakeGpu, version: int | None = None
    ) -> SimpleNamespace:
        self._gpu(gpu, "GetMemoryInfo")
        if version is not None:
            self._gpu(gpu, "GetMemoryInfo_v2")
        return SimpleNamespace(
            total=gpu.total_mib * MIB,
            free=gpu.free_mib * MIB,
            reserved=gpu.reserved_mib * MIB if version is not None else None,
        )

    def nvmlDeviceGetCudaComputeCapability(self, gpu: FakeGpu) -> tuple[int, int]:  # noqa: N802
        return self._gpu(gpu, "GetCudaComputeCapability").capability

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:  # noqa: N802
        return [self._gpu(gpu, "GetMigMode").mig, 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, _gpu: FakeGpu) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, index: int) -> int:  # noqa: N802
        if index >= gpu.mig_instances:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return index

    def nvmlDeviceGetComputeMode(self, gpu: FakeGpu) -> int:  # noqa: N802
        return self._gpu(gpu, "GetComputeMode").compute_mode

    def nvmlDeviceGetTotalEccErrors(self, gpu: FakeGpu, _kind: int, _counter: int) -> int:  # noqa: N802
        return self._gpu(gpu, "GetTotalEccErrors").ecc_errors

    def nvmlDeviceGetRemappedRows(self, gpu: FakeGpu) -> tuple[int, int, int, int]:  # noqa: N802
        return (0, gpu.ecc_errors, int(gpu.ecc_errors > 0), 0)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[SimpleNamespace]:  # noqa: N802
        self._gpu(gpu, "GetComputeRunningProcesses")
        return [
            SimpleNamespace(pid=pid, usedGpuMemory=mib * MIB if mib else None)
            for pid, _, mib in gpu.programs
        ]

    def nvmlSystemGetProcessName(self, pid: int) -> bytes:  # noqa: N802
        names = {pid: name for gpu in self.gpus for pid, name, _ in gpu.programs}
        return names[pid].encode()

    def _gpu(self, gpu: FakeGpu, function: str) -> FakeGpu:
        """The GPU, unless it has an error in place of the answer of this function."""
        if (error := gpu.errors.get(function)) is not None:
            raise pynvml.NVMLError(error)
        return gpu
