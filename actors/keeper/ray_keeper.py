"""The keeper of a card as a Ray actor: how the keeper and its replicas reach, watch and end each other.

A keeper is a named actor on the node of its card; the first replica that needs the keeper creates it.
So a node that joins gets keepers of its own, and a node that is lost takes no other node's keeper
along. Ray restarts a keeper that dies. No driver owns a keeper; it ends when it has no replica left.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.keeper.card_keeper import CardKeeper
from cluster.residency.messages import PollReply, Snapshot
from cluster.residency.policy import CPU_POLICY, Policy
from cluster.residency.state import Slot

logger = logging.getLogger(__name__)

NAMESPACE = "slimmoa"
"""Ray's namespace for the names of keepers."""
MAX_OPEN_CALLS = 1000
"""Most calls to a keeper at once. Every replica has a poll open and sends reports meanwhile."""


async def is_alive(replica: Any) -> bool:
    """Whether an actor lives. An actor that is busy or starting lives; the answer then takes longer."""
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
    """End an actor's process. Another process may take its place."""
    ray.kill(replica, no_restart=False)


class RayKeeper(CardKeeper):
    """A card's keeper on Ray: the keeper and its replicas are Ray actors."""

    def __init__(self, slots: Sequence[Slot], policy: Policy | None = None) -> None:
        super().__init__(slots, policy, is_alive, kill, retire)


async def retire() -> None:
    """End the actor in which this runs. Ray does not restart the actor."""
    ray.kill(ray.get_runtime_context().current_actor)


@dataclass(frozen=True, slots=True)
class KeptCard:
    """A card that has a keeper, or gets one as soon as a replica asks for it."""

    app: str
    """Name of the Serve application."""
    node: str
    """Ray's ID of the card's node."""
    name: str
    """`CARD:PLAN`: the card's number on its node, and a digest of the slots that the plan has on it."""
    slots: tuple[Slot, ...]
    """The card's slots and their members."""
    policy: Policy = CPU_POLICY
    """The numbers of the scheduler."""

    def keeper(self) -> Any:
        """The handle of the card's keeper. If there is no keeper yet, it is created."""
        actor: Any = ray.remote(RayKeeper)
        options = actor.options(
            name=f"{_prefix(self.app)}{self.node}:{self.name}",
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=MAX_OPEN_CALLS,
            scheduling_strategy=NodeAffinitySchedulingStrategy(self.node, soft=False),
        )
        return options.remote(self.slots, self.policy)


def keepers(app: str) -> dict[str, Any]:
    """The handles of all keepers of an application, by actor name: `keeper:APP:NODE:CARD:PLAN`."""
    found = {}
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(_prefix(app)):
            with suppress(ValueError):  # it has just ended
                found[actor["name"]] = ray.get_actor(**actor)
    return found


def _prefix(app: str) -> str:
    return f"keeper:{app}:"


class RemoteKeeper:
    """The interface `protocol.Keeper` to a keeper that is a Ray actor.

    Args:
        find: returns the handle of the keeper's actor. It is called again after that actor has ended.
    """

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find
        self._actor: Any = None

    async def join(self, member: str, claimant_id: str, found: Snapshot, replica: Any) -> str | None:
        ticket: str | None = await self._call("join", member, claimant_id, found, replica)
        return ticket

    async def report(self, ticket: str, number: int, found: Snapshot) -> bool:
        known: bool = await self._call("report", ticket, number, found)
        return known

    async def poll(self, ticket: str, after: int) -> PollReply:
        reply: PollReply = await self._call("poll", ticket, after)
        return reply

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            if self._actor is None:
                self._actor = self._find()
            answer: Awaitable[Any] = getattr(self._actor, method).remote(*arguments)
            return await answer
        except RayError as error:
            if isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
                raise  # the keeper answered, with an error of its own
            if not isinstance(error, ActorUnavailableError):
                self._actor = None
            raise ConnectionError(type(error).__name__) from error
