"""vLLM's processes below this one: which there are, and how to be sure that they are gone.

vLLM's own shutdown sends SIGTERM, waits for 5 seconds, sends SIGKILL and returns without a further look
(vllm/v1/utils.py, `shutdown`). A process that has tens of gigabytes to free takes longer, and until it
is gone the card is not free.
"""

import logging
import time
from collections.abc import Iterable

import psutil  # vLLM's own dependency

logger = logging.getLogger(__name__)

END_S = 8.0
"""Seconds that a process gets to end by itself, besides the 5 that vLLM's shutdown waits."""
KILLED_S = 5.0
"""Seconds that a killed process may take to free its memory."""
LOOK_S = 0.05
"""Seconds between two looks at processes that end."""
Processes = set[psutil.Process]
OF_PYTHON = ("resource_tracker", "forkserver")
"""Processes that Python's `multiprocessing` keeps until this process ends. They hold no memory of a
card."""


def is_running(process: int | psutil.Process) -> bool:
    """Whether a process runs. One that has ended and was not waited for has no memory any more."""
    try:
        found = psutil.Process(process) if isinstance(process, int) else process
        return found.is_running() and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def child_processes() -> Processes:
    """The processes that this process has started, and those that they have started, and so on."""
    found: Processes = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if not any(name in word for name in OF_PYTHON for word in process.cmdline()):
                found.add(process)
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            found.add(process)
    return found


def end_processes(processes: Iterable[psutil.Process], end_s: float | None = None) -> bool:
    """Return once all of these processes are gone.

    Args:
        processes: the processes.
        end_s: seconds after which those that have not ended are killed; None for END_S.

    Returns:
        Whether all are gone. A process that waits for the driver cannot be killed.
    """
    left = _wait(processes, END_S if end_s is None else end_s)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    left = _wait(left, KILLED_S)
    for process in left:
        logger.error(
            "process %d of vLLM could not be killed, and holds memory of the card", process.pid
        )
    return not left


def _wait(processes: Iterable[psutil.Process], longest_s: float) -> list[psutil.Process]:
    """Those of the processes that still run after `longest_s` seconds.

    Not `psutil.wait_procs`: it would reap children of this process that vLLM's own code still asks for.
    """
    due_at = time.monotonic() + longest_s
    while left := [process for process in processes if is_running(process)]:
        if time.monotonic() >= due_at:
            break
        time.sleep(LOOK_S)
    return left
