"""Inside vLLM's child process: it must not outlive the replica that started it.

When a replica is killed outright, vLLM 0.32 leaves its child running, and the card full. Ray clears
such children away; nobody does where the engine runs without Ray. vLLM imports this module in its
child because it is told to mix FollowsParent into its worker; importing it starts the watch.
"""

import os
import signal
import threading
import time

LOOK_S = 0.5


class FollowsParent:
    """Adds nothing to the worker."""


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)


threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="follows-parent").start()
