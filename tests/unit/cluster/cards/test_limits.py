"""Limits of control groups, in pretended /proc and /sys/fs/cgroup."""

from pathlib import Path

import pytest

from cluster.cards import limits
from cluster.cards.limits import available_memory, core_limit, memory_limit

GIB = 1 << 30
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {root} /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
    "33 31 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
)
HYBRID = V1.format(root="/") + (
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
)
NO_LIMIT_V1 = f"{(1 << 63) - 4096}\n"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any limit, on which nothing is mounted."""
    monkeypatch.setattr(limits, "ROOT", tmp_path)
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def process(root: Path, groups: str, mounts: str) -> None:
    write(root, {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts})


def test_a_machine_without_control_groups_has_no_limit() -> None:
    assert (memory_limit(), core_limit(), available_memory()) == (None, None, None)


def test_a_container_of_version_2_sees_its_own_group_at_the_root(root: Path) -> None:
    process(root, "0::/\n", V2)
    write(
        root, {"sys/fs/cgroup/memory.max": f"{3 * GIB}\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}
    )
    assert memory_limit() == limits.Limit(3 * GIB, "/sys/fs/cgroup/memory.max")
    assert core_limit() == limits.Limit(2, "/sys/fs/cgroup/cpu.max")


def test_the_usual_place_is_read_where_mounts_cannot_be(root: Path) -> None:
    write(root, {"sys/fs/cgroup/memory.max": f"{3 * GIB}\n"})
    assert memory_limit() == limits.Limit(3 * GIB, "/sys/fs/cgroup/memory.max")


SLICE = "sys/fs/cgroup/user.slice"
UNIT = f"{SLICE}/user-1000.slice/user@1000.service/app.slice/run-1.scope"


@pytest.mark.parametrize(
    ("files", "gib"),
    [
        ({f"{UNIT}/memory.max": 4, f"{SLICE}/memory.max": 8}, 4),
        ({f"{UNIT}/memory.max": 16, f"{SLICE}/memory.max": 8}, 8),  # the group around it has less
        ({f"{UNIT}/memory.max": None, f"{SLICE}/user-1000.slice/memory.max": 5}, 5),
        ({f"{UNIT}/memory.max": 8, f"{UNIT}/memory.high": 6}, 6),  # MemoryHigh= of systemd
        ({f"{UNIT}/memory.max": None, f"{UNIT}/memory.high": None}, None),
        ({f"{UNIT}/memory.swap.max": 1, f"{UNIT}/memory.max": 8}, 8),  # swap is not counted
        ({"sys/fs/cgroup/other.slice/memory.max": 1}, None),  # the group of others
    ],
    ids=["own", "ancestor", "middle", "high", "max", "swap", "others"],
)
def test_the_smallest_limit_of_nested_groups_counts(
    root: Path, files: dict[str, int | None], gib: int | None
) -> None:
    process(root, f"0::/{UNIT.removeprefix('sys/fs/cgroup/')}\n", V2)
    write(root, {n: "max\n" if size is None else f"{size * GIB}\n" for n, size in files.items()})
    found = memory_limit()
    assert (None if found is None else found.value) == (None if gib is None else gib * GIB)


SLURM = "slurm/uid_1000/job_77"


@pytest.mark.parametrize("mounts", [V1.format(root="/"), HYBRID], ids=["v1", "hybrid"])
def test_a_job_of_slurm_in_version_1(root: Path, mounts: str) -> None:
    groups = f"9:memory:/{SLURM}/step_0/task_0\n4:cpu,cpuacct:/{SLURM}/step_0\n0::/system.slice/d\n"
    process(root, groups, mounts)
    memory, cpu = "sys/fs/cgroup/memory", "sys/fs/cgroup/cpu,cpuacct"
    write(
        root,
        {
            f"{memory}/memory.limit_in_bytes": NO_LIMIT_V1,
            f"{memory}/{SLURM}/memory.limit_in_bytes": f"{12 * GIB}\n",
            f"{memory}/{SLURM}/memory.memsw.limit_in_bytes": f"{GIB}\n",  # with swap: not counted
            f"{memory}/{SLURM}/step_0/memory.limit_in_bytes": NO_LIMIT_V1,
            f"{memory}/{SLURM}/step_0/task_0/memory.limit_in_bytes": NO_LIMIT_V1,
            f"{cpu}/{SLURM}/cpu.cfs_quota_us": "400000\n",
            f"{cpu}/{SLURM}/cpu.cfs_period_us": "100000\n",
            f"{cpu}/{SLURM}/step_0/cpu.cfs_quota_us": "-1\n",
            f"{cpu}/{SLURM}/step_0/cpu.cfs_period_us": "100000\n",
        },
    )
    assert memory_limit() == limits.Limit(12 * GIB, f"/{memory}/{SLURM}/memory.limit_in_bytes")
    assert core_limit() == limits.Limit(4, f"/{cpu}/{SLURM}/cpu.cfs_quota_us")


def test_a_container_of_version_1_whose_mount_begins_at_its_own_group(root: Path) -> None:
    process(root, "9:memory:/docker/abc/inner\n", V1.format(root="/docker/abc"))
    write(
        root,
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/inner/memory.limit_in_bytes": f"{GIB}\n",
        },
    )
    assert memory_limit() == limits.Limit(GIB, "/sys/fs/cgroup/memory/inner/memory.limit_in_bytes")


@pytest.mark.parametrize("path", ["/../../outside", "/docker/of-the-host"])
def test_a_group_that_is_not_in_sight_leaves_the_mounted_one(root: Path, path: str) -> None:
    process(root, f"0::{path}\n", V2)
    write(root, {"sys/fs/cgroup/memory.max": f"{GIB}\n", "outside/memory.max": "1\n"})
    assert memory_limit() == limits.Limit(GIB, "/sys/fs/cgroup/memory.max")


def test_a_mount_point_with_a_space(root: Path) -> None:
    process(root, "0::/\n", V2.replace("/sys/fs/cgroup", "/my\\040groups"))
    write(root, {"my groups/memory.max": f"{GIB}\n"})
    assert memory_limit() == limits.Limit(GIB, "/my groups/memory.max")


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000\n", None),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1600000 100000\n", 16),
        ("100000 0\n", None),
        ("", None),
        ("nonsense\n", None),
        ("x 100000\n", None),
    ],
)
def test_whole_cores_of_a_quota(root: Path, cpu_max: str, cores: int | None) -> None:
    process(root, "0::/a/b\n", V2)
    write(root, {"sys/fs/cgroup/a/cpu.max": cpu_max, "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"})
    found = core_limit()
    assert (None if found is None else found.value) == cores


def test_what_cannot_be_read_is_no_limit(root: Path) -> None:
    process(root, "nonsense\n0::/\n", f"nonsense\n - cgroup2\n{V2}")
    write(root, {"sys/fs/cgroup/memory.max": "many\n", "sys/fs/cgroup/memory.high": "0\n"})
    assert memory_limit() is None


def test_memory_that_is_available(root: Path) -> None:
    write(root, {"proc/meminfo": "MemTotal:   127600748 kB\nMemAvailable:   118566368 kB\n"})
    assert available_memory() == 118566368 << 10
