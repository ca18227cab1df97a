"""What Serve's controller says of replicas, without a cluster."""

import asyncio
import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError

from actors.calls.address import Address

with warnings.catch_warnings(action="ignore"):  # Ray Serve's own models warn when they are defined
    from ray.serve._private.long_poll import LongPollState

    from serve_app import replica_watch

pytestmark = pytest.mark.virtual_time

ADDRESS = Address("a node", "/tmp/calls", "10.0.0.5", 4711, "00ff")


class Controller:
    """Answers each long poll with the next of its replies; after the last it never answers."""

    def __init__(self, *replies: object) -> None:
        self._replies = list(replies)
        self.seen: list[dict[str, int]] = []
        self.asked_all = asyncio.Event()
        self.listen_for_change = SimpleNamespace(remote=self._listen)

    async def _listen(self, seen: Mapping[Any, int]) -> object:
        self.seen.append({key[1].name: number for key, number in seen.items()})
        if not self._replies:
            self.asked_all.set()
            await asyncio.Event().wait()
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if not isinstance(reply, dict):
            return reply
        keys = {key[1].name: key for key in seen}
        return {keys[name]: change for name, change in reply.items()}


def change(number: int, **replicas: Mapping[str, Any]) -> SimpleNamespace:
    """A change of a deployment: what each of its replicas says of itself."""
    running = [
        SimpleNamespace(replica_id=SimpleNamespace(unique_id=name), replica_metadata=said)
        for name, said in replicas.items()
    ]
    return SimpleNamespace(
        snapshot_id=number, object_snapshot=SimpleNamespace(running_replicas=running)
    )


async def watched(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """All notices until the controller has nothing more to say."""
    monkeypatch.setattr(ray, "get_actor", lambda *_, **__: controller)
    notices: list[tuple[str, object]] = []
    watching = asyncio.create_task(
        replica_watch.watch_models(
            "app",
            ["m"],
            lambda model, found: notices.append((model, dict(found))),
            lambda count: notices.append(("ingress", count)),
        )
    )
    await controller.asked_all.wait()
    watching.cancel()
    await asyncio.wait([watching])
    assert watching.cancelled()
    return notices


async def test_replicas_and_ingresses_are_told_as_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Controller(
        {"model-m": change(4, one=ADDRESS.to_dict()), "ingress": change(2, a={}, b={})},
        LongPollState.TIME_OUT,
        {"model-m": change(5)},
    )
    assert await watched(controller, monkeypatch) == [
        ("m", {"one": ADDRESS}),
        ("ingress", 2),
        ("m", {}),
    ]
    first, second, third, last = controller.seen
    assert first == {"ingress": -1, "model-m": -1}
    assert second == third == {"ingress": 2, "model-m": 4}
    assert last == {"ingress": 2, "model-m": 5}


async def test_a_replica_that_has_not_told_its_address_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller = Controller({"model-m": change(1, one={}, two=ADDRESS.to_dict())})
    assert await watched(controller, monkeypatch) == [("m", {"two": ADDRESS})]


async def test_a_controller_that_was_away_is_asked_for_everything_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller = Controller(
        {"model-m": change(9, one=ADDRESS.to_dict())},
        ActorUnavailableError("restarting", None),
        {"model-m": change(1, one=ADDRESS.to_dict())},
    )
    notices = await watched(controller, monkeypatch)
    assert notices == [("m", {"one": ADDRESS})] * 2
    assert [seen["model-m"] for seen in controller.seen] == [-1, 9, -1, 1]
