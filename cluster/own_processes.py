"""Ends the processes below this one, whoever started them and whatever they are doing."""

import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
"""Linux's number of the setting by which orphans below a process become that process's children."""
END_S = 3.0
"""Longest time, in seconds, that killed processes get to disappear."""
LOOK_S = 0.02
"""Seconds between two looks at the processes."""


def end_children() -> None:
    """Kill all processes below this one. The caller has to exit at once.

    1. Kill all but Ray's raylets, and wait until they are gone, for END_S at most. What is started
       meanwhile, or loses its parent, is killed too.
    2. Kill the raylets. As soon as Ray notices that, it ends this process with an exit code of its own.
    """
    # Otherwise the children of a process that is killed would belong to init, and nobody would find
    # them.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    me, limit = os.getpid(), time.monotonic() + END_S
    while time.monotonic() < limit:  # 1
        found = [process for process in children_below(me) if not _is_raylet(process)]
        if not found:
            break
        _send(found, signal.SIGKILL)
        time.sleep(LOOK_S)
    _send(children_below(me), signal.SIGKILL)  # 2


def children_below(top: int) -> list[int]:
    """The ids of all processes below `top` that have not ended, parents before their children."""
    children = _children()
    family = [top]
    for process in family:
        family += children[process]
    return family[1:]


def _children() -> dict[int, list[int]]:
    """The ids of all processes that have not ended, by their parents' ids."""
    children = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError):  # it has just ended
                state, parent = (folder / "stat").read_text().rsplit(") ", 1)[1].split()[:2]
                if state not in "ZX":
                    children[int(parent)].append(int(folder.name))
    return children


def _is_raylet(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().strip() == "raylet"
    return False


def _send(processes: Iterable[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)
