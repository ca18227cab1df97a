"""Cards: what is detected, and what can be named."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cluster.cards import card, detect
from cluster.cards.catalog import CARDS, UnknownCard

MIB = 1 << 20


class FakeNvml:
    """NVML with two cards, as its Python module looks."""

    class NVMLError(Exception):
        pass

    nvmlMemory_v2 = 2  # noqa: N815
    names = ("NVIDIA A100-SXM4-80GB", "NVIDIA Mystery 9000")

    def __init__(self, *, driver: bool = True) -> None:
        self.driver = driver
        self.shut_down = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise self.NVMLError

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut_down += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, device: int) -> str:  # noqa: N802
        return self.names[device]

    def nvmlDeviceGetUUID(self, device: int) -> str:  # noqa: N802
        return f"GPU-{device}abc"

    def nvmlDeviceGetMemoryInfo(self, _device: int, version: int) -> SimpleNamespace:  # noqa: N802
        assert version == self.nvmlMemory_v2
        return SimpleNamespace(total=81920 * MIB, reserved=767 * MIB, free=70000 * MIB)

    def nvmlDeviceGetCudaComputeCapability(self, _device: int) -> tuple[int, int]:  # noqa: N802
        return 8, 0


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
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
    with pytest.raises(UnknownCard, match=r"no card '(A1000)?' in the catalog; it has: A100-40GB"):
        detect.detect_cards()
