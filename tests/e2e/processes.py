"""Processes below this one, as /proc has them: who is there, that killed ones leave nobody, and
waiting for what they do."""

import os
import select
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ORPHAN_S = 5.0
WAIT_S = 60.0
POLL_S = 0.03
"""Seconds between two looks. Without a pause the looks would take one of two cores from what they wait
for."""


def below(top: int) -> dict[int, str]:
    """All processes below `top` that have not ended, with their titles."""
    titles: dict[int, str] = {}
    children = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent, *_ = (folder / "stat").read_text().rsplit(") ", 1)[1].split()
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has just ended
            if state != "Z":
                titles[int(folder.name)] = title
                children[int(parent)].append(int(folder.name))
    family = [top]
    for process in family:
        family += children[process]
    return {process: titles[process] for process in family[1:]}


def replicas(deployment: str) -> list[int]:
    """The processes of a deployment that this process serves. One that is in the middle of a call is
    not found if there is a dot in its name: Ray cuts its title there."""
    return _actors(f"ServeReplica:slimmoa:{deployment}")


def keepers() -> list[int]:
    """The processes of the keepers below this one."""
    return _actors("RayKeeper")


def _actors(name: str) -> list[int]:
    title = f"ray::{name}."  # Ray adds the method that runs, if one does
    return [pid for pid, said in below(os.getpid()).items() if f"{said.strip()}.".startswith(title)]


def kill(pid: int) -> None:
    """SIGKILL; returns when the process and all that was below it have ended."""
    ends = [os.pidfd_open(process) for process in (pid, *below(pid))]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + ORPHAN_S
    for end in ends:
        left_s = max(0.0, deadline - time.monotonic())
        assert select.select([end], [], [], left_s)[0], f"an orphan lives {ORPHAN_S} s after the kill"
        os.close(end)


def until(condition: Callable[[], bool], within_s: float = WAIT_S) -> None:
    """Returns once it holds. What it looks at is in other processes, which tell nobody."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {within_s} s"
        time.sleep(POLL_S)
