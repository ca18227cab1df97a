"""Where time goes in a replica: py-spy, which comes with ray[serve], on its process."""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
