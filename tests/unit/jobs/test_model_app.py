"""How a job's models are started, found and ended: Ray and Serve only record what they are told."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.ray_address import NoCluster
from cluster.ray_runtime import APP_NAME, SERVED
from cluster.residency.messages import Verb
from jobs import model_app
from jobs.app_choice import JOB_APP, ModelAppMismatch, app_name
from jobs.model_app import ModelApp, SwapCounter, open_model_app
from serve_app.local_servers import LocalServer
from tests.unit.jobs.answering import recipe

OTHER = f"{JOB_APP}0000"


@dataclass
class Clusters:
    """Clusters by address, each with the names of its applications; `None` is one that was started. A
    cluster without a list cannot be reached."""

    applications: dict[str | None, list[str] | None]
    did: list[str]
    connected: str | None = ""

    def connect(self, address: str | None, **_: object) -> None:
        self.did.append(f"connect {address}")
        if self.applications[address] is None:
            raise NoCluster(f"no Ray cluster answers at {address}")
        self.connected = address

    def disconnect(self, app: str | None, *, local: bool) -> None:
        self.did.append(f"disconnect {app} local={local}")

    def leave_at_once(self, app: str | None, *, local: bool) -> None:
        self.did.append(f"leave at once, end {app} local={local}")

    def running(self) -> list[str]:
        return self.applications[self.connected] or []

    def this_cluster(self) -> str | None:
        return self.connected


@dataclass
class Job:
    """A job that opens its models, answers, and closes them."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    did: list[str] = field(default_factory=list)
    """What was done to clusters and applications, in order; lines for people begin with #."""

    def open(
        self,
        applications: Mapping[str | None, list[str] | None],
        fails: BaseException | None = None,
        servers: Sequence[LocalServer] = (),
        answering: BaseException | None = None,
    ) -> list[str]:
        """Open the models on clusters with these applications, beside these servers; what was done."""
        self.did.clear()
        did = self.did
        clusters = Clusters(dict(applications), did)
        for name, replacement in {
            "connect": clusters.connect,
            "disconnect": clusters.disconnect,
            "leave_at_once": clusters.leave_at_once,
            "applications": clusters.running,
            "this_cluster": clusters.this_cluster,
        }.items():
            self.monkeypatch.setattr(f"cluster.ray_runtime.{name}", replacement)
        self.monkeypatch.setattr(model_app, "find_servers", lambda: list(servers))

        def deploy(_recipe: object, name: str, in_flight: int, *, follow_nodes: bool) -> None:
            did.append(f"deploy {name} for {in_flight} follow_nodes={follow_nodes}")
            if fails is not None:
                raise fails

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
            if answering is not None:
                raise answering
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


def server(cluster: str, app: str = APP_NAME, **changes: Any) -> LocalServer:
    """A server on this machine of a recipe with these changes."""
    return LocalServer(recipe(**changes), app, cluster)


def test_a_server_of_the_recipe_on_this_machine_is_used_and_stays(job: Job) -> None:
    served = f"{SERVED}mix-8001"
    clusters: dict[str | None, list[str] | None] = {"here:2": ["other", served]}
    assert job.open(clusters, servers=[server("here:2", served)]) == [
        "connect here:2",
        f"# using the running application {served}",
        f"find {served} shared=True",
        "answering",
        "disconnect None local=False",
    ]


OTHER_RECIPE: dict[str, Any] = {
    "models": {name: {"engine": "scripted", "tokens": 99} for name in "abcyz"}
}


@pytest.mark.parametrize(
    ("servers", "clusters", "tried"),
    [
        ([server("here:1", **OTHER_RECIPE)], {"here:1": [APP_NAME]}, []),
        ([server("here:1")], {"here:1": None}, ["connect here:1"]),
        ([server("here:1")], {"here:1": []}, ["connect here:1", "disconnect None local=False"]),
        ([], {"here:1": [APP_NAME], "here:2": None, "here:3": [OTHER]}, []),
    ],
    ids=["another recipe", "out of reach", "its application has ended", "somebody else's Ray"],
)
def test_what_is_not_ours_or_not_there_is_passed_over_in_silence(
    job: Job,
    servers: list[LocalServer],
    clusters: dict[str | None, list[str] | None],
    tried: list[str],
) -> None:
    did = job.open({**clusters, None: []}, servers=servers)
    assert did[: len(tried) + 2] == [*tried, "connect None", "# starting the models: a, b, c, y, z"]
    assert did[-1] == f"disconnect {job.own} local=True"


def test_the_next_server_is_used_after_one_that_cannot_be_reached(job: Job) -> None:
    servers = [server("here:1"), server("here:2")]
    assert job.open({"here:1": None, "here:2": [APP_NAME]}, servers=servers)[:3] == [
        "connect here:1",
        "connect here:2",
        "# using the running application slimmoa",
    ]


def test_on_a_named_cluster_the_server_of_the_recipe_is_used(job: Job) -> None:
    job.monkeypatch.setenv("RAY_ADDRESS", "here:1")
    mine, other = f"{SERVED}z-8001", f"{SERVED}a-8000"
    servers = [server("here:2"), server("here:1", other, **OTHER_RECIPE), server("here:1", mine)]
    assert job.open({"here:1": [other, mine]}, servers=servers)[:2] == [
        "connect here:1",
        f"# using the running application {mine}",
    ]


def test_what_a_killed_job_left_is_ended_before_the_models_start_anew(job: Job) -> None:
    job.monkeypatch.setenv("RAY_ADDRESS", "here:1")
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
    clusters: dict[str | None, list[str] | None] = {"far:6379": [OTHER], "here:1": [APP_NAME]}
    with pytest.raises(ModelAppMismatch, match=f"another job's application, {OTHER}, runs on this"):
        job.open(clusters)
    assert job.did == ["connect far:6379", "disconnect None local=False"]
    assert job.open({"far:6379": [], "here:1": [APP_NAME]})[:2] == [
        "connect far:6379",
        "# starting the models: a, b, c, y, z",
    ]


def test_models_that_cannot_start_are_ended_with_their_cluster(job: Job) -> None:
    with pytest.raises(RuntimeError, match="cannot start"):
        job.open({None: []}, fails=RuntimeError("the models cannot start"))
    assert job.did[-1] == f"disconnect {job.own} local=True"


def test_a_signal_while_the_models_start_or_answer_ends_them_at_once(job: Job) -> None:
    for signal in ({"fails": KeyboardInterrupt()}, {"answering": KeyboardInterrupt()}):
        with pytest.raises(KeyboardInterrupt):
            job.open({None: []}, **signal)  # type: ignore[arg-type]
        assert job.did[-1] == f"leave at once, end {job.own} local=True"


def test_a_signal_leaves_a_used_server_as_it_is(job: Job) -> None:
    with pytest.raises(KeyboardInterrupt):
        job.open({"here:1": [APP_NAME]}, servers=[server("here:1")], answering=KeyboardInterrupt())
    assert job.did[-1] == "leave at once, end None local=False"


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
