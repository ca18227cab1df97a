"""Inside vLLM's processes: they must not outlive the replica that started them.

When a replica is killed outright, vLLM 0.32 leaves its child running, and the card full. Ray clears
such children away; nobody does where the engine runs without Ray. vLLM imports this module in its
child because it is told to mix FollowsParent into its worker; importing it starts the watch. Over
several GPUs the workers are children of that child, which ends when they do.
"""

import os
import signal
import threading
import time

import psutil  # vLLM's own dependency

from actors.engines.vllm_arguments import REPLICA

LOOK_S = 0.5


class FollowsParent:
    """Adds nothing to the worker."""


def _watch(parent: int, replica: int) -> None:
    while os.getppid() == parent and _runs(replica):
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


WATCHED = (os.getppid(), int(os.environ[REPLICA]))
threading.Thread(target=_watch, args=WATCHED, daemon=True, name="follows-parent").start()
