"""What Ray's keeper adds to the keeper of a card, with replicas that are names. In virtual time."""

import asyncio

import pytest

from actors.keeper import ray_keeper
from actors.keeper.card_keeper import EMPTY_S, PING_S
from actors.keeper.ray_keeper import RayKeeper
from cluster.residency.messages import Snapshot
from cluster.residency.state import Member, Slot, State

pytestmark = pytest.mark.virtual_time

NEW = Snapshot(State.NOT_STARTED)


class Scene:
    """A keeper of one member. The replicas in `dead` answer no ping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dead: set[str] = set()
        self.retired = 0
        monkeypatch.setattr(ray_keeper, "is_alive", self._is_alive)
        monkeypatch.setattr(ray_keeper, "retire", self._retire)
        self.keeper = RayKeeper([Slot("s", (Member("a"),))])

    async def _is_alive(self, replica: str) -> bool:
        return replica not in self.dead

    async def _retire(self) -> None:
        self.retired += 1

    async def join(self, replica: str) -> str | None:
        return await self.keeper.join("a", replica, NEW, replica)


async def test_a_dead_replica_makes_room_at_once_and_a_living_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = Scene(monkeypatch)
    assert await card.join("first")
    assert await card.join("second") is None
    card.dead.add("first")
    await asyncio.sleep(PING_S)
    assert await card.join("second")


async def test_a_keeper_whose_replica_was_replaced_in_time_does_not_retire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old replica is found dead twice: by the new one's claim, and by the keeper's own watch."""
    card = Scene(monkeypatch)
    assert await card.join("first")
    card.dead.add("first")
    await card.join("second")
    await asyncio.sleep(2 * PING_S)
    assert await card.join("second")
    await asyncio.sleep(3 * EMPTY_S)
    assert card.retired == 0
    card.dead.add("second")
    await asyncio.sleep(EMPTY_S + 2 * PING_S)
    assert card.retired == 1


async def test_an_unknown_member_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Scene(monkeypatch)
    with pytest.raises(ValueError, match="has a member 'x'"):
        await card.keeper.join("x", "me", NEW, "me")
