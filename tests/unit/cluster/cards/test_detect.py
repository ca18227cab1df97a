"""Cards: what is detected, and what can be named."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cluster.cards import card, detect
from cluster.cards.catalog import CARDS, UnknownCard
from cluster.cards.detect import UnusableGpu

MIB = 1 << 20


class FakeNvml:
    """NVML with two cards, as its Python module looks.

    driver: whether there is a driver. old: whether it knows only version 1 of a GPU's memory.
    lost: numbers of GPUs that have fallen off the bus. mig: numbers of GPUs in MIG mode.
    """

    class NVMLError(Exception):
        pass

    nvmlMemory_v2 = 2  # noqa: N815
    names: tuple[str, ...] = ("NVIDIA A100-SXM4-80GB", "NVIDIA Mystery 9000")

    def __init__(
        self,
        *,
        driver: bool = True,
        old: bool = False,
        lost: set[int] | None = None,
        mig: set[int] | None = None,
    ) -> None:
        self.driver = driver
        self.old = old
        self.lost = lost or set()
        self.mig = mig or set()
        self.shut_down = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise self.NVMLError

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut_down += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index in self.lost:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, device: int) -> str:  # noqa: N802
        return self.names[device]

    def nvmlDeviceGetUUID(self, device: int) -> str:  # noqa: N802
        return f"GPU-{device}abc"

    def nvmlDeviceGetMemoryInfo(  # noqa: N802
        self, _device: int, version: int | None = None
    ) -> SimpleNamespace:
        memory = SimpleNamespace(total=81920 * MIB, free=70000 * MIB)
        if version == self.nvmlMemory_v2:
            if self.old:
                raise self.NVMLError("Function Not Found")
            memory.reserved = 767 * MIB
        return memory

    def nvmlDeviceGetMigMode(self, device: int) -> list[int]:  # noqa: N802
        if device == 1 and not self.mig:
            raise self.NVMLError("Not Supported")
        return [int(device in self.mig), 0]

    def nvmlDeviceGetCudaComputeCapability(self, _device: int) -> tuple[int, int]:  # noqa: N802
        return 8, 0


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "SLIMMOA_CARDS"):
        monkeypatch.delenv(name, raising=False)
    return fake


def test_gpus_are_listed_without_what_the_driver_reserves(nvml: FakeNvml) -> None:
    first, second = detect.detect_cards()
    assert (first.name, first.kind, first.indices) == ("NVIDIA A100-SXM4-80GB", "gpu", (0,))
    assert first.total_bytes == (81920 - 767) * MIB
    assert first.free_bytes == 70000 * MIB
    assert (first.bandwidth, first.capability) == (CARDS["A100-80GB"].bandwidth, "8.0")
    assert second.bandwidth is None  # unknown cards work; only their speed is not predicted
    assert nvml.shut_down == 1


@pytest.mark.parametrize(
    ("visible", "numbers"), [("1", [1]), ("GPU-0ab", [0]), ("", []), ("0,1", [0, 1])]
)
@pytest.mark.usefixtures("nvml")
def test_only_visible_gpus_are_listed(
    visible: str, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.indices for gpu in detect.detect_gpus()] == [(n,) for n in numbers]


def test_a_driver_that_only_knows_version_1_of_the_memory_is_taken_at_a_bit_less(
    nvml: FakeNvml,
) -> None:
    nvml.old = True
    first, _ = detect.detect_cards()
    assert first.total_bytes == int(0.98 * 81920 * MIB)
    assert first.free_bytes == 70000 * MIB


def test_a_gpu_that_is_lost_does_not_hide_the_others(
    nvml: FakeNvml, caplog: pytest.LogCaptureFixture
) -> None:
    nvml.lost = {0}
    assert [gpu.indices for gpu in detect.detect_cards()] == [(1,)]
    assert "GPU 0 cannot be used: GPU is lost" in caplog.text
    assert nvml.shut_down == 1


def test_a_machine_whose_gpus_are_all_lost_is_not_taken_for_a_cpu(nvml: FakeNvml) -> None:
    nvml.lost = {0, 1}
    with pytest.raises(
        UnusableGpu, match=r"GPU 0 .*\nGPU 1 .*: GPU is lost\nSet CUDA_VISIBLE_DEVICES="
    ):
        detect.detect_cards()
    assert nvml.shut_down == 1


def test_a_gpu_in_mig_mode_is_refused_by_name(nvml: FakeNvml, caplog: pytest.LogCaptureFixture) -> None:
    nvml.mig = {0}
    assert [gpu.indices for gpu in detect.detect_cards()] == [(1,)]
    assert "GPU 0 cannot be used: it is in MIG mode" in caplog.text
    nvml.mig = {0, 1}
    with pytest.raises(UnusableGpu, match="GPU 1 cannot be used: it is in MIG mode"):
        detect.detect_cards()


@pytest.mark.parametrize("name", ["MIG-4f79e892-aaaa", "MIG-GPU-0abc/1/0", "0,MIG-1", "mig-1"])
@pytest.mark.usefixtures("nvml")
def test_a_mig_instance_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
    with pytest.raises(UnusableGpu, match=f"names the MIG instance '{name.split(',')[-1]}'"):
        detect.detect_cards()


@pytest.mark.parametrize(
    ("order", "visible", "is_refused"),
    [
        (None, "0", False),
        ("PCI_BUS_ID", "0", False),
        ("FASTEST_FIRST", "0", True),
        ("PCI", "1", True),
        ("FASTEST_FIRST", "GPU-0ab", False),  # a name means the same in every order
        ("FASTEST_FIRST", None, False),  # the replica sets its own order
    ],
)
@pytest.mark.usefixtures("nvml")
def test_numbers_that_mean_another_gpu_to_cuda_are_refused(
    order: str | None, visible: str | None, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("CUDA_DEVICE_ORDER", order), ("CUDA_VISIBLE_DEVICES", visible)):
        if value is not None:
            monkeypatch.setenv(name, value)
    if is_refused:
        with pytest.raises(UnusableGpu, match=f"CUDA_DEVICE_ORDER is '{order}'"):
            detect.detect_cards()
    else:
        assert detect.detect_cards()


def test_equal_gpus_have_the_same_numbers_in_every_order(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.names = ("NVIDIA L4", "NVIDIA L4")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.indices for gpu in detect.detect_cards()] == [(1,)]


def test_a_replica_sees_its_gpus_by_nvmls_numbers() -> None:
    assert detect.visible_gpus((1, 3)) == {
        "CUDA_VISIBLE_DEVICES": "1,3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_without_a_driver_the_cpu_is_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(driver=False))
    (only,) = detect.detect_cards()
    assert only.kind == "cpu"
    assert only.cores >= 1
    assert only.total_bytes == only.host_bytes


def test_without_nvml_the_cpu_is_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert [c.kind for c in detect.detect_cards()] == ["cpu"]


@pytest.mark.usefixtures("nvml")
def test_cards_named_in_the_environment_take_the_place_of_those_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLIMMOA_CARDS", "A100-80GB, l4")
    first, second = detect.detect_cards()
    assert (first.name, second.name) == ("A100-80GB", "L4")
    assert first.node == second.node == card.this_machine().node
    assert replace(first, node="") == CARDS["A100-80GB"]
    monkeypatch.setenv("SLIMMOA_CARDS", "")
    assert [c.name for c in detect.detect_cards()] == list(FakeNvml.names)


@pytest.mark.parametrize("names", ["A100-80GB,A1000", "A100-80GB,"])
def test_an_unknown_name_in_the_environment_lists_the_known(
    names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMMOA_CARDS", names)
    with pytest.raises(UnknownCard, match=r"no card '(A1000)?' in the catalog"):
        detect.detect_cards()
