"""Which keeper of a card gives the steps, while the replicas of a new plan replace those of an old one.

A new plan makes a new keeper for each card. While the replicas of the old plan are still there, their
engines hold the card's memory, and the old keeper has to give them their turns until their calls are
done. So the new keeper holds its own replicas back until those of the old keeper are gone.

A keeper *takes* the card before its first replica joins, and has it until its last replica is gone. Of
two keepers that both have replicas, the one whose replicas came first goes first. Everything here
follows from what the living keepers say, and they learn it anew from their replicas. So the death of a
keeper loses nothing. This file knows nothing of Ray.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

ASK_S = 0.5
"""Seconds between two attempts to take the card."""
ASK_SOON_S = 0.05
"""Seconds until the next attempt if another keeper is only about to take the card."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A replica that has joined a keeper, or waits until it may join."""

    claimant_id: str
    """The identity of the replica's process."""
    replica: Any
    """The handle of its actor."""
    since: float
    """When the process began to claim its assignment, in seconds of the node's clock."""
    has_engine: bool
    """Whether its engine held memory of the card when the replica last joined or tried to."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a keeper says of itself to the other keepers of its card."""

    name: str
    """The keeper's name."""
    has_card: bool
    """Whether it has taken the card, or may have: if it was restarted, its replicas come back one after
    the other."""
    is_asking: bool
    """Whether it is about to take the card."""
    has_replicas: bool
    """Whether it has replicas, those that wait for the card included."""
    since: float
    """When the first of these replicas began to claim its assignment; infinity without replicas."""


def may_take(own: Standing, others: Sequence[Standing]) -> bool:
    """Whether a keeper may take the card, by what the others have said after it began to ask.

    1. Another one has the card: no.
    2. Another one has replicas that came first: no, unless engines of this one hold memory already.
    3. Another one is about to take the card, though its replicas came later: not yet. It may have
       looked before this keeper had a replica. It will either take the card or find out.
    """
    return not any(
        other.has_card or other.is_asking or (not own.has_card and _came_first(other, own))
        for other in others
    )


def _came_first(other: Standing, own: Standing) -> bool:
    return other.has_replicas and (other.since, other.name) < (own.since, own.name)


class Handover:
    """One keeper's part in the hand-over of its card.

    Args:
        name: the keeper's name.
        claims: the keeper's living replicas by their names in the plan, kept up to date by its owner.
        ask: returns what the other keepers of the card say of themselves.
        evict: ends the replicas of other keepers of the card.
        longest_s: seconds that the replicas of an old plan get to end their calls. After that they are
            ended. Without this limit, the replicas of two models on two cards could wait for each other
            for ever: Serve ends the next old replica of a model only once the last new one is up.
    """

    def __init__(
        self,
        name: str,
        claims: Mapping[str, Claim],
        ask: Callable[[], Awaitable[Sequence[Standing]]],
        evict: Callable[[Sequence[Standing]], Awaitable[None]],
        longest_s: float,
    ) -> None:
        self._name = name
        self._claims = claims
        self._ask = ask
        self._evict = evict
        self._longest_s = longest_s
        self._has_taken = False
        self._is_asking = False
        self._rejoin_until = -math.inf
        self._taking: asyncio.Task[None] | None = None

    def expect_replicas(self, for_s: float) -> None:
        """Count as a keeper that may have the card until a replica comes, but at most for `for_s`
        seconds. A keeper that was restarted calls this: its replicas are about to come back."""
        self._rejoin_until = asyncio.get_running_loop().time() + for_s

    def standing(self) -> Standing:
        """What this keeper says of itself."""
        if not self._claims:
            self._has_taken = False
        may_come_back = not self._claims and asyncio.get_running_loop().time() < self._rejoin_until
        has_engine = any(claim.has_engine for claim in self._claims.values())
        return Standing(
            self._name,
            has_card=self._has_taken or may_come_back or has_engine,
            is_asking=self._is_asking,
            has_replicas=bool(self._claims),
            since=min((claim.since for claim in self._claims.values()), default=math.inf),
        )

    async def take(self) -> bool:
        """Whether this keeper has the card now. If not, it goes on trying to take the card.

        A replica must be among the claims before this is called.
        """
        if not self._has_taken:
            if self._taking is None or self._taking.done():
                self._taking = asyncio.create_task(self._keep_trying())
            await asyncio.wait([self._taking], timeout=ASK_S)
        return self._has_taken

    async def _keep_trying(self) -> None:
        """Take the card as soon as no other keeper has it, or end when no replica claims it."""
        loop = asyncio.get_running_loop()
        evict_at = loop.time() + self._longest_s
        while True:
            self._is_asking = True
            try:
                others = await self._ask()
                own = self.standing()
                self._has_taken = own.has_replicas and may_take(own, others)
            finally:
                self._is_asking = False
            if self._has_taken or not own.has_replicas:
                return
            first = [other for other in others if _came_first(other, own)]
            if first and loop.time() >= evict_at:
                logger.warning("the replicas of an old plan are ended: they had the card for too long")
                await self._evict(first)
                evict_at = loop.time() + self._longest_s
            blocked = first or any(other.has_card for other in others)
            await asyncio.sleep(ASK_S if blocked else ASK_SOON_S)
