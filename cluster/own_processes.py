"""Ends the processes below this one, whoever started them and whatever they are doing."""

import ctypes
import os
import signal
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
"""Linux's number of the setting by which orphans below a process become that process's children."""
END_S = 3.0
"""Longest time, in seconds, that killed processes get to disappear."""
LOOK_S = 0.02
"""Seconds between two looks at the processes."""


def end_children() -> None:
    """Kill all processes below this one, and return once they are gone, after END_S at the latest.

    A process that is started meanwhile, or whose parent is killed first, is killed too.
    """
    # Otherwise the children of a process that is killed would belong to init, and nobody would find
    # them.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    limit = time.monotonic() + END_S
    while (found := children_below(os.getpid())) and time.monotonic() < limit:
        for process in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        _reap()
        time.sleep(LOOK_S)


def children_below(top: int) -> list[int]:
    """The ids of all processes below `top` that have not ended, parents before their children."""
    children = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError):  # it has just ended
                state, parent = (folder / "stat").read_text().rsplit(") ", 1)[1].split()[:2]
                if state not in "ZX":
                    children[int(parent)].append(int(folder.name))
    family = [top]
    for process in family:
        family += children[process]
    return family[1:]


def _reap() -> None:
    """Take note of the children that have ended, so that the system forgets them."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
