"""`slimmoa plan` on machines that answer otherwise: each plan, refusal or fallback is in words."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from cluster.cards import card, detect, limits
from tests.unit.cluster.cards.fake_nvml import LOST, NOT_SUPPORTED, FakeGpu, FakeNvml
from tests.unit.fake_hub import point_client_at

GIB = 1 << 30
LIMIT = "sys/fs/cgroup/memory.max"
A100 = FakeGpu(free_mib=81000)
SPARK = FakeGpu("NVIDIA GB10", capability=(12, 1), errors={"GetMemoryInfo": NOT_SUPPORTED})
PROGRAMS = [(4242, "/usr/bin/python3", 60000)]


@dataclass
class Machine:
    """A machine, and what is printed about it."""

    gpus: list[FakeGpu] | None
    """Its GPUs; None without a driver."""
    says: tuple[str, ...]
    """What is printed, besides what is told of the models."""
    fits: bool = True
    card: str = ""
    """The name of the first card of the plan."""
    visible: str | None = None
    init: int | None = None
    ram_gib: int = 128
    files: dict[str, str] = field(default_factory=dict)
    cores: int = 8


MACHINES = {
    "unified memory": Machine(
        [SPARK], ("has no memory of its own", "128.0 GiB of RAM 96.0 count"), card="NVIDIA GB10"
    ),
    "driver updated": Machine(
        [A100], ("the driver was updated, and the old one is still loaded: reboot",), False, init=18
    ),
    "driver not loaded": Machine(
        [A100], ("no GPU is used, because NVIDIA's driver is not loaded",), init=9, card="cpu"
    ),
    "hidden by -1": Machine(
        [A100], ("no GPU is used, because CUDA_VISIBLE_DEVICES is '-1'",), visible="-1", card="cpu"
    ),
    "unknown name": Machine(
        [A100], ("names 'GPU-77', and this machine has only GPU 0",), False, visible="GPU-77"
    ),
    "MIG": Machine([FakeGpu(mig=1)], ("it is in MIG mode without any instance",), False),
    "two kinds": Machine(
        [FakeGpu("NVIDIA GeForce RTX 3060", total_mib=12288, free_mib=12000), A100],
        ("NVIDIA GeForce RTX 3060", "NVIDIA A100-SXM4-80GB"),
        card="NVIDIA GeForce RTX 3060",
    ),
    "in use": Machine(
        [FakeGpu(free_mib=9000, programs=PROGRAMS)],
        ("GPU 0 has 8.8 of 79.3 GiB free", "python3 (process 4242, 58.6 GiB)", "do not fit"),
        False,
    ),
    "exclusive": Machine([FakeGpu(free_mib=81000, compute_mode=3)], ("takes one engine only",), False),
    "one lost": Machine(
        [FakeGpu(errors={"GetHandleByIndex": LOST}), A100],
        ("GPU 0 cannot be used: GPU is lost: it does not answer on the bus any more",),
        card="NVIDIA A100-SXM4-80GB",
    ),
    "ECC": Machine(
        [FakeGpu(free_mib=81000, ecc_errors=3)],
        ("could not be corrected (ECC)",),
        card="NVIDIA A100-SXM4-80GB",
    ),
    "a container of 3 GB with one core": Machine(
        None,
        ("3.0 of 128.0 GiB of RAM may be used: the limit in /sys/fs/cgroup/memory.max", "1 of 8 cores"),
        False,
        files={LIMIT: f"{3 * GIB}", "sys/fs/cgroup/cpu.max": "100000 100000"},
    ),
}


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_every_machine_is_planned_or_refused_in_words(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_client_at("http://127.0.0.1:1", tmp_path, monkeypatch)
    monkeypatch.setattr("actors.weights.hub._unreachable", {})
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "SLIMMOA_CARDS"):
        monkeypatch.delenv(name, raising=False)
    if machine.visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", machine.visible)
    fake = FakeNvml(*(machine.gpus or ()), init=12 if machine.gpus is None else machine.init)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(card, "physical_memory", lambda: machine.ram_gib * GIB)
    monkeypatch.setattr(card, "_usable_cores", lambda: set(range(machine.cores)))
    monkeypatch.setattr(detect, "DEVICES", tmp_path)
    monkeypatch.setattr(limits, "ROOT", tmp_path)
    for name, text in machine.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = CliRunner().invoke(app, ["plan", "moa_24gb" if machine.gpus else "laptop_16gb"])
    assert found.exit_code == (0 if machine.fits else 1), found.output
    assert "Traceback" not in found.output
    assert [words for words in machine.says if words not in found.output] == [], found.output
    if machine.fits:
        assert f"0 {machine.card}" in found.output
