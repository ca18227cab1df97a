"""Which actors belong to an application, and in which order an application is ended at once."""

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from cluster.ray_applications import is_app_actor, kill_application

OWN, OTHER = "slimmoa-job-1111", "slimmoa-job-11112"


@pytest.mark.parametrize(
    ("actor", "belongs"),
    [
        (f"SERVE_REPLICA::{OWN}#model-a#x1y2", True),
        (f"keeper:{OWN}:node:card:plan", True),
        (f"SERVE_REPLICA::{OTHER}#model-a#x1y2", False),
        (f"keeper:{OTHER}:node:card:plan", False),
        (f"SERVE_REPLICA::other#model-{OWN}#x1y2", False),
        (f"keeper:other:{OWN}:card:plan", False),
        ("SERVE_CONTROLLER_ACTOR", False),
    ],
)
def test_only_actors_of_the_application_itself_are_its_own(actor: str, belongs: bool) -> None:
    assert is_app_actor(OWN, actor) is belongs


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A function that ends an application on a cluster with these actors, some of which have just ended
    by themselves. It returns what was ended, in order."""
    ended: list[str] = []
    gone: list[str] = []
    actors: list[str] = []

    def get_actor(name: str, namespace: str) -> str:
        if name in gone:
            raise ValueError(f"no actor {name} in {namespace}")
        return name

    def status() -> SimpleNamespace:
        return SimpleNamespace(applications={})

    def delete(name: str, *, _blocking: bool) -> None:
        ended.append(f"delete {name}")

    ray = SimpleNamespace(
        util=SimpleNamespace(
            list_named_actors=lambda **_: [{"name": name, "namespace": "serve"} for name in actors]
        ),
        get_actor=get_actor,
        kill=ended.append,
        serve=SimpleNamespace(delete=delete, status=status),
    )
    exceptions = SimpleNamespace(RayError=RuntimeError, RayServeException=RuntimeError)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
    monkeypatch.setitem(sys.modules, "ray.serve.exceptions", exceptions)

    def end(names: list[str], just_ended: list[str], *, joined: bool = True) -> list[str]:
        ray.is_initialized = lambda: joined
        actors.extend(names)
        gone.extend(just_ended)
        kill_application(OWN)
        return ended

    return end


def test_actors_are_killed_before_serve_ends_the_application(killed: Callable[..., list[str]]) -> None:
    own, other = f"SERVE_REPLICA::{OWN}#model-a#", f"SERVE_REPLICA::{OTHER}#model-a#"
    keeper = f"keeper:{OWN}:node:card:plan"
    names = [f"{own}1", f"{other}1", f"{own}2", f"SERVE_REPLICA::slimmoa#{OWN}#1", keeper]
    assert killed(names, [f"{own}2"]) == [f"{own}1", keeper, f"delete {OWN}"]


def test_without_a_cluster_no_call_starts_one(killed: Callable[..., list[str]]) -> None:
    assert killed([f"SERVE_REPLICA::{OWN}#model-a#1"], [], joined=False) == []
