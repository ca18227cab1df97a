"""Where time goes: CPU seconds by process, and py-spy, which comes with ray[serve], on a replica."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGINT

MOST_LINES = 40


@contextmanager
def sampled(deployment: str, path: Path) -> Iterator[None]:
    """Sample the first replica of `deployment` meanwhile: raw stacks to `path`, the top to stdout."""
    beside = str(Path(sys.executable).parent)
    py_spy = shutil.which("py-spy", path=beside) or shutil.which("py-spy")
    if py_spy is None:
        raise SystemExit("py-spy is not installed: pip install py-spy")
    options = ["--format", "raw", "--output", str(path), "--pid", str(_pid(deployment))]
    sampler = subprocess.Popen([py_spy, "record", *options], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        sampler.send_signal(SIGINT)
        sampler.wait()
    print(_top(path.read_text("utf-8")))


@contextmanager
def cpu_counted(requests: int) -> Iterator[None]:
    """Print the CPU time that each of Ray's processes takes per request meanwhile."""
    before = _cpu_seconds()
    yield
    taken = {name: seconds - before.get(name, 0) for name, seconds in _cpu_seconds().items()}
    print("CPU per request:")
    for name, seconds in sorted(taken.items(), key=lambda item: -item[1]):
        print(f"{seconds / requests * 1000:6.1f} ms  {name}")


def _cpu_seconds() -> dict[str, float]:
    seconds: dict[str, float] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may end meanwhile
            command = (process / "cmdline").read_bytes().partition(b"\0")[0].decode()
            if command.startswith("ray::"):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                seconds[f"{process.name} {command}"] = ticks / os.sysconf("SC_CLK_TCK")
    return seconds


def _pid(deployment: str) -> int:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        command = process.read_bytes()
        if command.startswith(b"ray::ServeReplica:") and f":{deployment}".encode() in command:
            return int(process.parent.name)
    raise SystemExit(f"no process of deployment {deployment!r}")


def _top(raw: str) -> str:
    samples: Counter[str] = Counter()
    total = 0
    for line in raw.splitlines():
        stack, count = line.rsplit(" ", 1)
        total += int(count)
        for frame in set(stack.split(";")):
            samples[frame] += int(count)
    return "\n".join(f"{n / total:6.1%}  {frame}" for frame, n in samples.most_common(MOST_LINES))
