"""An engine's step waits until the card has the memory that the step takes, in virtual time."""

import asyncio
import sys
from collections.abc import Callable, Sequence

import pytest

from cluster.cards.card import GIB
from cluster.cards.memory import LONGEST_S, POLL_S, CardFull, NvmlMeter, wait_for_memory
from tests.unit.cluster.cards.fake_nvml import LOST, NOT_SUPPORTED, FakeGpu, FakeNvml


class Meter:
    """Free bytes of each GPU as a function of the time."""

    def __init__(self, free: Callable[[float], list[int] | None]) -> None:
        self._free = free
        self.readings = 0

    async def free_bytes(self, gpus: Sequence[int]) -> list[int] | None:
        self.readings += 1
        found = self._free(asyncio.get_running_loop().time())
        assert found is None or len(found) == len(gpus)
        return found


@pytest.mark.virtual_time
async def test_memory_that_is_there_costs_one_reading() -> None:
    meter = Meter(lambda _: [5 * GIB])
    await wait_for_memory(meter, (0,), 5 * GIB)
    assert (asyncio.get_running_loop().time(), meter.readings) == (0, 1)


@pytest.mark.virtual_time
@pytest.mark.parametrize("late_s", [0.1, 10.0, LONGEST_S - POLL_S])
async def test_memory_that_comes_back_late_is_waited_for(late_s: float) -> None:
    meter = Meter(lambda now: [40 * GIB if now >= late_s else GIB])
    await wait_for_memory(meter, (0,), 40 * GIB)
    assert late_s <= asyncio.get_running_loop().time() <= late_s + POLL_S


@pytest.mark.virtual_time
async def test_every_gpu_of_a_joined_card_needs_its_part() -> None:
    meter = Meter(lambda now: [8 * GIB, 8 * GIB if now >= 3 else 7 * GIB])
    await wait_for_memory(meter, (2, 3), 8 * GIB)
    assert asyncio.get_running_loop().time() >= 3


@pytest.mark.virtual_time
async def test_memory_that_never_comes_is_an_error_with_both_numbers() -> None:
    meter = Meter(lambda _: [9 * GIB, GIB])
    with pytest.raises(CardFull, match=r"GPU 3 has 1\.00 GiB free and the engine needs 5\.00 GiB"):
        await wait_for_memory(meter, (2, 3), 5 * GIB)
    assert LONGEST_S <= asyncio.get_running_loop().time() <= LONGEST_S + POLL_S


@pytest.mark.virtual_time
async def test_what_cannot_be_read_is_not_waited_for() -> None:
    await wait_for_memory(Meter(lambda _: None), (0,), 5 * GIB)
    assert asyncio.get_running_loop().time() == 0


class TestNvml:
    """The meter over a fake NVML, on a real clock."""

    @pytest.mark.parametrize(
        ("nvml", "free"),
        [
            (FakeNvml(FakeGpu(free_mib=70000), FakeGpu(free_mib=9)), [70000 << 20, 9 << 20]),
            (FakeNvml(init=12), None),
            (FakeNvml(init=18), None),
            (FakeNvml(FakeGpu(), FakeGpu(errors={"GetHandleByIndex": LOST})), None),
            (FakeNvml(FakeGpu(), FakeGpu(errors={"GetMemoryInfo": NOT_SUPPORTED})), None),
        ],
        ids=["two GPUs", "no driver", "another driver", "a GPU is lost", "unified memory"],
    )
    def test_it_reads_the_gpus_by_number(
        self, nvml: FakeNvml, free: list[int] | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        monkeypatch.delenv("SLIMMOA_CARDS", raising=False)
        assert asyncio.run(NvmlMeter().free_bytes((0, 1))) == free

    def test_cards_that_the_environment_names_cannot_be_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(FakeGpu()))
        monkeypatch.setenv("SLIMMOA_CARDS", "L4")
        assert asyncio.run(NvmlMeter().free_bytes((0,))) is None
