"""Which of several keepers of a card may give steps, with keepers that answer late and die.

In virtual time. `Card` notes when two keepers have the card at a time.
"""

import asyncio
import random
from collections.abc import Sequence

import pytest

from actors.keeper.handover import ASK_S, Claim, Handover, Standing

pytestmark = pytest.mark.virtual_time

LONGEST_S = 30.0


class Keeper:
    """A keeper of the card; a message to it or from it takes up to `delay_s` seconds."""

    def __init__(self, card: "Card", name: str) -> None:
        self.card = card
        self.name = name
        self.claims: dict[str, Claim] = {}
        self.evictions = 0
        self.born()

    def born(self) -> None:
        self.handover = Handover(self.name, self.claims, self._ask, self._evict, self.card.longest_s)

    def die_and_come_back(self, rejoin_s: float = 8.0) -> None:
        """Ray restarts it. Its replicas come back with `join`."""
        self.claims = {}
        self.born()
        self.handover.expect_replicas(rejoin_s)

    def claim(self, replica: str, *, has_engine: bool = False, since: float | None = None) -> None:
        now = asyncio.get_running_loop().time()
        self.claims[replica] = Claim(replica, replica, now if since is None else since, has_engine)

    async def until_taken(self) -> None:
        while not await self.handover.take():  # as a replica that asks again
            await self.card.delay()
        self.card.check()

    @property
    def has_card(self) -> bool:
        return self.handover.standing().has_card

    async def _ask(self) -> Sequence[Standing]:
        others = [other for other in self.card.keepers if other is not self]
        return list(await asyncio.gather(*(self._ask_one(other) for other in others)))

    async def _ask_one(self, other: "Keeper") -> Standing:
        await self.card.delay()
        standing = other.handover.standing()
        await self.card.delay()
        return standing

    async def _evict(self, others: Sequence[Standing]) -> None:
        for standing in others:
            keeper = next(k for k in self.card.keepers if k.name == standing.name)
            keeper.evictions += 1
            keeper.claims.clear()


class Card:
    def __init__(
        self, *names: str, delay_s: float = 0.05, seed: int = 0, longest_s: float = LONGEST_S
    ) -> None:
        self.longest_s = longest_s
        self._random = random.Random(seed)
        self._delay_s = delay_s
        self.keepers = [Keeper(self, name) for name in names]

    async def delay(self) -> None:
        await asyncio.sleep(self._random.uniform(0, self._delay_s))

    def check(self) -> None:
        having = [k.name for k in self.keepers if k.handover.standing().has_card and k.claims]
        assert len(having) <= 1, having


async def test_a_keeper_that_is_alone_takes_the_card_at_once() -> None:
    (only,) = Card("a", delay_s=0).keepers
    only.claim("a/0")
    assert await only.handover.take()
    assert asyncio.get_running_loop().time() == 0


async def test_a_new_plan_waits_until_the_last_replica_of_the_old_one_is_gone() -> None:
    old, new = Card("old", "new").keepers
    old.claim("a/0")
    old.claim("b/0")
    await old.until_taken()
    await asyncio.sleep(5)
    new.claim("a/0")
    taking = asyncio.create_task(new.until_taken())
    for replica in ("a/0", "b/0"):
        await asyncio.sleep(5)
        assert not taking.done()
        del old.claims[replica]
    await taking
    assert asyncio.get_running_loop().time() < 15 + 3 * ASK_S
    assert not old.has_card
    assert old.evictions == 0


async def test_replicas_that_hold_the_card_for_too_long_are_ended() -> None:
    old, new = Card("old", "new").keepers
    old.claim("a/0")
    await old.until_taken()
    await asyncio.sleep(1)
    new.claim("a/0")
    began = asyncio.get_running_loop().time()
    await new.until_taken()
    assert old.evictions == 1
    waited_s = asyncio.get_running_loop().time() - began
    assert LONGEST_S <= waited_s < LONGEST_S + 3


async def test_an_old_keeper_that_is_killed_and_comes_back_still_has_the_card() -> None:
    old, new = Card("old", "new").keepers
    old.claim("a/0", since=-100)
    await old.until_taken()
    new.claim("a/0")
    taking = asyncio.create_task(new.until_taken())
    await asyncio.sleep(1)
    old.die_and_come_back()
    await asyncio.sleep(2)  # until its replica has noticed
    assert not taking.done()
    old.claim("a/0", has_engine=True, since=-100)
    await old.until_taken()
    await asyncio.sleep(10)
    assert not taking.done()
    old.claims.clear()
    await taking


async def test_a_restarted_keeper_whose_replicas_are_gone_too_blocks_nobody_for_long() -> None:
    old, new = Card("old", "new").keepers
    old.die_and_come_back()
    new.claim("a/0")
    await new.until_taken()
    assert asyncio.get_running_loop().time() < 8 + 2


async def test_a_waiting_keeper_that_is_killed_waits_again() -> None:
    old, new = Card("old", "new").keepers
    old.claim("a/0")
    await old.until_taken()
    await asyncio.sleep(1)
    new.claim("a/0", since=1)
    assert not await new.handover.take()
    new.die_and_come_back()
    new.claim("a/0", since=1)
    assert not await new.handover.take()
    old.claims.clear()
    await new.until_taken()


async def test_back_to_the_first_plan_before_the_second_had_its_turn() -> None:
    first, second = Card("first", "second").keepers
    first.claim("a/0", since=-100)
    first.claim("b/0", since=-100)
    await first.until_taken()
    second.claim("a/0")
    second_taking = asyncio.create_task(second.until_taken())
    await asyncio.sleep(1)
    del first.claims["a/0"]
    first.claim("a/0")  # a replica of the first plan again
    assert await first.handover.take()
    del first.claims["b/0"]
    await asyncio.sleep(3)
    assert not second_taking.done()  # it has lost nothing: Serve ends its replica now
    second.claims.clear()
    second_taking.cancel()
    assert first.has_card


async def test_engines_that_hold_memory_come_before_replicas_that_only_wait() -> None:
    """The first plan's keeper is killed after all of its replicas were exchanged."""
    first, second = Card("first", "second").keepers
    second.claim("a/0", since=100)
    first.claim("a/0", has_engine=True, since=200)
    taking = asyncio.create_task(second.until_taken())
    await first.until_taken()
    await asyncio.sleep(3)
    assert not taking.done()
    first.claims.clear()
    await taking


@pytest.mark.parametrize("seed", range(40))
async def test_of_keepers_that_begin_together_one_at_a_time_has_the_card(seed: int) -> None:
    """Four plans in a row: replicas come and go, keepers are killed, and each plan gets its turn."""
    card = Card("a", "b", "c", "d", delay_s=0.4, seed=seed, longest_s=300)
    dice = random.Random(seed)

    async def live(keeper: Keeper) -> None:
        await asyncio.sleep(dice.uniform(0, 1))
        since = asyncio.get_running_loop().time()
        keeper.claim("x/0", since=since)
        await keeper.until_taken()
        for _ in range(3):
            await asyncio.sleep(dice.uniform(0, 2))
            card.check()
            if dice.random() < 0.5:
                keeper.die_and_come_back()
                await asyncio.sleep(dice.uniform(0, 2))
                keeper.claim("x/0", has_engine=True, since=since)
                await keeper.until_taken()
        keeper.claims.clear()

    async with asyncio.timeout(200):
        await asyncio.gather(*(live(keeper) for keeper in card.keepers))
    assert sum(keeper.evictions for keeper in card.keepers) == 0
