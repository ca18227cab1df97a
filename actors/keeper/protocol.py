"""What a keeper and its replicas promise each other: three calls, and how long they may take."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

from cluster.residency.messages import PollReply, Snapshot

T = TypeVar("T")

POLL_S = 2.0
"""The keeper answers a poll within this many seconds, with or without an order."""
CONTACT_S = 4.0
"""A keeper that has not answered after this many seconds counts as out of reach. Fewer would not do,
because a busy machine may take seconds."""
LEASE_S = 6.0
"""A replica's turn lasts for this many seconds from the sending of its latest poll that was answered.
Less than `Policy.join_wait_s`, so that before a new keeper opens a turn, all leases of the old keeper
have run out."""


class CardTaken(ConnectionError):
    """Replicas of another plan have the card. The keeper keeps the place of the replica that asked."""


class Keeper(Protocol):
    """The keeper of a card, as replicas see it. Times in a snapshot are seconds from when it is sent.

    Raises:
        ConnectionError: the keeper cannot be reached.
        CardTaken: by `join` only; the replica has to ask again.
    """

    async def join(self, member: str, claimant_id: str, found: Snapshot, replica: Any) -> str | None:
        """Register as a member. Return a ticket, or None while another replica is this member.

        Args:
            member: the member's name in the plan.
            claimant_id: names this process, so that the keeper knows it again.
            found: how the replica stands.
            replica: the actor handle that the keeper watches and, if need be, kills.
        """

    async def report(self, ticket: str, number: int, found: Snapshot) -> bool:
        """Say how the replica stands; return whether the keeper knows the ticket.

        If the keeper does not know the ticket, the replica has to join again.

        Args:
            ticket: from `join`.
            number: of the latest order that the replica has received; 0 before the first.
            found: how the replica stands.
        """

    async def poll(self, ticket: str, after: int) -> PollReply:
        """Return the latest order if its number is above `after`; wait up to POLL_S for that."""


async def wait_for_answer(answer: Awaitable[T]) -> T:
    """Return a keeper's answer; raise TimeoutError if there is none after CONTACT_S."""
    async with asyncio.timeout(CONTACT_S):  # Python 3.11's wait_for can swallow a cancellation
        return await answer
