"""The Ray that this project starts: which processes it has, and that it leaves Ray itself as it was."""

import os

import pytest
from ray._private.node import Node

from cluster.ray_processes import fewer_processes
from tests.e2e.processes import below

STARTS = {name: getattr(Node, name) for name in ("start_monitor", "start_log_monitor")}


def starts() -> dict[str, object]:
    return {name: getattr(Node, name) for name in STARTS}


@pytest.mark.usefixtures("http_port")
def test_no_process_runs_that_has_no_work() -> None:
    titles = below(os.getpid()).values()
    assert any("raylet/raylet " in title for title in titles)
    assert not [title for title in titles if "monitor.py" in title]
    assert starts() == STARTS


def test_the_log_monitor_stays_for_a_terminal_that_shows_logs() -> None:
    with fewer_processes(logs=True):
        assert starts()["start_log_monitor"] is STARTS["start_log_monitor"]
        assert starts()["start_monitor"] is not STARTS["start_monitor"]


def test_ray_starts_its_helpers_again_after_a_failed_start() -> None:
    with pytest.raises(ConnectionError), fewer_processes(logs=False):
        raise ConnectionError
    assert starts() == STARTS
