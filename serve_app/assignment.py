"""The assignments of a model, on a node of the plan and on a node that joins the cluster later.

An assignment tells a replica its part of a card, and the keeper that gives the replica its turns.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from actors.engine import Share
from actors.keeper.kept_card import KeptCard, MemberBytes
from actors.keeper.ray_keeper import RemoteKeeper, get_keeper
from actors.keeper.registration import Assignment
from cluster.cards.card import Card
from cluster.cards.memory import CardMemory
from cluster.cards.tensor_parallel import gpus_per_card, join_cards
from cluster.logs.line import Shape
from cluster.plan.by_node import ReplicasByNode, cards_on
from cluster.plan.footprint import gib
from cluster.plan.placement import PlacedCard, PlacedReplica, Placement
from cluster.plan.speed import STOP_S
from cluster.residency.policy import CPU_POLICY, GPU_POLICY
from cluster.residency.state import Member, Slot
from configs.errors import EngineUnavailable

DetectCards = Callable[[str], Awaitable[Sequence[Card]]]
"""Gives the cards of a node, by Ray's node ID, as that node detects them."""


@dataclass(frozen=True, slots=True)
class ModelAssignments:
    """The assignments of one model."""

    placement: Placement
    replicas: ReplicasByNode
    """The model's replicas in the placement."""
    patience_s: float
    """Seconds that a call waits before it ends another model's turn."""
    handover_s: float
    """Seconds that the replicas of an earlier plan get to end their calls before they are ended."""
    log: Shape = "text"
    """The shape of the keepers' log lines."""

    async def on_node(self, node: str, app: str, detect: DetectCards) -> list[Assignment]:
        """The model's assignments on a node, in the order in which its replicas try to claim them.

        Args:
            node: Ray's ID of the node.
            app: name of the Serve application.
            detect: finds the cards of a node that is in no plan.

        Raises:
            EngineUnavailable: the node is in no plan, and its cards hold less than the cards of the
                node in the plan that is the pattern for joining nodes.
        """
        if node in self.replicas.nodes:
            planned = cards_on(self.placement, node)
            return [self._assign(each, app, node, planned) for each in self.replicas.nodes[node]]
        cards = await self._cards_of_joining_node(node, detect)
        return [self._assign(each, app, node, cards) for each in self.replicas.on_joining_node]

    async def _cards_of_joining_node(self, node: str, detect: DetectCards) -> Sequence[Card]:
        """The node's cards, joined as in the plan. Each is at least as large as the pattern's card of
        the same number.

        Raises:
            EngineUnavailable: the node has fewer cards, or a smaller card.
        """
        wanted = cards_on(self.placement, self.replicas.pattern)
        found = join_cards(await detect(node), gpus_per_card(wanted))
        for number, card in enumerate(wanted):
            if number >= len(found) or not _can_replace(found[number], card):
                has = ", ".join(f"{each.name} of {gib(each.total_bytes)}" for each in found)
                raise EngineUnavailable(
                    f"a node has joined whose cards ({has}) hold less than those that are planned for "
                    f"(card {number}: {card.name} of {gib(card.total_bytes)}); deploy with another "
                    "`replan` to have them planned"
                )
        return found

    def _assign(self, replica: PlacedReplica, app: str, node: str, cards: Sequence[Card]) -> Assignment:
        """The assignment of a replica on a node.

        Args:
            replica: where the plan has the replica.
            app: name of the Serve application.
            node: Ray's ID of the node.
            cards: the cards of the node, in the plan's order.
        """
        placed = self.placement.cards[replica.card]
        number = cards_on(self.placement, placed.card.node).index(placed.card)
        gpus = cards[number].indices if placed.card.kind == "gpu" else None
        kept = KeptCard(
            app=app,
            node=node,
            gpus=gpus,
            slots=keeper_slots(placed),
            policy=CPU_POLICY if gpus is None else GPU_POLICY,
            members=member_bytes(placed),
            # On a node that joins later the free bytes would differ from replica to replica.
            free_bytes=placed.card.free_bytes if node == placed.card.node else None,
            handover_s=self.handover_s,
            name=cards[number].name,
            total_bytes=cards[number].total_bytes,
            log=self.log,
        )
        return Assignment(
            member=replica.name,
            keeper=RemoteKeeper(partial(get_keeper, kept)),
            share=Share(
                threads=replica.threads,
                on_gpu=gpus is not None,
                utilization=replica.utilization,
                kv_cache_memory_bytes=replica.kv,
                gpus=len(placed.card.indices),
            ),
            patience_s=self.patience_s,
            gpus=gpus,
            memory=None if gpus is None else card_memory(replica, gpus),
        )


def member_bytes(placed: PlacedCard) -> tuple[tuple[str, MemberBytes], ...]:
    """What each member of a card holds of the card's memory, by name."""
    return tuple(
        (member.name, MemberBytes(member.awake, member.residue, member.peak))
        for slot in placed.slots
        for member in slot.members
    )


def card_memory(replica: PlacedReplica, gpus: tuple[int, ...]) -> CardMemory:
    """What a replica's engine takes of each of its GPUs when it starts and when it wakes."""
    return CardMemory(
        gpus=gpus,
        start_bytes=replica.peak // len(gpus),
        wake_bytes=(replica.awake - replica.residue) // len(gpus),
    )


def keeper_slots(placed: PlacedCard) -> tuple[Slot, ...]:
    """A card's slots as its keeper needs them.

    Only slots in a CPU's RAM keep their models loaded. On a GPU, models that wait for their turn sleep
    or are stopped, which frees memory of the card.
    """
    return tuple(
        Slot(
            name=str(number),
            members=tuple(_member(member) for member in slot.members),
            keeps_loaded=slot.keeps_loaded and placed.card.kind == "cpu",
        )
        for number, slot in enumerate(placed.slots)
    )


def _member(replica: PlacedReplica) -> Member:
    return Member(
        name=replica.name,
        recipe_index=replica.order,
        stops=replica.stops,
        start_s=replica.start_s,
        stop_s=STOP_S if replica.stops else 0.0,
    )


def _can_replace(found: Card, wanted: Card) -> bool:
    """Whether the card `found` has at least what the plan uses of the card `wanted`."""
    is_alike = found.kind == wanted.kind and found.cores >= wanted.cores
    return is_alike and found.total_bytes >= wanted.total_bytes
