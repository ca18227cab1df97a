"""How a job's models are started, found and ended: Ray and Serve only record what they are told."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.ray_runtime import APP_NAME
from cluster.residency.messages import Verb
from jobs import model_app
from jobs.app_choice import JOB_APP, ModelAppMismatch, app_name
from jobs.model_app import ModelApp, SwapCounter, open_model_app
from tests.unit.jobs.answering import recipe

OTHER = f"{JOB_APP}0000"


@dataclass
class Clusters:
    """Clusters by address, each with the names of its applications; `None` is one that was started."""

    applications: dict[str | None, list[str]]
    did: list[str]
    connected: str | None = ""

    def connect(self, address: str | None, *, verbose: bool) -> None:  # noqa: ARG002
        self.connected = address
        self.did.append(f"connect {address}")

    def disconnect(self, app: str | None, *, local: bool) -> None:
        self.did.append(f"disconnect {app} local={local}")

    def local_clusters(self) -> list[str]:
        return [address for address in self.applications if address]

    def running(self) -> list[str]:
        return self.applications[self.connected]


@dataclass
class Job:
    """A job that opens its models, answers, and closes them."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    did: list[str] = field(default_factory=list)
    """What was done to clusters and applications, in order; lines for people begin with #."""

    def open(self, applications: dict[str | None, list[str]], fails: bool = False) -> list[str]:
        """Open the models on clusters with these applications; what was done."""
        self.did.clear()
        did = self.did
        clusters = Clusters(applications, did)
        for name, replacement in {
            "connect": clusters.connect,
            "disconnect": clusters.disconnect,
            "local_clusters": clusters.local_clusters,
            "applications": clusters.running,
        }.items():
            self.monkeypatch.setattr(f"cluster.ray_runtime.{name}", replacement)

        def deploy(_recipe: object, name: str, in_flight: int, *, follow_nodes: bool) -> None:
            did.append(f"deploy {name} for {in_flight} follow_nodes={follow_nodes}")
            if fails:
                raise RuntimeError("the models cannot start")

        async def find(_recipe: object, name: str, *, shared: bool) -> ModelApp:
            did.append(f"find {name} shared={shared}")
            return ModelApp(None, {}, SwapCounter([]))  # type: ignore[arg-type]

        self.monkeypatch.setattr(model_app, "_deploy", deploy)
        self.monkeypatch.setattr(model_app, "_find_models", find)
        self.monkeypatch.setattr(model_app, "_end_app", lambda name: did.append(f"end {name}"))
        with open_model_app(
            recipe(), self.folder, in_flight=7, verbose=False, say=lambda line: did.append(f"# {line}")
        ):
            did.append("answering")
        return did

    @property
    def own(self) -> str:
        return app_name(self.folder)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return Job(tmp_path, monkeypatch)


def test_without_a_cluster_one_is_started_and_ended(job: Job) -> None:
    assert job.open({None: []}) == [
        "connect None",
        "# starting the models: a, b, c, y, z",
        f"deploy {job.own} for 7 follow_nodes=False",
        f"find {job.own} shared=False",
        "answering",
        f"disconnect {job.own} local=True",
    ]


def test_a_served_application_on_this_machine_is_used_and_stays(job: Job) -> None:
    assert job.open({"here:1": ["other"], "here:2": [APP_NAME], None: []}) == [
        "connect here:1",
        "disconnect None local=False",
        "connect here:2",
        "# using the running application slimmoa",
        "find slimmoa shared=True",
        "answering",
        "disconnect None local=False",
    ]


def test_another_jobs_cluster_on_this_machine_is_left_alone(job: Job) -> None:
    assert job.open({"here:1": [OTHER], None: []})[:3] == [
        "connect here:1",
        "disconnect None local=False",
        "connect None",
    ]


def test_what_a_killed_job_left_is_ended_before_the_models_start_anew(job: Job) -> None:
    assert job.open({"here:1": [OTHER, job.own]}) == [
        "connect here:1",
        "# ending the models that an earlier job of this run has left",
        f"end {job.own}",
        "# starting the models: a, b, c, y, z",
        f"deploy {job.own} for 7 follow_nodes=True",
        f"find {job.own} shared=False",
        "answering",
        f"disconnect {job.own} local=False",
    ]


def test_another_jobs_application_on_the_named_cluster_is_refused(job: Job) -> None:
    job.monkeypatch.setenv("RAY_ADDRESS", "far:6379")
    clusters: dict[str | None, list[str]] = {"far:6379": [OTHER], "here:1": [APP_NAME]}
    with pytest.raises(ModelAppMismatch, match=f"another job's application, {OTHER}, runs on this"):
        job.open(clusters)
    assert job.did == ["connect far:6379", "disconnect None local=False"]
    assert job.open({"far:6379": [], "here:1": [APP_NAME]})[:2] == [
        "connect far:6379",
        "# starting the models: a, b, c, y, z",
    ]


def test_models_that_cannot_start_are_ended_with_their_cluster(job: Job) -> None:
    with pytest.raises(RuntimeError, match="cannot start"):
        job.open({None: []}, fails=True)
    assert job.did[-1] == f"disconnect {job.own} local=True"


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str], list[str]], list[str]]:
    """A function that ends a job's application on a cluster with these actors, some of which have just
    ended by themselves. It returns what was ended, in order."""
    ended: list[str] = []

    def get_actor(name: str, namespace: str) -> str:
        if name in gone:
            raise ValueError(f"no actor {name} in {namespace}")
        return name

    gone: list[str] = []
    actors: list[str] = []
    ray = SimpleNamespace(
        util=SimpleNamespace(
            list_named_actors=lambda **_: [{"name": name, "namespace": "serve"} for name in actors]
        ),
        get_actor=get_actor,
        kill=ended.append,
        serve=SimpleNamespace(delete=lambda name: ended.append(f"delete {name}")),
    )
    keeper = SimpleNamespace(keepers=lambda app: {"card": f"keeper of {app}"})
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "actors.keeper.ray_keeper", keeper)

    def end(names: list[str], just_ended: list[str]) -> list[str]:
        actors.extend(names)
        gone.extend(just_ended)
        model_app._end_app(f"{JOB_APP}1111")
        return ended

    return end


def test_a_killed_jobs_actors_are_killed_before_serve_ends_the_application(
    killed: Callable[[list[str], list[str]], list[str]],
) -> None:
    own, other = (f"SERVE_REPLICA::{JOB_APP}{digits}#model-a#" for digits in ("1111", "11112"))
    names = [f"{own}1", f"{other}1", f"{own}2", f"SERVE_REPLICA::slimmoa#{JOB_APP}1111#1", f"{own}3"]
    assert killed(names, [f"{own}2"]) == [
        f"{own}1",
        f"{own}3",
        f"keeper of {JOB_APP}1111",
        f"delete {JOB_APP}1111",
    ]


class Keeper:
    """A keeper whose counts of orders follow a script; None: out of reach."""

    def __init__(self, unreachable: type[Exception], *wakes: int | None) -> None:
        self.order_counts = SimpleNamespace(remote=self._count)
        self._unreachable = unreachable
        self._wakes = iter(wakes)

    async def _count(self) -> dict[tuple[str, Any], int]:
        wakes = next(self._wakes)
        if wakes is None:
            raise self._unreachable
        return {("a", Verb.WAKE): wakes, ("a", Verb.SLEEP): 100}


async def test_swaps_are_counted_from_the_first_look_over_keepers_that_come_and_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class RayError(Exception):
        pass

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ray.exceptions", SimpleNamespace(RayError=RayError))
    steady = Keeper(RayError, 10, 11, 11, 14, 15)
    away = Keeper(RayError, 5, None, None, 9, 9)
    restarted = Keeper(RayError, 7, 8, 2, 2, 3)
    late = Keeper(RayError, None, 50, 51, 51, 51)
    swaps = SwapCounter([steady, away, restarted, late])
    assert [await swaps() for _ in range(5)] == [0, 2, 5, 12, 14]
