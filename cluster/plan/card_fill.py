"""A placement in the making: which replicas are on which card, and the bytes that they need."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from cluster.cards.card import GIB, Card, Kind
from cluster.plan.footprint import CUDA_CONTEXT, Footprint
from cluster.plan.placement import PlacedCard, PlacedReplica, PlacedSlot, Placement
from configs.schema import Recipe

GPU_RESERVE = (0.02, GIB // 2)
"""Memory of a GPU that stays free for the driver's growth, fragmentation and a desktop: a share of the
GPU's memory, and at least this number of bytes."""
CPU_RESERVE = (0.1, 2 * GIB)
"""RAM that stays free for the system and Ray: a share of the RAM, and at least this number of bytes. On
one node Ray's head process, the Serve controller and an ingress were measured at about 1 GB (Ray 2.60,
without the dashboard)."""
HOST_SHARE = 0.8
"""Share of a machine's RAM that the engines of GPUs may take: their processes, and the weights of
sleeping models. vLLM pins the pages of these weights, so the system cannot move them to disk. From 0.95
on, Ray's memory monitor kills workers (RAY_memory_usage_threshold). The rest is for Ray's processes and
object store, and for the files that an engine reads when it starts."""
LEAST_UTILIZATION = 0.01
"""vLLM takes no utilization of 0."""
STOPPED_BYTES = GIB
"""Host RAM of a replica whose engine is stopped, as an estimate: a Python process that has imported Ray
and vLLM. With a model of 0.27 GB on a CPU it took 0.74 GB (vLLM 0.32)."""
RAY_DIGITS = 10_000
"""Ray keeps four decimal places of a fraction. The plan cuts its fractions to four places and does not
round them, so that the fractions of a card add up to 1 at most."""


@dataclass(frozen=True, slots=True)
class ReplicaToPlace:
    """One replica that the plan has to put on a card."""

    model: str
    """The model's name."""
    replica: int
    """Number among the model's replicas, from 0."""
    order: int
    """Number of the model in the recipe, from 0."""
    needs: Footprint
    """The bytes that the replica needs."""
    work: float
    """Bytes of weights that one answer of the mixture makes this replica read."""
    kind: Kind
    """The kind of card that the replica goes to."""
    can_sleep: bool = True
    """Whether its engine can sleep. llama.cpp can only be stopped."""
    start_s: float = 0.0
    """Predicted seconds of a start of its engine from disk."""
    stops: bool = False
    """Whether its engine is stopped when its turn ends, rather than put to sleep."""

    @property
    def stopped_bytes(self) -> int:
        """Bytes of host RAM of the replica while its engine is stopped."""
        return min(STOPPED_BYTES, self.needs.processes)


@dataclass(slots=True)
class CardFill:
    """A card that is being filled: its residents, each in a slot of its own, and one slot of turns."""

    number: int
    """Number of the card in the placement."""
    card: Card
    """The card."""
    usable_bytes: int
    """Bytes of the card that engines may use."""
    keeps_in_ram: bool
    """Whether sleeping models stay in the card's own memory, which then is the RAM of a CPU."""
    residents: list[ReplicaToPlace] = field(default_factory=list)
    """Replicas that stay awake, each in a slot of its own."""
    turns: list[ReplicaToPlace] = field(default_factory=list)
    """Members of the slot of turns, of which one at a time is awake."""

    @property
    def replicas(self) -> list[ReplicaToPlace]:
        """All replicas on the card."""
        return [*self.residents, *self.turns]

    def has_model(self, replica: ReplicaToPlace) -> bool:
        """Whether the card already has a replica of the model of `replica`."""
        return any(other.model == replica.model for other in self.replicas)

    def can_hold_resident(self, replica: ReplicaToPlace) -> bool:
        """Whether the card is of the replica's kind and has room for the replica as a resident."""
        return self._takes(replica) and self.free_bytes(self.turns) >= replica.needs.peak

    def can_hold_in_turns(self, replica: ReplicaToPlace) -> bool:
        """Whether the card is of the replica's kind and its slot of turns has room for the replica."""
        turns = [*self.turns, self.as_member(replica)]
        return self._takes(replica) and self.free_bytes(turns) >= 0

    def _takes(self, replica: ReplicaToPlace) -> bool:
        """Whether the card is of the replica's kind, and lets one more process use it."""
        return replica.kind == self.card.kind and not (self.card.is_exclusive and self.replicas)

    def as_member(self, replica: ReplicaToPlace) -> ReplicaToPlace:
        """The replica as a member of the slot of turns.

        It is stopped between its turns where sleep is impossible or frees nothing: with llama.cpp, and
        on a CPU whose RAM does not hold all members.
        """
        unloads = not self.keeps_in_ram
        return replace(replica, stops=unloads and (not replica.can_sleep or self.card.kind == "cpu"))

    def stopped(self, member: ReplicaToPlace) -> ReplicaToPlace:
        """The member as one that is stopped between its turns."""
        return replace(member, stops=True)

    @property
    def stoppers(self) -> int:
        """How many members are stopped between their turns. A sole member never leaves the card."""
        return sum(each.stops for each in self.turns) if len(self.turns) > 1 else 0

    def free_bytes(self, turns: Sequence[ReplicaToPlace]) -> int:
        """Bytes that are left with these residents if `turns` are the members of the slot of turns."""
        resident = sum(replica.needs.peak for replica in self.residents)
        return self.usable_bytes - resident - slot_bytes(turns, self.keeps_in_ram)

    def groups(self) -> list[list[ReplicaToPlace]]:
        """The replicas of each slot."""
        residents = [[replica] for replica in self.residents]
        return [*residents, self.turns] if self.turns else residents


def slot_bytes(members: Sequence[ReplicaToPlace], keeps_in_ram: bool) -> int:
    """Bytes of a slot: all members asleep, plus the largest growth when one member starts or wakes.

    Args:
        members: the slot's members; a resident is its slot's only member.
        keeps_in_ram: whether a sleeping member keeps all its bytes.
    """
    if not members:
        return 0
    asleep = [_bytes_between_turns(each, keeps_in_ram) for each in members]
    growth = [each.needs.peak - left for each, left in zip(members, asleep, strict=True)]
    return sum(asleep) + max(growth)


def _bytes_between_turns(member: ReplicaToPlace, keeps_in_ram: bool) -> int:
    """Bytes of the card that a member has while another member is awake.

    A stopped member counts like one that sleeps on a GPU: llama.cpp keeps its CUDA context.
    """
    if keeps_in_ram:
        return member.needs.awake
    return member.needs.residue if member.stops else member.needs.asleep


def usable_bytes(recipe: Recipe, card: Card) -> int:
    """Bytes of a card that engines may use.

    These are the card's bytes, or those that other programs leave if these are fewer, without the
    reserve; but at most the recipe's `cards.memory_bytes` for each GPU of the card.
    """
    share, least = GPU_RESERVE if card.kind == "gpu" else CPU_RESERVE
    gpus = len(card.indices)
    reserve = max(gpus * least, math.ceil(share * card.total_bytes))
    left = card.total_bytes if card.free_bytes is None else min(card.total_bytes, card.free_bytes)
    usable = max(0, left - reserve)
    return min(usable, gpus * (recipe.cards.memory_bytes or usable))


def host_limit(recipe: Recipe, card: Card) -> float:
    """Most bytes of RAM on the card's machine for engines and the weights of sleeping models.

    Unless the recipe sets `cards.host_memory_bytes`, the limit is infinite for a CPU, whose RAM is the
    card itself, and for a machine whose RAM is unknown.
    """
    if recipe.cards.host_memory_bytes is not None:
        return recipe.cards.host_memory_bytes
    if card.kind == "cpu" or card.host_bytes is None:
        return math.inf
    return HOST_SHARE * card.host_bytes


def parked_bytes(fills: Iterable[CardFill]) -> dict[str, int]:
    """Bytes of RAM that engines and models that are not awake take on each node, by the node's name."""
    sums: dict[str, int] = {}
    for fill in fills:
        awake = sum(replica.needs.processes for replica in fill.residents)
        turns = _ram_kept(fill.turns) if fill.keeps_in_ram else _ram_of_turns(fill)
        sums[fill.card.node] = sums.get(fill.card.node, 0) + turns + awake
    return sums


def _ram_kept(members: Sequence[ReplicaToPlace]) -> int:
    """Bytes of RAM that loaded members take beside the one that is awake.

    The largest counts as awake: it works with the very bytes that it keeps, so they take no more RAM.
    """
    weights = [each.needs.weights for each in members]
    return sum(weights) - max(weights, default=0)


def _ram_of_turns(fill: CardFill) -> int:
    """Bytes of RAM that the members of a slot of turns take beside the card.

    On a GPU all members can be asleep at once, and pinned RAM stays pinned when a member wakes. Of
    those that are stopped one at a time is awake, with all of its processes. A single member never
    leaves the card.
    """
    if len(fill.turns) < 2:
        return sum(each.needs.processes for each in fill.turns)
    asleep = sum(each.needs.parked for each in fill.turns if not each.stops)
    stopped = [each for each in fill.turns if each.stops]
    awake = max((each.needs.processes - each.stopped_bytes for each in stopped), default=0)
    return asleep + sum(each.stopped_bytes for each in stopped) + awake


def to_placement(recipe: Recipe, fills: Sequence[CardFill]) -> Placement:
    """Turn the filled cards into a placement.

    Args:
        fills: all cards, in the order of their numbers.
    """
    placed_models = {replica.model for fill in fills for replica in fill.replicas}
    return Placement(
        recipe=recipe.name,
        cards=tuple(_to_placed_card(recipe, fill, fills) for fill in fills),
        elsewhere=tuple(name for name in recipe.models if name not in placed_models),
        host_bytes=tuple(parked_bytes(fills).items()),
    )


def _to_placed_card(recipe: Recipe, fill: CardFill, fills: Sequence[CardFill]) -> PlacedCard:
    """The card with its slots: the residents, the largest first, and then the slot of turns."""
    sizes = [(slot_bytes(group, fill.keeps_in_ram), group) for group in fill.groups()]
    sizes.sort(key=lambda each: (len(each[1]) > 1, -each[0]))
    threads = max(1, fill.card.cores // max(1, len(sizes)))
    slots = []
    for number, (total, group) in enumerate(sizes):
        fraction = _ray_fraction(fill, group, len(sizes), fills)
        members = tuple(
            _to_placed_replica(
                recipe,
                replica,
                fill,
                slot=number,
                members=len(group),
                fraction=fraction,
                threads=threads,
            )
            for replica in sorted(group, key=lambda each: (each.order, each.replica))
        )
        slots.append(PlacedSlot(members, total, fill.keeps_in_ram or fill.card.kind == "gpu"))
    return PlacedCard(fill.card, fill.usable_bytes, tuple(slots))


def _ray_fraction(
    fill: CardFill, group: Sequence[ReplicaToPlace], groups: int, fills: Sequence[CardFill]
) -> float:
    """The amount that Ray reserves for each replica of `group`: a number of GPUs, or a share of a CPU.

    1. If the card is made of several GPUs, all replicas get the same amount: whole GPUs if there are
       enough, else an equal part of one GPU. Ray counts the GPUs of such a card one by one.
    2. If several cards are used, all replicas get the same amount. Ray chooses the card by itself and
       never moves a replica, so unequal amounts could block each other: 0.5, 0.7, 0.5 and 0.3 do not
       all fit on two cards in this order. Equal amounts fit in every order.
    3. On a single CPU, each slot gets an equal share, and its members divide that share.
    4. On a single GPU, each slot gets its share of the usable bytes, and its members divide that share.

    Args:
        group: the replicas of one slot of the card `fill`.
        groups: how many slots the card has.
        fills: all cards.
    """
    used = [other for other in fills if other.replicas and other.card.kind == fill.card.kind]
    most = max(len(other.replicas) for other in used)
    gpus = len(fill.card.indices)
    if gpus > 1:  # 1
        share = gpus // most if most <= gpus else 1 / math.ceil(most / gpus)
    elif len(used) > 1:  # 2
        share = 1 / most
    elif fill.card.kind == "cpu":  # 3
        share = 1 / (groups * len(group))
    else:  # 4
        share = slot_bytes(group, fill.keeps_in_ram) / fill.usable_bytes / len(group)
    return cut_to_ray_digits(share)


def cut_to_ray_digits(amount: float) -> float:
    """The amount cut to the decimal places that Ray keeps."""
    return math.floor(amount * RAY_DIGITS) / RAY_DIGITS


def _to_placed_replica(
    recipe: Recipe,
    replica: ReplicaToPlace,
    fill: CardFill,
    *,
    slot: int,
    members: int,
    fraction: float,
    threads: int,
) -> PlacedReplica:
    needs = replica.needs
    return PlacedReplica(
        model=replica.model,
        replica=replica.replica,
        order=replica.order,
        card=fill.number,
        slot=slot,
        weights=needs.weights,
        kv=needs.kv,
        activations=needs.activations,
        residue=needs.residue,
        sequences=needs.sequences,
        threads=getattr(recipe.models[replica.model], "threads", None) or threads,
        fraction=fraction,
        utilization=_utilization(needs, fill.card),
        loading=needs.loading,
        stops=replica.stops and members > 1,
        start_s=replica.start_s,
    )


def _utilization(needs: Footprint, card: Card) -> float:
    """The share of the card that vLLM has to find free at its start.

    vLLM compares it with what is free once its own CUDA context exists (vllm/v1/worker/gpu_worker.py,
    init_device), so the context is no part of it. Where the bytes of the KV cache are given, vLLM uses
    it for nothing else.
    """
    context = CUDA_CONTEXT * len(card.indices) if card.kind == "gpu" else 0
    return max(LEAST_UTILIZATION, cut_to_ray_digits((needs.awake - context) / card.total_bytes))
