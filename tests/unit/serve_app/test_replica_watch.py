"""Serve's notices of replicas, from a controller that the test writes."""

import asyncio
import threading
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from actors.calls.address import Address
from serve_app.deployment_names import INGRESS, deployment_name

with warnings.catch_warnings(action="ignore"):  # Ray Serve's own models warn when they are defined
    from ray.serve._private.common import DeploymentID
    from ray.serve._private.long_poll import LongPollNamespace, LongPollState

    from serve_app import replica_watch
    from serve_app.replica_watch import watch_models


class Controller:
    """Serve's controller: `listen_for_change` gives what the test puts into `changes`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.changes: asyncio.Queue[Any] = asyncio.Queue()
        self.seen: list[dict[str, int]] = []
        self.got: list[threading.Thread] = []
        """The thread of each time that somebody got the controller's handle."""
        self.listen_for_change = SimpleNamespace(remote=self._listen)
        monkeypatch.setattr(ray, "get_actor", self._get)
        monkeypatch.setattr(replica_watch, "AGAIN_S", 0)

    def _get(self, _name: str, namespace: str) -> "Controller":
        assert namespace == "serve"
        self.got.append(threading.current_thread())
        if len(self.got) == 1:
            raise ValueError("no such actor")
        return self

    async def _listen(self, seen: Mapping[Any, int]) -> Any:
        self.seen.append({key[1].name: snapshot for key, snapshot in seen.items()})
        change = await self.changes.get()
        if isinstance(change, Exception):
            raise change
        return change

    def tell(self, deployment: str, snapshot: int, **replicas: Mapping[str, Any]) -> None:
        """Have the controller tell the replicas of a deployment."""
        key = (LongPollNamespace.DEPLOYMENT_TARGETS, DeploymentID(deployment, "app"))
        running = [
            SimpleNamespace(replica_id=SimpleNamespace(unique_id=name), replica_metadata=said)
            for name, said in replicas.items()
        ]
        told = SimpleNamespace(
            snapshot_id=snapshot, object_snapshot=SimpleNamespace(running_replicas=running)
        )
        self.changes.put_nowait({key: told})


async def test_a_controller_that_goes_and_returns_is_asked_for_all_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller = Controller(monkeypatch)
    told: asyncio.Queue[Any] = asyncio.Queue()
    watching = asyncio.create_task(
        watch_models(
            "app", ["m"], lambda *said: told.put_nowait(said), lambda count: told.put_nowait(count)
        )
    )
    model, address = deployment_name("m"), Address("a node", "/a/path")
    controller.tell(INGRESS, 5, one={}, two={})
    assert await told.get() == 2
    controller.tell(model, 7, one=address.to_dict())
    assert await told.get() == ("m", {"one": address})
    controller.changes.put_nowait(LongPollState.TIME_OUT)
    controller.changes.put_nowait(RayActorError())
    controller.tell(model, 9)
    assert await told.get() == ("m", {})
    watching.cancel()
    first = {INGRESS: -1, model: -1}
    both = {INGRESS: 5, model: 7}
    assert controller.seen[:5] == [first, first | {INGRESS: 5}, both, both, first]
    # Nobody else waits while Ray looks for the controller, and it looks only if it has to.
    assert len(controller.got) == 3
    assert threading.main_thread() not in controller.got


async def test_a_replica_of_another_version_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller = Controller(monkeypatch)
    told: asyncio.Queue[Any] = asyncio.Queue()
    watching = asyncio.create_task(watch_models("app", ["m"], lambda *said: told.put_nowait(said)))
    address = Address("a node", "/a/path")
    later = address.to_dict() | {"protocol": 2}
    controller.tell(deployment_name("m"), 1, silent={}, other={"url": "x"}, later=later)
    assert await told.get() == ("m", {"later": address})
    assert not watching.done()
    watching.cancel()
