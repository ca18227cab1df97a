"""How a replica claims an assignment, with keepers that are played by hand, in virtual time."""

import asyncio
import math
from typing import Any

import pytest

from actors.engine import Share
from actors.keeper.protocol import CardTaken
from actors.keeper.registration import CLAIM_S, Assignment, claim_assignment
from cluster.residency.messages import PollReply, Snapshot
from configs.errors import EngineUnavailable

pytestmark = pytest.mark.virtual_time


class Keeper:
    """A keeper that only lets replicas join.

    held: its members, and the replica that holds each of them, or None.
    away: whether it is out of reach.
    taken: whether replicas of another plan have the card.
    late_s: seconds until its first answer, which goes on even if the caller gives up.
    """

    def __init__(self, held: dict[str, str | None], *, away: bool = False, late_s: float = 0) -> None:
        self.held, self.away, self._late_s = held, away, late_s
        self.taken = False

    async def join(self, member: str, who: str, _found: Snapshot, _replica: Any) -> str | None:
        if self.away:
            raise ConnectionError("ActorDiedError")
        if self.taken:
            raise CardTaken("replicas of another plan have the card")
        late_s, self._late_s = self._late_s, 0
        return await asyncio.shield(asyncio.create_task(self._joined(member, who, late_s)))

    async def _joined(self, member: str, who: str, late_s: float) -> str | None:
        await asyncio.sleep(late_s)
        if self.held[member] not in (None, who):
            return None
        self.held[member] = who
        return f"ticket of {who}"

    async def report(self, *_: Any) -> bool:
        raise AssertionError

    async def poll(self, *_: Any) -> PollReply:
        raise AssertionError


def assignments(keeper: Keeper) -> list[Assignment]:
    return [Assignment(member=member, keeper=keeper, share=Share()) for member in keeper.held]


async def test_it_takes_the_first_assignment_that_nobody_holds() -> None:
    keeper = Keeper({"a/0": "another", "a/1": None, "a/2": None})
    claimed = await claim_assignment("a", assignments(keeper), "me")
    assert claimed.member == "a/1"
    assert keeper.held == {"a/0": "another", "a/1": claimed.claimant_id, "a/2": None}


async def test_an_assignment_that_is_granted_late_is_the_one_that_is_taken() -> None:
    slow, quick = Keeper({"a/0": None}, late_s=CLAIM_S / 2), Keeper({"a/1": None})
    claimed = await claim_assignment("a", [*assignments(slow), *assignments(quick)], "me")
    assert claimed.member == "a/0"
    await asyncio.sleep(CLAIM_S)
    assert (slow.held, quick.held) == ({"a/0": claimed.claimant_id}, {"a/1": None})


async def test_it_waits_for_one_that_is_on_its_way_out_and_for_a_keeper_that_is_away() -> None:
    keeper = Keeper({"a/0": "the last one"}, away=True)
    claim = asyncio.create_task(claim_assignment("a", assignments(keeper), "me"))
    await asyncio.sleep(CLAIM_S / 4)
    keeper.away = False
    await asyncio.sleep(CLAIM_S / 4)
    assert not claim.done()
    keeper.held["a/0"] = None
    assert (await claim).member == "a/0"


async def test_it_waits_for_a_card_that_another_plan_has_and_takes_no_other() -> None:
    taken, free = Keeper({"a/0": None}), Keeper({"a/1": None})
    taken.taken = True
    claim = asyncio.create_task(claim_assignment("a", [*assignments(taken), *assignments(free)], "me"))
    await asyncio.sleep(3 * CLAIM_S)
    assert not claim.done()
    assert free.held == {"a/1": None}
    taken.taken = False
    assert (await claim).member == "a/0"


@pytest.mark.parametrize(
    ("keeper", "why", "after"),
    [
        (Keeper({}), "no assignment of it is planned here", 0),
        (Keeper({"a/0": "another"}), "all of its assignments here are taken", CLAIM_S),
        (Keeper({"a/0": None}, away=True), "out of reach: ActorDiedError", CLAIM_S),
    ],
)
async def test_it_gives_up_and_says_why(keeper: Keeper, why: str, after: float) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(EngineUnavailable, match=why) as raised:
        await claim_assignment("a", assignments(keeper), "me")
    assert raised.value.model == "a"
    assert math.isclose(asyncio.get_running_loop().time() - began, after, abs_tol=0.01)
