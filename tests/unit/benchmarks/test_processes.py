"""CPU by process: what each one is, who belongs to a family, and what they took."""

import os

import pytest

from benchmarks.shared.processes import Process, family, snapshot, taken, what

NAMES = {
    "ray::ServeReplica:slimmoa:model-proposer-a.handle_request": "model-proposer-a",
    "ray::ServeReplica:slimmoa:ingress": "ingress",
    "ray::ServeController.listen_for_change": "ServeController",
    "ray::ProxyActor": "ProxyActor",
    "ray::IDLE": "idle worker",
    "/x/ray/core/src/ray/raylet/raylet --agent=/x/ray/_private/runtime_env/agent/main.py": "raylet",
    "/x/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp": "gcs_server",
    "/x/bin/python -u /x/ray/_private/log_monitor.py --session-dir=/tmp": "log monitor",
    "/x/bin/python -u /x/ray/autoscaler/_private/monitor.py --logs-dir=/tmp": "autoscaler monitor",
    "/x/bin/python -u /x/ray/dashboard/dashboard.py --host=127.0.0.1": "dashboard",
    "/x/bin/python -m benchmarks.speed.handwritten 8000 http://x": "handwritten",
    "/x/bin/python3 script.py": "python3",
}


@pytest.mark.parametrize(("command", "name"), NAMES.items())
def test_a_process_has_a_plain_name(command: str, name: str) -> None:
    assert what(command) == name


def process(pid: int, parent: int, seconds: float = 0.0, command: str = "ray::IDLE") -> Process:
    return Process(pid, parent, command, seconds)


def test_a_family_is_all_below_but_those_left_out() -> None:
    pairs = [(1, 0), (2, 1), (3, 2), (4, 1), (5, 4), (6, 0)]
    processes = {pid: process(pid, parent) for pid, parent in pairs}
    assert {p.pid for p in family(processes, 1)} == {1, 2, 3, 4, 5}
    assert {p.pid for p in family(processes, 1, without=[4])} == {1, 2, 3}


def test_what_was_taken_is_the_difference_also_of_new_processes() -> None:
    before = [process(1, 0, 5.0, "python"), process(2, 1, 3.0), process(9, 1, 7.0)]
    after = [process(1, 0, 5.5, "python"), process(2, 1, 4.0), process(3, 1, 0.25)]
    assert taken(before, after, root=1) == {"driver": 0.5, "idle worker": 1.25}


def test_this_process_is_there_and_has_taken_cpu() -> None:
    mine = snapshot([os.getpid()])[os.getpid()]
    assert mine.parent == os.getppid()
    assert mine.seconds > 0
