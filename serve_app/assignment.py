"""The seats of a model as its replicas get them: on the nodes of the plan, and on those that join."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from actors.engine import Share
from actors.keeper.ray_keeper import KeptCard, RemoteKeeper
from actors.keeper.registration import Assignment
from cluster.cards.card import Card
from cluster.cards.tensor_parallel import gpus_per_card, join_cards
from cluster.plan import placement
from cluster.plan.by_node import Spread, cards_on
from cluster.plan.footprint import gib
from cluster.plan.placement import Location, PlacedCard, Placement
from cluster.residency.state import Member, Slot
from configs.errors import EngineUnavailable
from configs.schema import Recipe

Detect = Callable[[str], Awaitable[Sequence[Card]]]


@dataclass(frozen=True, slots=True)
class PlannedAssignment:
    """A seat before anybody is on its node. card: counted on that node."""

    member: str
    card: int
    slots: tuple[Slot, ...]
    share: Share
    patience_s: float
    gpus: tuple[int, ...] | None

    def seat(self, app: str, node: str, cards: Sequence[Card] = ()) -> Assignment:
        """The seat on a node. cards: that node's own, where they are not the plan's."""
        digest = hashlib.sha256(repr(self.slots).encode()).hexdigest()[:8]
        kept = KeptCard(app, node, f"{self.card}:{digest}", self.slots)
        gpus = cards[self.card].indices if cards and self.gpus is not None else self.gpus
        keeper = RemoteKeeper(kept.keeper)
        return Assignment(self.member, keeper, self.share, self.patience_s, gpus)


@dataclass(frozen=True, slots=True)
class ModelAssignments:
    """A model's berths by node; joining: those of a node that is in no plan, if its cards are at least
    such as `cards`."""

    berths: Mapping[str, tuple[PlannedAssignment, ...]]
    joining: tuple[PlannedAssignment, ...]
    cards: tuple[Card, ...]

    async def on(self, node: str, app: str, detect: Detect) -> list[Assignment]:
        """The model's seats on a node. detect: finds the cards of one that is in no plan.

        Raises:
            EngineUnavailable: the node is in no plan, and has other cards.
        """
        if node in self.berths:
            return [berth.seat(app, node) for berth in self.berths[node]]
        found = join_cards(await detect(node), gpus_per_card(self.cards))
        for number, wanted in enumerate(self.cards):
            if number >= len(found) or not _holds(found[number], wanted):
                has = ", ".join(f"{card.name} of {gib(card.total_bytes)}" for card in found)
                raise EngineUnavailable(
                    f"a node has joined whose cards ({has}) hold less than those that are planned for "
                    f"(card {number}: {wanted.name} of {gib(wanted.total_bytes)}); deploy with another "
                    "`replan` to have them planned"
                )
        return [berth.seat(app, node, found) for berth in self.joining]


def _holds(found: Card, wanted: Card) -> bool:
    same = found.kind == wanted.kind and found.cores >= wanted.cores
    return same and found.total_bytes >= wanted.total_bytes


def model_assignments(recipe: Recipe, plan: Placement, spread: Spread) -> ModelAssignments:
    """The seats of one model."""
    berths = {
        node: tuple(_berth(recipe, plan, seat) for seat in seats)
        for node, seats in spread.seats.items()
    }
    return ModelAssignments(berths, berths.get(spread.pattern, ()), cards_on(plan, spread.pattern))


def _berth(recipe: Recipe, plan: Placement, seat: Location) -> PlannedAssignment:
    placed, member = plan.cards[seat.card], seat.member
    on_gpu = placed.card.kind == "gpu"
    return PlannedAssignment(
        member=member_name(member),
        card=cards_on(plan, placed.card.node).index(placed.card),
        slots=_slots(recipe, placed),
        share=Share(
            member.threads,
            on_gpu,
            member.utilization,
            member.kv_cache_memory_bytes,
            len(placed.card.indices),
        ),
        patience_s=recipe.cards.patience_s,
        gpus=placed.card.indices if on_gpu else None,
    )


def _slots(recipe: Recipe, placed: PlacedCard) -> tuple[Slot, ...]:
    order = list(recipe.models)
    return tuple(
        Slot(
            str(n),
            tuple(Member(member_name(m), order.index(m.model)) for m in slot.members),
            keeps_loaded=slot.keeps_loaded and placed.card.kind == "cpu",
        )
        for n, slot in enumerate(placed.slots)
    )


def member_name(member: placement.PlacedReplica) -> str:
    """The name under which a replica is known to its keeper."""
    return f"{member.model}/{member.replica}"
