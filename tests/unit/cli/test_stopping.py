"""How commands end when signals come: the exit code, one line, and nothing left below the process."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BEGIN = """
import subprocess, sys, time, threading, asyncio
from cli import stopping

def say(word):
    print(word, flush=True)

def begin(once=[]):
    if once:
        return
    code = "import time, signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    code += "; time.sleep(99)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    once.append(child)
    child.stdout.readline()
    say(child.pid)
"""
WAITS = "threading.Event().wait()"
COMMANDS = {
    "waits": f"def command():\n begin()\n {WAITS}",
    "runs an event loop": "def command():\n begin()\n asyncio.run(asyncio.sleep(99))",
    "ends slowly": f"""
def command():
    stopping._state.limit_s = 0.2
    try:
        begin()
        {WAITS}
    finally:
        {WAITS}
""",
    "is deaf": """
def command():
    stopping._state.limit_s = 0.2
    while True:
        try:
            begin()
            time.sleep(99)
        except BaseException:
            pass
""",
    "exits by itself": f"""
def command():
    try:
        begin()
        {WAITS}
    except BaseException:
        raise SystemExit(7)
""",
}
SIGNALS = {
    signal.SIGINT: (130, "Ctrl-C"),
    signal.SIGTERM: (143, "SIGTERM"),
    signal.SIGHUP: (129, "SIGHUP"),
}


@contextmanager
def running(command: str, before: str = "") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that runs a command, and the id of the command's child once it is there."""
    code = f"{BEGIN}\n{command}\nstopping.run(command)"
    with subprocess.Popen(
        ["/bin/sh", "-c", f'{before} exec "$0" -c "$1"', sys.executable, code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def ends(pid: int) -> bool:
    """Whether a killed process disappears. The kernel may need a moment."""
    due = time.monotonic() + 10
    while time.monotonic() < due:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(") ", 1)[1][0] in "ZX":
                    return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_ends_a_command_whatever_it_does(name: str, number: signal.Signals) -> None:
    code, called = SIGNALS[number]
    with running(COMMANDS[name]) as (process, child):
        process.send_signal(number)
        out, errors = process.communicate(timeout=30)
    assert (process.returncode, out, errors) == (code, "", f"stopped by {called}\n")
    assert ends(child)


ENDS_IN_ORDER = f"""
def command():
    try:
        begin()
        {WAITS}
    except (KeyboardInterrupt, stopping.Terminated):
        stopping.in_order(60, "stopping: it takes a while")
        sys.stdin.readline()
        raise
"""


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_a_command_may_end_in_order_and_a_second_sigterm_changes_nothing(
    number: signal.Signals,
) -> None:
    with running(ENDS_IN_ORDER) as (process, _):
        assert process.stderr is not None
        process.send_signal(number)
        assert process.stderr.readline() == "stopping: it takes a while\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate("\n", timeout=30)
    assert (process.returncode, errors) == (SIGNALS[number][0], "")


def test_a_second_ctrl_c_ends_what_ends_in_order() -> None:
    code = ENDS_IN_ORDER.replace("begin()", "stopping.REPEAT_S = 0.01; begin()")
    with running(code) as (process, child):
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        process.stderr.readline()
        due = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < due:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert process.returncode == 130
        assert process.stderr.read() == ""
    assert ends(child)


def test_a_conversation_uses_ctrl_c_itself_and_ends_by_other_signals() -> None:
    code = """
def command():
    with stopping.own_interrupts():
        while True:
            try:
                begin()
                time.sleep(99)
            except KeyboardInterrupt:
                say("stopped an answer")
"""
    with running(code) as (process, _):
        assert process.stdout is not None
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopped an answer\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (143, "stopped by SIGTERM\n")


def test_nohup_keeps_a_command_alive_and_the_background_hears_ctrl_c() -> None:
    with running(COMMANDS["waits"], before="trap '' HUP INT;") as (process, _):
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "stopped by Ctrl-C\n")


def test_a_command_that_ends_by_itself_keeps_its_exit_code() -> None:
    with running("def command():\n begin()\n sys.exit(3)") as (process, child):
        assert process.wait(30) == 3
    subprocess.run(["kill", "-9", str(child)], check=False)
