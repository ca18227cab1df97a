"""Bytes of a card and of the host, on a pretended NVML and a clock that jumps."""

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.real_cards.meters import (
    GpuMeter,
    Peak,
    RamMeter,
    meter_of,
    seconds_until,
    settled_bytes,
)
from cluster.cards.card import GIB, MIB, this_machine
from cluster.cards.catalog import card_by_name
from tests.unit.benchmarks.real_cards.pretended import PretendedCard


class NVMLError(Exception):
    pass


def nvml(*, has_version_2: bool = True, tells_processes: bool = True) -> Any:
    def memory(_device: int, version: int | None = None) -> SimpleNamespace:
        if version is not None and not has_version_2:
            raise NVMLError("not supported")
        return SimpleNamespace(used=(5 if version else 6) * GIB)

    def processes(_device: int) -> list[SimpleNamespace]:
        if not tells_processes:
            raise NVMLError("not supported")
        return [
            SimpleNamespace(pid=7, usedGpuMemory=3 * GIB),
            SimpleNamespace(pid=8, usedGpuMemory=None),
        ]

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlMemory_v2=2,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetComputeRunningProcesses=processes,
    )


@pytest.mark.parametrize(
    ("pretended", "used", "by_process"),
    [
        (nvml(), 5 * GIB, {7: 3 * GIB}),
        (nvml(has_version_2=False), 6 * GIB, {7: 3 * GIB}),  # with what the driver reserves
        (nvml(tells_processes=False), 5 * GIB, {}),
    ],
)
def test_a_gpu_tells_its_bytes_as_far_as_its_driver_knows(
    monkeypatch: pytest.MonkeyPatch, pretended: Any, used: int, by_process: dict[int, int]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", pretended)
    meter = meter_of(card_by_name("H200-141GB"))
    assert isinstance(meter, GpuMeter)
    assert meter.used_bytes() == used
    assert meter.bytes_by_process() == by_process


def test_the_ram_of_a_cpu_is_that_of_the_processes_below() -> None:
    meter = meter_of(this_machine())
    assert isinstance(meter, RamMeter)
    code = "data = bytearray(b'x' * (64 << 20)); print('there', flush=True); input()"
    command = [sys.executable, "-c", code]
    before = meter.used_bytes()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 64 * MIB <= meter.used_bytes() - before < 128 * MIB
        assert meter.bytes_by_process()[child.pid] >= 64 * MIB
        assert meter.host().resident >= 64 * MIB
        child.communicate(b"\n")
    assert meter.host().total > meter.host().used > 0


@pytest.mark.virtual_time
async def test_the_peak_is_what_was_used_between_the_ends() -> None:
    card = PretendedCard(card={"a": GIB})
    async with Peak(card) as peak:
        card.card["b"] = 3 * GIB
        await asyncio.sleep(0.1)
        del card.card["b"]
        await asyncio.sleep(0.1)
    assert peak.bytes == 4 * GIB


@pytest.mark.virtual_time
async def test_memory_that_comes_back_is_waited_for_and_what_does_not_is_given_up() -> None:
    card = PretendedCard(card={"a": GIB})
    loop = asyncio.get_running_loop()
    loop.call_later(4.0, lambda: card.card.update(a=0))
    assert await settled_bytes(card, at_most=0) == 0
    assert loop.time() == pytest.approx(4.0, abs=0.6)
    card.card["a"] = GIB
    assert await seconds_until(card, 0, within_s=5) is None
    loop.call_later(2.0, lambda: card.card.update(a=0))
    assert await seconds_until(card, 0) == pytest.approx(2.0, abs=0.03)
