"""The keeper of a card as a Ray actor: how the keeper and its replicas reach, watch and end each other.

A keeper is a named actor on the node of its card; the first replica that needs the keeper creates it.
So a node that joins gets keepers of its own, and a node that is lost takes no other node's keeper
along. Ray restarts a keeper that dies. No driver owns a keeper; it ends when it has no replica left.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.keeper.card_keeper import EMPTY_S, CardKeeper
from actors.keeper.card_report import CardReport, card_report
from actors.keeper.handover import Claim, Handover, Standing
from actors.keeper.kept_card import WITHOUT_MEMORY, KeptCard, card_of, name_prefix
from actors.keeper.protocol import CardTaken
from cluster import ray_runtime
from cluster.cards.own_memory import OwnUse
from cluster.logs.setup import log_name, log_to
from cluster.residency.messages import PollReply, Snapshot
from cluster.residency.policy import Policy
from cluster.residency.state import Slot

logger = logging.getLogger(__name__)

NAMESPACE = "slimmoa"
"""Ray's namespace for the names of keepers."""
MAX_OPEN_CALLS = 1000
"""Most calls to a keeper at once. Every replica has a poll open and sends reports meanwhile."""
ANSWER_S = 2.0
"""Seconds within which a keeper or a replica answers a keeper, unless its machine is very busy."""
USE_S = 10.0
"""Seconds within which keepers tell what their cards' engines hold."""
NOT_YET = "not yet"
"""What a keeper answers in place of a ticket while another plan's replicas have the card."""


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
    """A card's keeper on Ray: the keeper and its replicas are Ray actors.

    Args:
        slots: the card's slots and their members.
        policy: the scheduler's numbers; None for the defaults.
        card: the card and its plan; None for a card that never gets another plan.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        policy: Policy | None = None,
        card: KeptCard | None = None,
    ) -> None:
        policy = policy or Policy()
        if card is not None and ray.is_initialized():  # unit tests have no Ray
            log_to(ray_runtime.log_folder() / log_name(card.app), f"keeper:{card.label}", card.log)
        super().__init__(slots, policy, is_alive, kill, retire)
        self._card = card
        self._claims: dict[str, Claim] = {}
        self._handover: Handover | None = None
        self._rejoin_s = 0.0
        if card is not None:
            self._handover = Handover(
                card.actor_name, self._claims, self._ask_others, self._evict_others, card.handover_s
            )
            if ray.get_runtime_context().was_current_actor_reconstructed:
                self._rejoin_s = policy.join_wait_s

    async def join(
        self, member: str, claimant_id: str, found: Snapshot, replica: Any, since: float = 0.0
    ) -> str | None:
        """See `protocol.Keeper`. While replicas of another plan have the card, the answer is NOT_YET.

        Args:
            since: when the replica's process began to claim an assignment, in seconds of the node's
                clock.
        """
        if member not in self._names:
            return await super().join(member, claimant_id, found, replica)  # it raises
        known = self._claims.get(member)
        if known is not None and known.claimant_id != claimant_id and known.replica != replica:
            await self._drop_dead_claims()
            if member in self._claims:
                return None
        self._claims[member] = Claim(claimant_id, replica, since, found.state not in WITHOUT_MEMORY)
        if not await self._has_card():
            return NOT_YET
        return await super().join(member, claimant_id, found, replica)

    async def standing(self) -> Standing | None:
        """What this keeper says of itself to another keeper of its card; None if it has no plan."""
        await self._drop_dead_claims()
        self._expect_replicas()
        return None if self._handover is None else self._handover.standing()

    async def evict(self) -> None:
        """End all replicas, because another plan's replicas have waited for the card long enough."""
        await asyncio.gather(*(kill(claim.replica) for claim in self._claims.values()))

    async def own_use(self) -> OwnUse | None:
        """What the engines of this card hold by the plan; None for a card without a plan."""
        if self._card is None:
            return None
        states = {name: found.state for name, found in (await self.snapshots()).items()}
        return self._card.use(states)

    async def card_report(self) -> CardReport | None:
        """What this keeper says of its card to those who watch it; None for a card without a plan."""
        if self._card is None:
            return None
        return card_report(
            self._card,
            await self.snapshots(),
            await self.order_counts(),
            await self.step_seconds(),
            await self.step_times(),
        )

    async def _has_card(self) -> bool:
        self._expect_replicas()
        return self._handover is None or await self._handover.take()

    def _expect_replicas(self) -> None:
        if self._handover is not None and self._rejoin_s:
            self._handover.expect_replicas(self._rejoin_s)
            self._rejoin_s = 0.0

    async def _drop_dead_claims(self) -> None:
        claims = list(self._claims.items())
        alive = await asyncio.gather(*(_lives(claim.replica) for _, claim in claims))
        for (member, claim), is_there in zip(claims, alive, strict=True):
            if not is_there and self._claims.get(member) is claim:
                del self._claims[member]

    def _retire_empty(self) -> None:
        self._run_in_background(self._retire_if_unused())

    async def _retire_if_unused(self) -> None:
        """Retire, unless a replica has joined or waits to join: several such checks may be due."""
        await self._drop_dead_claims()
        if not self._claims and not self._by_member:
            super()._retire_empty()

    async def _ask_others(self) -> list[Standing]:
        assert self._card is not None
        await self._drop_dead_claims()
        if not self._claims and not self._by_member:  # they died before they could join
            asyncio.get_running_loop().call_later(EMPTY_S, self._retire_empty)
        found = await asyncio.to_thread(other_keepers, self._card)
        answers = await asyncio.gather(*(_ask(name, keeper) for name, keeper in found.items()))
        return [answer for answer in answers if answer is not None]

    async def _evict_others(self, others: Sequence[Standing]) -> None:
        assert self._card is not None
        found = await asyncio.to_thread(other_keepers, self._card)
        for keeper in (found[other.name] for other in others if other.name in found):
            with suppress(RayError, TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await keeper.evict.remote()


async def _lives(replica: Any) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            return await is_alive(replica)
    return True


async def _ask(name: str, keeper: Any) -> Standing | None:
    """What another keeper says of itself; None if it has ended. If it cannot be reached, or has just
    been restarted, it may have the card."""
    try:
        async with asyncio.timeout(2 * ANSWER_S):
            standing: Standing | None = await keeper.standing.remote()
            return standing
    except (ActorUnavailableError, TimeoutError):
        return Standing(name, has_card=True, is_asking=False, has_replicas=False, since=0.0)
    except RayActorError:
        return None


async def retire() -> None:
    """End the actor in which this runs. Ray does not restart the actor."""
    ray.kill(ray.get_runtime_context().current_actor)


def get_keeper(card: KeptCard) -> Any:
    """The handle of the card's keeper. If there is no keeper yet, it is created."""
    actor: Any = ray.remote(RayKeeper)
    options = actor.options(
        name=card.actor_name,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=MAX_OPEN_CALLS,
        scheduling_strategy=NodeAffinitySchedulingStrategy(card.node, soft=False),
    )
    return options.remote(card.slots, card.policy, card)


def keepers(app: str) -> dict[str, Any]:
    """The handles of all keepers of an application, by actor name: see `KeptCard.actor_name`."""
    found = {}
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(name_prefix(app)):
            with suppress(ValueError):  # it has just ended
                found[actor["name"]] = ray.get_actor(**actor)
    return found


def other_keepers(card: KeptCard) -> dict[str, Any]:
    """The handles of the keepers that the same application has for other plans of this card, or of any
    GPU of it, by actor name."""
    found = keepers(card.app).items()
    return {n: keeper for n, keeper in found if n != card.actor_name and card.overlaps(n)}


async def card_reports(app: str) -> list[CardReport]:
    """What the keepers of an application say of their cards, in the order of their names. A keeper that
    has ended, or that does not answer within ANSWER_S, is left out."""
    try:
        reports = await reports_by_keeper(app)
    except RayError:  # the node that knows the names of actors is away
        return []
    return [report for report in reports.values() if report is not None]


async def reports_by_keeper(app: str) -> dict[str, CardReport | None]:
    """What the keepers of an application say of their cards, by the name of the keeper's actor and in
    the order of these names; None for a keeper that does not answer within ANSWER_S.

    Raises:
        RayError: nobody tells which keepers there are.
    """
    found = await asyncio.to_thread(keepers, app)

    async def ask(keeper: Any) -> CardReport | None:
        with suppress(RayError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                report: CardReport | None = await keeper.card_report.remote()
                return report
        return None

    reports = await asyncio.gather(*(ask(keeper) for _, keeper in sorted(found.items())))
    return dict(zip(sorted(found), reports, strict=True))


def own_uses(app: str) -> list[OwnUse]:
    """What the engines of an application hold on each GPU, as its keepers know. The engines of a keeper
    that does not answer may hold all of its card."""
    asked = {name: keeper.own_use.remote() for name, keeper in keepers(app).items()}
    uses: list[OwnUse | None] = []
    for name, answer in asked.items():
        try:
            uses.append(ray.get(answer, timeout=USE_S))
        except RayError:
            node, gpus = card_of(name)
            uses.append(None if gpus is None else OwnUse(node, gpus, 0, None))
    return [use for use in uses if use is not None]


class RemoteKeeper:
    """The interface `protocol.Keeper` to a keeper that is a Ray actor.

    Args:
        find: returns the handle of the keeper's actor. It is called again after that actor has ended.
    """

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find
        self._actor: Any = None
        self._since: float | None = None

    async def join(self, member: str, claimant_id: str, found: Snapshot, replica: Any) -> str | None:
        if self._since is None:
            self._since = time.time()
        ticket: str | None = await self._call("join", member, claimant_id, found, replica, self._since)
        if ticket == NOT_YET:
            raise CardTaken("replicas of another plan have the card")
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
