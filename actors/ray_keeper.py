"""The keeper and its replicas on Ray: how they reach, watch and end one another."""

import logging
from collections.abc import Awaitable, Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from actors.slot_keeper import SlotKeeper
from cluster.orders import Reply, Snapshot
from cluster.policy import Policy
from cluster.residency import Slot

logger = logging.getLogger(__name__)


async def is_alive(replica: Any) -> bool:
    """Whether an actor lives. One that is busy or starting answers later, and that is no death."""
    try:
        await replica.__ray_ready__.remote()
    except ActorUnavailableError:
        return True
    except RayActorError:
        return False
    except RayError:
        logger.exception("a replica could not be pinged")
    return True


async def kill(replica: Any) -> None:
    """End an actor's process; who made it makes another."""
    ray.kill(replica, no_restart=False)


class RayKeeper(SlotKeeper):
    """The keeper of a card, whose replicas are Ray actors."""

    def __init__(self, slots: Sequence[Slot], policy: Policy | None = None) -> None:
        super().__init__(slots, policy, is_alive, kill)


class RemoteKeeper:
    """`turns.Keeper` over the handle of the actor, or of its Serve deployment."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def join(self, member: str, who: str, found: Snapshot, replica: Any) -> str | None:
        ticket: str | None = await _reached(self._actor.join.remote(member, who, found, replica))
        return ticket

    async def report(self, ticket: str, number: int, found: Snapshot) -> bool:
        known: bool = await _reached(self._actor.report.remote(ticket, number, found))
        return known

    async def order(self, ticket: str, after: int) -> Reply:
        reply: Reply = await _reached(self._actor.order.remote(ticket, after))
        return reply


async def _reached(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except (RayError, RayServeException) as error:
        if isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
            raise  # the keeper answered, with an error of its own
        raise ConnectionError(type(error).__name__) from error
