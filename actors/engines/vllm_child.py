"""Ends vLLM's processes when the replica that started them is gone. Runs inside vLLM's processes.

When a replica is killed, vLLM 0.32 leaves its child process running, and the card stays full. Ray
removes such children, but nobody does where an engine runs without Ray. vLLM imports this module in
its child because `vllm_arguments` names FollowsParent as the worker's extension class. The import
starts the watching thread. On several GPUs the workers are children of that child, which ends when its
workers end.
"""

import os
import signal
import threading
import time

from actors.engines.vllm_arguments import REPLICA
from actors.engines.vllm_processes import is_running

LOOK_S = 0.5
"""Seconds between two checks that the parent and the replica still run."""


class FollowsParent:
    """Adds nothing to vLLM's worker. vLLM imports this module because its arguments name this class."""


def _watch(parent: int, replica: int) -> None:
    while os.getppid() == parent and is_running(replica):
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)


WATCHED = (os.getppid(), int(os.environ[REPLICA]))
"""Process ids of this process's parent and of the replica."""
threading.Thread(target=_watch, args=WATCHED, daemon=True, name="follows-parent").start()
