"""Cards: what is detected, and what can be named. NVML is a fake with the real one's errors."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.cards import card, detect, limits
from cluster.cards.catalog import CARDS, UnknownCard
from cluster.cards.detect import UnusableGpu
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.planner import DoesNotFit, plan
from cluster.plan.task import PlanningTask
from configs.schema import Recipe
from tests.unit.cluster.cards.fake_nvml import (
    FUNCTION_NOT_FOUND,
    LOST,
    MIB,
    NOT_SUPPORTED,
    FakeGpu,
    FakeNvml,
)

GIB = 1 << 30
MYSTERY = FakeGpu("NVIDIA Mystery 9000")
Install = Callable[..., FakeNvml]


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 GiB of RAM, 60 of them free, no limits and nothing in /dev."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "SLIMMOA_CARDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(limits, "ROOT", tmp_path)
    monkeypatch.setattr(card, "physical_memory", lambda: 64 * GIB)
    monkeypatch.setattr(detect, "DEVICES", tmp_path / "dev")
    (tmp_path / "dev").mkdir()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable: {60 << 20} kB\n")
    return tmp_path


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes NVML one with the given GPUs."""

    def install(*gpus: FakeGpu, **how: object) -> FakeNvml:
        fake = FakeNvml(*gpus, **how)  # type: ignore[arg-type]
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


@pytest.fixture
def nvml(install: Install) -> FakeNvml:
    """A machine with two kinds of GPUs."""
    return install(FakeGpu(), replace(MYSTERY))


def only_remarks() -> tuple[str, ...]:
    return detect.detect_cards()[0].remarks


def test_gpus_are_listed_without_what_the_driver_reserves(nvml: FakeNvml) -> None:
    first, second = detect.detect_cards()
    assert (first.name, first.kind, first.indices) == ("NVIDIA A100-SXM4-80GB", "gpu", (0,))
    assert first.total_bytes == (81920 - 767) * MIB
    assert first.free_bytes == 80000 * MIB
    assert first.host_bytes == 64 * GIB
    assert (first.bandwidth, first.capability) == (CARDS["A100-80GB"].bandwidth, "8.0")
    assert second.bandwidth is None  # unknown cards work; only their speed is not predicted
    assert nvml.shut_down == 1


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [("1", [1]), ("GPU-0ab", [0]), ("0,1", [0, 1]), (" 1 , 0,", [0, 1]), ("1,-1,0", [1])],
)
@pytest.mark.usefixtures("nvml")
def test_only_visible_gpus_are_listed(
    visible: str, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.indices for gpu in detect.detect_gpus()] == [(n,) for n in numbers]


@pytest.mark.parametrize("visible", ["", " ", "-1", "NoDevFiles", "none", "-1,0"])
@pytest.mark.usefixtures("nvml")
def test_who_hides_all_gpus_gets_the_cpu_and_is_told_so(
    visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (cpu,) = detect.detect_cards()
    assert cpu.kind == "cpu"
    assert cpu.remarks == (f"no GPU is used, because CUDA_VISIBLE_DEVICES is {visible!r}",)


@pytest.mark.parametrize("visible", ["7", "GPU-9", "GPU-", "all", "cuda:0", "A100"])
@pytest.mark.usefixtures("nvml")
def test_a_name_of_no_gpu_is_refused_with_those_that_there_are(
    visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(
        UnusableGpu,
        match=rf"CUDA_VISIBLE_DEVICES names '{visible}', and this machine has the GPUs 0 to 1 "
        r"\(GPU-0abc, GPU-1abc\); give numbers",
    ):
        detect.detect_cards()


@pytest.mark.usefixtures("nvml")
def test_what_is_behind_a_name_of_no_gpu_is_hidden_as_cuda_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,7,0")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    (gpu,) = detect.detect_cards()
    assert gpu.indices == (1,)
    assert "names '7', and this machine has the GPUs 0 to 1" in gpu.remarks[0]
    assert gpu.remarks[0].endswith(": CUDA hides this one and all behind it")


def test_a_gpu_is_named_although_names_of_others_cannot_be_read(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(FakeGpu(errors={"GetUUID": FUNCTION_NOT_FOUND}), FakeGpu())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1abc")
    assert [gpu.indices for gpu in detect.detect_cards()] == [(1,)]


def test_a_driver_that_only_knows_version_1_of_the_memory_is_taken_at_a_bit_less(
    install: Install,
) -> None:
    install(FakeGpu(errors={"GetMemoryInfo_v2": FUNCTION_NOT_FOUND}))
    (first,) = detect.detect_cards()
    assert first.total_bytes == int(0.98 * 81920 * MIB)
    assert first.free_bytes == 80000 * MIB


def test_an_old_driver_that_lacks_all_but_the_oldest_functions(install: Install) -> None:
    names = ("MigMode", "ComputeMode", "TotalEccErrors", "RemappedRows", "ComputeRunningProcesses")
    install(
        FakeGpu(errors={"GetCudaComputeCapability": FUNCTION_NOT_FOUND}, free_mib=1000),
        lacks=(*(f"nvmlDeviceGet{name}" for name in names), "nvmlMemory_v2"),
    )
    (gpu,) = detect.detect_cards()
    assert (gpu.capability, gpu.total_bytes) == (None, int(0.98 * 81920 * MIB))


@pytest.mark.parametrize("how", [{"errors": {"GetMemoryInfo": NOT_SUPPORTED}}, {"total_mib": 0}])
def test_a_gpu_without_memory_of_its_own_gets_a_part_of_the_ram(
    install: Install, how: dict[str, object]
) -> None:
    install(FakeGpu("NVIDIA GB10", capability=(12, 1), **how))  # type: ignore[arg-type]
    (gpu,) = detect.detect_cards()
    assert (gpu.name, gpu.kind, gpu.capability) == ("NVIDIA GB10", "gpu", "12.1")
    assert (gpu.total_bytes, gpu.free_bytes, gpu.host_bytes) == (64 * GIB, 48 * GIB, 16 * GIB)
    assert gpu.remarks == (
        "GPU 0 (NVIDIA GB10) has no memory of its own, or does not tell it (NVML): of 64.0 GiB of RAM "
        "48.0 count as the GPU's, and 16.0 are left to processes and to models that sleep",
    )


def test_ram_that_is_taken_is_not_the_gpus(install: Install, machine: Path) -> None:
    install(FakeGpu("NVIDIA GB10", errors={"GetMemoryInfo": NOT_SUPPORTED}))
    (machine / "proc/meminfo").write_text(f"MemAvailable: {30 << 20} kB\n")
    assert detect.detect_cards()[0].free_bytes == 30 * GIB


def test_an_error_of_the_memory_is_no_unified_memory(install: Install) -> None:
    install(FakeGpu(errors={"GetMemoryInfo": LOST}))
    with pytest.raises(
        UnusableGpu, match="GPU is lost: it does not answer on the bus any more: reboot"
    ):
        detect.detect_cards()


def test_a_gpu_that_is_lost_does_not_hide_the_others(install: Install) -> None:
    fake = install(FakeGpu(errors={"GetHandleByIndex": LOST}), FakeGpu())
    (gpu,) = detect.detect_cards()
    assert gpu.indices == (1,)
    assert gpu.remarks[0].startswith("GPU 0 cannot be used: GPU is lost: it does not answer on the bus")
    assert fake.shut_down == 1


def test_a_machine_whose_gpus_are_all_lost_is_not_taken_for_a_cpu(install: Install) -> None:
    fake = install(FakeGpu(errors={"GetHandleByIndex": LOST}), FakeGpu(errors={"GetName": 16}))
    with pytest.raises(
        UnusableGpu,
        match=r"GPU 0 .*\nGPU 1 .*: GPU requires restart: run .*\nSet CUDA_VISIBLE_DEVICES=",
    ):
        detect.detect_cards()
    assert fake.shut_down == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            18,
            r"version mismatch: the driver was updated, and the old one is still loaded: reboot",
        ),
        (4, r"Insufficient Permissions: this user may not open the devices in /dev"),
        (13, r"Function Not Found: the driver is older than its library"),
        (999, r"Unknown Error: `nvidia-smi` and `dmesg` say more"),
        (10, r"Timeout"),
    ],
)
def test_a_driver_that_does_not_answer_is_refused_and_not_taken_for_a_cpu(
    install: Install, error: int, words: str
) -> None:
    install(init=error)
    with pytest.raises(
        UnusableGpu, match=rf"NVIDIA's driver does not answer .*{words}(.|\n)*Set CUDA_VISIBLE_DEVICES="
    ):
        detect.detect_cards()


def test_a_driver_that_fails_after_its_start_is_refused(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise fake.NVMLError(999)

    fake = install(FakeGpu())
    monkeypatch.setattr(fake, "nvmlDeviceGetCount", fail)
    monkeypatch.setattr(fake, "nvmlShutdown", fail)
    with pytest.raises(UnusableGpu, match=r"driver does not answer .* Unknown Error: `nvidia-smi`"):
        detect.detect_cards()


def test_a_module_whose_memory_has_no_reserve_is_read_as_version_1(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(FakeGpu())
    memory = SimpleNamespace(total=81920 * MIB, free=80000 * MIB)
    monkeypatch.setattr(fake, "nvmlDeviceGetMemoryInfo", lambda *_, **__: memory)
    assert detect.detect_cards()[0].total_bytes == int(0.98 * 81920 * MIB)


def test_who_hides_all_gpus_needs_no_driver_that_answers(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(init=18)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [each.kind for each in detect.detect_cards()] == ["cpu"]


def test_a_driver_that_is_not_loaded_leaves_the_cpu_and_says_so(install: Install) -> None:
    install(init=9)
    (cpu,) = detect.detect_cards()
    assert cpu.kind == "cpu"
    assert cpu.remarks[0].startswith(
        "no GPU is used, because NVIDIA's driver is not loaded: Driver Not"
    )


def test_a_driver_without_gpus_leaves_the_cpu_and_says_so(install: Install) -> None:
    install()
    assert only_remarks() == (
        "no GPU is used: NVIDIA's driver is here and finds none (`nvidia-smi -L`)",
    )


@pytest.mark.parametrize(
    ("device", "visible", "words"),
    [
        ("nvidia0", None, "but no libnvidia-ml.so.1 of its driver; a container needs"),
        ("kfd", None, "one of AMD is here, and only NVIDIA's are supported"),
        (None, "0", "CUDA_VISIBLE_DEVICES is '0', and there is no driver of NVIDIA here"),
    ],
)
def test_a_machine_that_should_have_a_gpu_leaves_the_cpu_and_says_so(
    install: Install,
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str | None,
    visible: str | None,
    words: str,
) -> None:
    install(init=12)
    if device is not None:
        (machine / "dev" / device).touch()
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (remark,) = only_remarks()
    assert remark.startswith("no GPU is used: ")
    assert words in remark


def test_a_gpu_in_mig_mode_is_refused_by_name(install: Install) -> None:
    install(FakeGpu(mig=1, mig_instances=2), FakeGpu())
    (gpu,) = detect.detect_cards()
    assert gpu.indices == (1,)
    assert "GPU 0 cannot be used: it is in MIG mode, and models are placed on whole" in gpu.remarks[0]
    install(FakeGpu(mig=1), FakeGpu(mig=1))
    with pytest.raises(
        UnusableGpu, match="GPU 1 cannot be used: it is in MIG mode without any instance"
    ):
        detect.detect_cards()


@pytest.mark.parametrize("name", ["MIG-4f79e892-aaaa", "MIG-GPU-0abc/1/0", "0,MIG-1", "mig-1"])
@pytest.mark.usefixtures("nvml")
def test_a_mig_instance_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
    with pytest.raises(UnusableGpu, match=f"names the MIG instance '{name.split(',')[-1]}'"):
        detect.detect_cards()


def test_a_gpu_that_lets_no_program_use_it_is_refused(install: Install) -> None:
    install(FakeGpu(compute_mode=2))
    with pytest.raises(UnusableGpu, match=r"compute mode is Prohibited; .*nvidia-smi -i 0 -c 0"):
        detect.detect_cards()


def test_a_gpu_for_one_process_takes_one_engine(
    install: Install, make_recipe: Callable[..., Recipe], make_checkpoint: Callable[..., Checkpoint]
) -> None:
    install(FakeGpu(compute_mode=3), FakeGpu(compute_mode=3))
    cards = detect.detect_cards()
    assert [each.is_exclusive for each in cards] == [True, True]
    mix, sizes = make_recipe("a", aggregator="b"), dict.fromkeys(["a", "b"], make_checkpoint(4))
    placement = plan(PlanningTask(mix, sizes, cards))
    assert [[slot.members[0].model for slot in each.slots] for each in placement.cards] == [
        ["a"],
        ["b"],
    ]
    with pytest.raises(DoesNotFit, match=r"GPU 0 lets one process use it .* it takes one engine only"):
        plan(PlanningTask(mix, sizes, cards[:1]))


def test_a_gpu_with_broken_memory_is_used_and_named(install: Install) -> None:
    install(FakeGpu(ecc_errors=2, free_mib=81000))
    (remark,) = only_remarks()
    assert remark.startswith("GPU 0 has errors in its memory that could not be corrected (ECC)")


def test_programs_that_use_a_gpu_are_named(install: Install) -> None:
    programs = [(n, f"/usr/bin/p{n}", 1024 * n) for n in range(1, 6)]
    install(FakeGpu(free_mib=20000, programs=programs))
    assert only_remarks() == (
        "GPU 0 has 19.5 of 79.3 GiB free; programs that run now have the rest: "
        "p5 (process 5, 5.0 GiB), p4 (process 4, 4.0 GiB), p3 (process 3, 3.0 GiB), 2 more",
    )
    install(FakeGpu(free_mib=20000, programs=[(7, "", 0)]))
    assert only_remarks()[0].endswith("have the rest: a program (process 7)")
    install(FakeGpu(free_mib=20000, errors={"GetComputeRunningProcesses": NOT_SUPPORTED}))
    assert only_remarks()[0].endswith("programs that run now have the rest")


def test_what_did_not_fit_says_who_has_the_memory(
    install: Install, make_recipe: Callable[..., Recipe], make_checkpoint: Callable[..., Checkpoint]
) -> None:
    install(FakeGpu(free_mib=2000))
    with pytest.raises(DoesNotFit, match=r"GPU 0 has 2\.0 of 79.3 GiB free; programs that run now"):
        plan(
            PlanningTask(
                make_recipe("a", aggregator="a"), {"a": make_checkpoint(4)}, detect.detect_cards()
            )
        )


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
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(FakeGpu("NVIDIA L4"), FakeGpu("NVIDIA L4"))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.indices for gpu in detect.detect_cards()] == [(1,)]


def test_a_replica_sees_its_gpus_by_nvmls_numbers() -> None:
    assert detect.visible_gpus((1, 3)) == {
        "CUDA_VISIBLE_DEVICES": "1,3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_without_a_driver_the_cpu_is_the_card(install: Install) -> None:
    install(init=12)
    (only,) = detect.detect_cards()
    assert only.kind == "cpu"
    assert only.cores >= 1
    assert only.total_bytes == only.host_bytes
    assert only.remarks == ()


def test_without_nvml_the_cpu_is_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert [c.kind for c in detect.detect_cards()] == ["cpu"]


def test_cards_named_in_the_environment_take_the_place_of_those_found(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMMOA_CARDS", "A100-80GB, l4")
    first, second = detect.detect_cards()
    assert (first.name, second.name) == ("A100-80GB", "L4")
    assert first.node == second.node == card.this_machine().node
    assert replace(first, node="") == CARDS["A100-80GB"]
    monkeypatch.setenv("SLIMMOA_CARDS", "")
    assert [c.name for c in detect.detect_cards()] == [gpu.name for gpu in nvml.gpus]


@pytest.mark.parametrize("names", ["A100-80GB,A1000", "A100-80GB,"])
def test_an_unknown_name_in_the_environment_lists_the_known(
    names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMMOA_CARDS", names)
    with pytest.raises(UnknownCard, match=r"no card '(A1000)?' in the catalog"):
        detect.detect_cards()
