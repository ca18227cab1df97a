"""What a process may use of its machine: the limits of control groups (cgroups) on RAM and cores.

Containers, SLURM's jobs and systemd's units are control groups. A group lies within others, and the
smallest limit counts. Linux has two versions: in version 2 all limits are in one tree, in
version 1 each kind of limit has a tree of its own, and both may be there at once. Swap is not counted:
an engine whose weights are swapped out does not answer in useful time.

Files: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the Linux kernel;
proc_pid_cgroup(5) and proc_pid_mountinfo(5).
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
"""Where `proc` and `sys` are."""
MEMORY_V2 = ("memory.max", "memory.high")
"""Files with limits of memory, in bytes. Above `high` the kernel slows a program down until it stands
almost still, above `max` it ends the program."""
MEMORY_V1 = ("memory.limit_in_bytes",)
"""The same for version 1, which writes a number near 2^63 for no limit."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The smallest limit of one kind."""

    value: int
    """Bytes of RAM, or whole cores."""
    file: str
    """The file that has it."""


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted tree of control groups."""

    point: Path
    root: PurePosixPath
    """The group that is at the mount point."""
    kinds: frozenset[str]
    """The kinds of limits in the tree, for version 1; empty for version 2."""


def memory_limit() -> Limit | None:
    """The smallest limit on the RAM of this process, or None if there is none."""
    found = []
    for folder, is_v2 in _groups("memory"):
        for name in MEMORY_V2 if is_v2 else MEMORY_V1:
            match _numbers(folder / name):
                case [size] if size > 0:
                    found.append(Limit(size, _shown(folder / name)))
    return min(found, key=lambda limit: limit.value, default=None)


def core_limit() -> Limit | None:
    """The smallest limit on the time of cores, as whole cores, at least 1; None if there is none.

    The cores that a process may run on at all (cpuset, affinity) are not in here.
    """
    found = []
    for folder, is_v2 in _groups("cpu"):
        name = "cpu.max" if is_v2 else "cpu.cfs_quota_us"
        numbers = _numbers(folder / name)
        if not is_v2:
            numbers += _numbers(folder / "cpu.cfs_period_us")
        match numbers:
            case [quota, period] if quota > 0 and period > 0:
                found.append(Limit(max(1, quota // period), _shown(folder / name)))
    return min(found, key=lambda limit: limit.value, default=None)


def available_memory() -> int | None:
    """Bytes of RAM that programs could take now without swap (`MemAvailable`); None if not known."""
    with suppress(OSError):
        text = (ROOT / "proc/meminfo").read_text("ascii", "replace")
        if found := re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE):
            return int(found[1]) << 10
    return None


def _groups(kind: str) -> Iterator[tuple[Path, bool]]:
    """The folders of the groups of this process that limit `kind`, and whether each is of version 2."""
    paths = _paths()
    for mount in _mounts():
        is_v2 = not mount.kinds
        if not is_v2 and kind not in mount.kinds:
            continue
        path = paths.get("" if is_v2 else kind, PurePosixPath("/"))
        below = path.relative_to(mount.root) if path.is_relative_to(mount.root) else PurePosixPath()
        # A path out of the mounted tree (`/../..`) is told to a process that has moved to a namespace.
        folder = mount.point if ".." in below.parts else mount.point / below
        while folder.is_relative_to(mount.point):
            yield folder, is_v2
            folder = folder.parent


def _paths() -> dict[str, PurePosixPath]:
    """The group of this process by the kind of limit; that of version 2 under ""."""
    paths = {}
    for line in _lines("proc/self/cgroup"):
        match line.split(":", 2):
            case [_, kinds, path]:
                paths.update(dict.fromkeys(kinds.split(","), PurePosixPath(path)))
    return paths


def _mounts() -> list[_Mount]:
    """The mounted trees; the usual place of version 2 if the system does not tell."""
    found = []
    for line in _lines("proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        words, kind = before.split(" "), after.split(" ")
        if len(words) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        point = ROOT / _plain(words[4]).lstrip("/")
        kinds = frozenset(kind[2].split(",")) if kind[0] == "cgroup" else frozenset[str]()
        found.append(_Mount(point, PurePosixPath(_plain(words[3])), kinds))
    usual = _Mount(ROOT / "sys/fs/cgroup", PurePosixPath("/"), frozenset())
    return found or [usual]


def _plain(text: str) -> str:
    """A path of mountinfo, where spaces and the like are octal numbers (`\\040`)."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _lines(file: str) -> list[str]:
    with suppress(OSError):
        return (ROOT / file).read_text("utf-8", "replace").splitlines()
    return []


def _numbers(file: Path) -> list[int]:
    """The numbers in a file; none if it says "max" (no limit), or cannot be read."""
    with suppress(OSError, ValueError):
        return [int(word) for word in file.read_text("ascii").split()]
    return []


def _shown(file: Path) -> str:
    """The file as a person on this machine would name it."""
    return f"/{file.relative_to(ROOT)}"
