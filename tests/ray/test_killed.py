"""Runs whose processes are killed, on a real cluster: nothing that was stored is computed again."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve
from ray.exceptions import ActorUnavailableError
from ray.serve.schema import ApplicationStatus

from benchmarks.faults.killed import REPLICA, Job, engine_calls, left_processes, processes, whole_rows
from cluster.residency.messages import Verb
from jobs.app_choice import JOB_APP
from jobs.model_app import SwapCounter
from jobs.store import Store

ROWS, KILLS = 60, 4


def test_each_kind_of_process_is_killed_once_and_every_row_is_answered_once(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.faults.killed"]
    command += ["--rows", str(ROWS), "--kills", str(KILLS)]
    done = subprocess.run(
        [*command, "--json", str(file)], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text("utf-8"))
    assert [limit["name"] for limit in figures["limits"] if not limit["held"]] == []
    killed = [row["of"].split("-")[0] for row in figures["rows"]]
    assert killed == ["driver", "model", "RayKeeper", "ServeController"]


def model_starts() -> bool:
    return any(title.startswith(REPLICA) and ":model-" in title for title in processes().values())


def application_ends() -> bool:
    applications = serve.status().applications.items()
    ours = [status.status for name, status in applications if name.startswith(JOB_APP)]
    return ours == [ApplicationStatus.DELETING]


@pytest.mark.parametrize("moment", [model_starts, application_ends])
def test_what_a_driver_leaves_that_starts_or_ends_its_models_does_not_stop_the_next_one(
    http_port: int,  # noqa: ARG001  # it starts Ray
    tmp_path: Path,
    moment: Callable[[], bool],
) -> None:
    job = Job(tmp_path, 8, ray.get_runtime_context().gcs_address, start_s=1)
    try:
        job.start()
        job.until(moment)
        job.stop()
        job.start()
        assert job.ended() == 0, job.said()
    finally:
        job.stop()
    assert left_processes() == 0
    assert job.said().count("starting the models") == 2, "what is not whole is not used"
    with Store.open(job.folder, read_only=True) as store:
        assert whole_rows(store, job.recipe.name) == 8
    keys = [key for _, key in engine_calls(job)]
    assert len(keys) == len(set(keys)) == 3 * 8


class Keeper:
    """As a handle gives it. wakes: what it says, one after another; None where it is away."""

    def __init__(self, *wakes: int | None) -> None:
        self._wakes = iter(wakes)
        self.order_counts = self

    async def remote(self) -> dict[tuple[str, str], Any]:
        if (wakes := next(self._wakes)) is None:
            raise ActorUnavailableError("it is being restarted", None)
        return {("a/0", Verb.WAKE): wakes, ("a/0", Verb.SLEEP): 99}


async def test_swaps_are_counted_over_keepers_that_are_away_and_come_back_new() -> None:
    swaps = SwapCounter([Keeper(5, 7, None, 1, 4), Keeper(None, 3, 4, 4, 4)])
    assert [await swaps() for _ in range(5)] == [0, 2, 3, 4, 7]
