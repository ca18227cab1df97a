"""What a keeper and its replicas promise each other: three calls, and the times that they keep."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

from cluster.residency.messages import PollReply, Snapshot

T = TypeVar("T")

POLL_S = 2.0
"""The keeper answers a poll within this many seconds, with or without an order."""
CONTACT_S = 4.0
"""A keeper that has not answered after this many seconds is out of reach: a busy machine may take
seconds."""
LEASE_S = 6.0
"""Seconds that a turn lasts from the sending of an answered poll. Fewer than `Policy.join_wait_s`:
before a new keeper opens a turn, every lease of the old one has run out."""


class Keeper(Protocol):
    """The keeper of a card, as replicas see it. Times in a snapshot count from its sending.

    Raises:
        ConnectionError: the keeper cannot be reached.
    """

    async def join(self, member: str, claimant_id: str, found: Snapshot, replica: Any) -> str | None:
        """Register as a member, and get a ticket; None while another replica is this member.

        Args:
            member: the name in the plan.
            claimant_id: names this process, so that the keeper knows it again.
            found: how the replica stands.
            replica: the actor handle that the keeper watches and, if need be, kills.
        """

    async def report(self, ticket: str, number: int, found: Snapshot) -> bool:
        """Say how the replica stands after the order of that number.

        False if the keeper does not know it, so that it has to join (again).
        """

    async def poll(self, ticket: str, after: int) -> PollReply:
        """Ask for the latest order, once its number is above `after`."""


async def wait_for_answer(answer: Awaitable[T]) -> T:
    """A keeper's answer; TimeoutError after CONTACT_S."""
    async with asyncio.timeout(CONTACT_S):  # Python 3.11's wait_for can swallow a cancellation
        return await answer
