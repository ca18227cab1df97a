"""The planner's answer as plain data: which replica goes to which slot of which card."""

from dataclasses import dataclass

from cluster.cards.card import Card


@dataclass(frozen=True, slots=True)
class PlacedReplica:
    """One replica of a model, and its slot. Byte counts are those of its `Footprint`."""

    model: str
    replica: int
    """Number among the model's replicas, from 0."""
    order: int
    """Number of the model in the recipe, from 0. Turns go in this order."""
    card: int
    """Number of its card in `Placement.cards`."""
    slot: int
    """Number of its slot in that card's `slots`."""
    weights: int
    kv: int
    activations: int
    residue: int
    sequences: int
    """How many sequences run at a time."""
    threads: int
    """CPU threads while it is awake."""
    fraction: float
    """The amount that Ray reserves for it: GPUs, or a share of a CPU's cores."""
    utilization: float
    """Its bytes while awake, divided by those of the card."""

    @property
    def name(self) -> str:
        """The name by which the keeper of its card knows it."""
        return f"{self.model}/{self.replica}"

    @property
    def awake(self) -> int:
        """Bytes while it is awake."""
        return self.weights + self.kv + self.activations + self.residue


@dataclass(frozen=True, slots=True)
class PlacedSlot:
    """A share of a card that has room for one awake model at a time."""

    members: tuple[PlacedReplica, ...]
    """Its replicas, in the order of the recipe."""
    total_bytes: int
    """The most memory of the card that the slot uses."""
    keeps_loaded: bool = True
    """Whether sleeping members keep their weights in RAM. If not, waking reads them from disk."""

    @property
    def takes_turns(self) -> bool:
        """Whether its members have to take turns."""
        return len(self.members) > 1


@dataclass(frozen=True, slots=True)
class PlacedCard:
    """A card and its slots."""

    card: Card
    usable_bytes: int
    """Memory without the reserve."""
    slots: tuple[PlacedSlot, ...]

    @property
    def used_bytes(self) -> int:
        """Memory of all slots."""
        return sum(slot.total_bytes for slot in self.slots)


@dataclass(frozen=True, slots=True)
class Placement:
    """All cards with their slots and replicas."""

    recipe: str
    """The recipe's name."""
    cards: tuple[PlacedCard, ...]
    """All cards, those without a replica too."""
    elsewhere: tuple[str, ...] = ()
    """Models that take no card."""
    host_bytes: tuple[tuple[str, int], ...] = ()
    """Host RAM that sleeping models need, by node."""
    left_out: tuple[Card, ...] = ()
    """GPUs that are in none of `cards`, because no group of the chosen width was left for them."""

    def replicas(self, model: str | None = None) -> tuple[PlacedReplica, ...]:
        """The replicas of one model by number, or those of all models by card and slot."""
        found = [
            replica
            for placed in self.cards
            for slot in placed.slots
            for replica in slot.members
            if model in (None, replica.model)
        ]
        return tuple(sorted(found, key=lambda replica: replica.replica) if model else found)

    def slot(self, replica: PlacedReplica) -> PlacedSlot:
        """The slot of a replica."""
        return self.cards[replica.card].slots[replica.slot]

    @property
    def longest_turns(self) -> int:
        """Members of the fullest slot. 1 means that all models are resident."""
        slots = [len(slot.members) for placed in self.cards for slot in placed.slots]
        return max(slots, default=0)

    @property
    def turn_takers(self) -> int:
        """Replicas that share a slot with others."""
        slots = [slot for placed in self.cards for slot in placed.slots if slot.takes_turns]
        return sum(len(slot.members) for slot in slots)
