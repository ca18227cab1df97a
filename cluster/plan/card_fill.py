"""A placement in the making: which replicas are on which card, and the bytes that they need there."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cluster.cards.card import GIB, Card, Kind
from cluster.plan.footprint import Footprint
from cluster.plan.placement import PlacedCard, PlacedReplica, Placement, Slot
from configs.schema import Recipe

# Of a GPU: the driver's own growth, fragments, a desktop. Of RAM: the system and Ray, whose head,
# Serve controller and ingress were measured at about 1 GB (facts.md B11).
GPU_RESERVE = (0.02, GIB // 2)
CPU_RESERVE = (0.1, 2 * GIB)
HOST_SHARE = 0.9  # of a machine's RAM, for sleeping weights: vLLM pins them
RAY_DIGITS = 10_000  # Ray keeps four; cut, not rounded, so that they add up to at most 1


@dataclass(frozen=True, slots=True)
class ReplicaToPlace:
    """One replica to place. work: bytes that one answer of the mixture makes it read."""

    model: str
    replica: int
    order: int
    bytes: Footprint
    work: float
    kind: Kind


@dataclass(slots=True)
class CardFill:
    """A card being filled: residents, and the members of its one slot of turns. held: sleepers keep
    their weights on this very card, as on a CPU with enough RAM."""

    number: int
    card: Card
    usable: int
    held: bool
    residents: list[ReplicaToPlace] = field(default_factory=list)
    turns: list[ReplicaToPlace] = field(default_factory=list)

    @property
    def units(self) -> list[ReplicaToPlace]:
        return [*self.residents, *self.turns]

    def free(self, *, turns: Sequence[ReplicaToPlace] | None = None) -> int:
        """Bytes left, if the slot of turns had these members."""
        resident = sum(unit.bytes.awake for unit in self.residents)
        return self.usable - resident - slot_bytes(self.turns if turns is None else turns, self.held)

    def has(self, unit: ReplicaToPlace) -> bool:
        return any(other.model == unit.model for other in self.units)

    def takes_resident(self, unit: ReplicaToPlace) -> bool:
        return unit.kind == self.card.kind and self.free() >= unit.bytes.awake

    def takes_turn(self, unit: ReplicaToPlace) -> bool:
        return unit.kind == self.card.kind and self.free(turns=[*self.turns, unit]) >= 0


def slot_bytes(units: Sequence[ReplicaToPlace], held: bool) -> int:
    """Bytes of a slot: what its sleepers leave there, and the hungriest awake one on top."""
    left = [unit.bytes.awake if held else unit.bytes.asleep for unit in units]
    grows = [unit.bytes.awake - rest for unit, rest in zip(units, left, strict=True)]
    return sum(left) + max(grows, default=0)


def usable_bytes(recipe: Recipe, card: Card) -> int:
    """What a card gives to engines: not the reserve, nor what others use, nor beyond the recipe's."""
    share, least = GPU_RESERVE if card.kind == "gpu" else CPU_RESERVE
    gpus = len(card.indices)
    usable = card.total_bytes - max(gpus * least, math.ceil(share * card.total_bytes))
    if card.free_bytes is not None:
        usable = min(usable, card.free_bytes)
    return max(0, min(usable, gpus * (recipe.cards.memory_bytes or usable)))


def host_limit(recipe: Recipe, card: Card) -> float:
    """Most bytes of the RAM beside `card` for sleeping weights; infinite if nobody knows."""
    if recipe.cards.host_memory_bytes is not None:
        return recipe.cards.host_memory_bytes
    if card.kind == "cpu" or card.host_bytes is None:
        return math.inf
    return HOST_SHARE * card.host_bytes


def parked_bytes(drafts: Iterable[CardFill]) -> dict[str, int]:
    """RAM that sleeping models take, by node."""
    sums: dict[str, int] = {}
    for draft in drafts:
        parked = [unit.bytes.weights if draft.held else unit.bytes.parked for unit in draft.turns]
        # On a GPU all can sleep at once; in RAM the awake one uses the very bytes that it kept.
        awake = max(parked, default=0) if draft.held or len(parked) < 2 else 0
        sums[draft.card.node] = sums.get(draft.card.node, 0) + sum(parked) - awake
    return sums


def finished(recipe: Recipe, drafts: Sequence[CardFill]) -> Placement:
    """The placement of these drafts, one for each card in order."""
    local = {unit.model for draft in drafts for unit in draft.units}
    return Placement(
        recipe=recipe.name,
        cards=tuple(_placed(recipe, draft, drafts) for draft in drafts),
        elsewhere=tuple(name for name in recipe.models if name not in local),
        host_bytes=tuple(parked_bytes(drafts).items()),
    )


def _placed(recipe: Recipe, draft: CardFill, drafts: Sequence[CardFill]) -> PlacedCard:
    groups = [[unit] for unit in draft.residents] + ([draft.turns] if draft.turns else [])
    slots = []
    for group in groups:
        fraction = _fraction(draft, group, len(groups), drafts)
        threads = max(1, draft.card.cores // len(groups))
        ordered = sorted(group, key=lambda unit: (unit.order, unit.replica))
        members = tuple(_member(recipe, unit, draft.card, fraction, threads) for unit in ordered)
        keeps = draft.held or draft.card.kind == "gpu"
        slots.append(Slot(members, slot_bytes(group, draft.held), keeps))
    slots.sort(key=lambda slot: (slot.takes_turns, -slot.total_bytes))
    return PlacedCard(draft.card, draft.usable, tuple(slots))


def _fraction(
    draft: CardFill, group: Sequence[ReplicaToPlace], groups: int, drafts: Sequence[CardFill]
) -> float:
    """What Ray books for a replica: GPUs, or a share of a CPU's cores.

    On one card: its slot's share over the slot's members. On several, Ray chooses the card by itself
    and never moves anything, so unequal fractions can block each other (0.5, 0.7, 0.5, 0.3 do not
    all fit on two cards in that order): there all get the same, and every order fits. So on a joined
    card, for Ray knows its GPUs one by one: whole ones if there are enough, else equal parts of one.
    """
    used = [other for other in drafts if other.units and other.card.kind == draft.card.kind]
    most, gpus = max(len(other.units) for other in used), len(draft.card.indices)
    if gpus > 1:
        return _cut(gpus // most if most <= gpus else 1 / math.ceil(most / gpus))
    if len(used) > 1:
        share = 1 / most
    elif draft.card.kind == "cpu":
        share = 1 / (groups * len(group))
    else:
        share = slot_bytes(group, draft.held) / draft.usable / len(group)
    return _cut(share)


def _cut(share: float) -> float:
    return math.floor(share * RAY_DIGITS) / RAY_DIGITS


def _member(
    recipe: Recipe, unit: ReplicaToPlace, card: Card, fraction: float, threads: int
) -> PlacedReplica:
    needs = unit.bytes
    return PlacedReplica(
        model=unit.model,
        replica=unit.replica,
        weights=needs.weights,
        kv=needs.kv,
        activations=needs.activations,
        residue=needs.residue,
        sequences=needs.sequences,
        threads=getattr(recipe.models[unit.model], "threads", None) or threads,
        fraction=fraction,
        utilization=_cut(needs.awake / card.total_bytes),
    )
