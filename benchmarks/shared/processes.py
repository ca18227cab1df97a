"""Server processes of a benchmark, and the CPU that a family of processes takes, by what each is."""

import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.shared.harness import HOST, free_port
from benchmarks.shared.others import PROC, TICKS_PER_S

START_S = 30.0
SCRIPTS = (
    ("log_monitor.py", "log monitor"),
    ("runtime_env/agent/main.py", "runtime env agent"),
    ("dashboard/agent.py", "dashboard agent"),
    ("dashboard/dashboard.py", "dashboard"),
    ("monitor.py", "autoscaler monitor"),
)
"""How the command of a process of Ray that is a Python script ends, and what it is."""


@contextmanager
def server(module: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """Run `python -m MODULE PORT ARGUMENTS`; yields its URL, once it listens, and its process ID."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", module, str(port), *arguments])
    try:
        _await_listener(port, process)
        yield f"http://{HOST}:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


def _await_listener(port: int, process: "subprocess.Popen[bytes]") -> None:
    give_up = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < give_up:
        with closing(socket.socket()) as sock:
            if sock.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"{process.args!r} does not listen on port {port}")


@dataclass(frozen=True, slots=True)
class Process:
    """A process at a moment. seconds: of CPU so far, of all its threads."""

    pid: int
    parent: int
    command: str
    seconds: float


def snapshot(pids: Collection[int] | None = None) -> dict[int, Process]:
    """The processes of the machine, or only these, by process ID."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir(PROC))) if pids is None else pids:
        with suppress(OSError):  # it has just ended
            folder = PROC / str(pid)
            fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            seconds = sum(map(int, fields[11:13])) / TICKS_PER_S
            found[pid] = Process(pid, int(fields[1]), command.strip(), seconds)
    return found


def family(processes: Mapping[int, Process], root: int, without: Collection[int] = ()) -> list[Process]:
    """A process and all below it, except these and all below them."""
    children = defaultdict(list)
    for process in processes.values():
        children[process.parent].append(process)
    found = [processes[root]]
    for process in found:
        found += [child for child in children[process.pid] if child.pid not in without]
    return found


def taken(before: Collection[Process], after: Collection[Process], root: int) -> Counter[str]:
    """CPU seconds between two moments by what the processes are.

    root: the process that the benchmark itself is. A process that ends meanwhile is left out.
    """
    earlier = {process.pid: process.seconds for process in before}
    seconds: Counter[str] = Counter()
    for process in after:
        seconds[named(process, root)] += process.seconds - earlier.get(process.pid, 0.0)  # type: ignore[assignment]
    return seconds


def named(process: Process, root: int) -> str:
    """What a process is. root: the process that the benchmark itself is."""
    return "driver" if process.pid == root else what(process.command)


def what(command: str) -> str:
    """What a process is, from its command: a replica goes by its deployment."""
    if replica := re.match(r"ray::ServeReplica:[^:]+:([\w.-]+)", command):
        return re.sub(r"\.[a-z_]+$", "", replica[1])  # a method that runs
    if actor := re.match(r"ray::(\w+)", command):
        return "idle worker" if actor[1] == "IDLE" else actor[1]
    program = Path(command.split(" ", 1)[0]).name
    if not program.startswith("python"):
        return program
    if module := re.search(r" -m [\w.]*?(\w+)( |$)", command):
        return module[1]
    for ending, name in SCRIPTS:
        if re.search(rf"[ /]{re.escape(ending)}( |$)", command):
            return name
    return program
