"""All that is below a process ends with it, whatever its parents are and however it is started."""

import os
import signal
import subprocess
import sys
import time

from cluster.own_processes import children_below

FAMILY = """
import subprocess, sys
deaf = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]"
sleep = deaf + "; print(0, flush=True); time.sleep(600)"
grandchild = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]).wait()"
children = [
    subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    for code in (sleep, grandchild)
]
for child in children:
    child.stdout.readline()
print("up", flush=True)
sys.stdin.readline()
from cluster.own_processes import end_children
end_children()
print("ended", flush=True)
sys.stdin.readline()
"""


def test_a_whole_family_ends_and_its_head_lives() -> None:
    command = [sys.executable, "-c", FAMILY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        below = children_below(process.pid)
        assert len(below) == 3
        assert set(below) < set(children_below(os.getpid()))
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ended\n"
        due = time.monotonic() + 30
        while set(below) & set(children_below(os.getpid())):  # the last ones are just ending
            assert time.monotonic() < due
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
