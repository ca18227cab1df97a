"""The planner's answer as plain data: which replica goes to which slot of which card."""

from dataclasses import dataclass

from cluster.cards.card import Card


@dataclass(frozen=True, slots=True)
class PlacedReplica:
    """One replica of a model, and its slot. The byte counts are those of its `Footprint`."""

    model: str
    replica: int
    """Number among the model's replicas, from 0."""
    order: int
    """Number of the model in the recipe, from 0. Where all else is equal, the lowest goes first."""
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
    """CPU threads that its engine may use."""
    fraction: float
    """What Ray reserves for it: a number of GPUs, or a share of a CPU's cores from 0 to 1."""
    utilization: float
    """The share of the card that vLLM has to find free at its start, from 0 to 1."""
    loading: int = 0
    """Bytes on the card at most while its engine starts, before it has a KV cache."""
    stops: bool = False
    """Whether its engine is stopped when another member's turn comes, and started from disk for its
    own. If not, a member that leaves its turn sleeps, or stays loaded in RAM."""
    start_s: float = 0.0
    """Predicted seconds of a start of its engine from disk."""

    @property
    def name(self) -> str:
        """The name by which the keeper of its card knows it."""
        return f"{self.model}/{self.replica}"

    @property
    def awake(self) -> int:
        """Bytes while it is awake."""
        return self.weights + self.kv + self.activations + self.residue

    @property
    def peak(self) -> int:
        """Bytes at most: while its engine starts, or while it is awake."""
        return max(self.awake, self.loading)


@dataclass(frozen=True, slots=True)
class PlacedSlot:
    """A part of a card's memory. If it has several members, these take turns."""

    members: tuple[PlacedReplica, ...]
    """Its replicas, in the order of the recipe."""
    total_bytes: int
    """Bytes of the card's memory that the slot uses at most."""
    keeps_loaded: bool = True
    """Whether members that are not awake still hold memory of the card: all of theirs on a CPU, a small
    rest on a GPU. If not, as on a CPU with too little RAM for all, they are stopped between turns."""

    @property
    def takes_turns(self) -> bool:
        """Whether its members have to take turns."""
        return len(self.members) > 1


@dataclass(frozen=True, slots=True)
class PlacedCard:
    """A card and its slots."""

    card: Card
    usable_bytes: int
    """Bytes of its memory that engines may use: not the reserve, and not what others use already."""
    slots: tuple[PlacedSlot, ...]

    @property
    def used_bytes(self) -> int:
        """Bytes of all slots together."""
        return sum(slot.total_bytes for slot in self.slots)


@dataclass(frozen=True, slots=True)
class Placement:
    """All cards with their slots and replicas."""

    recipe: str
    """The recipe's name."""
    cards: tuple[PlacedCard, ...]
    """All cards, those without a replica too."""
    elsewhere: tuple[str, ...] = ()
    """Names of the models that take no card."""
    host_bytes: tuple[tuple[str, int], ...] = ()
    """Pairs of a node and the bytes of its RAM that sleeping models need."""
    left_out: tuple[Card, ...] = ()
    """GPUs that are part of no card, because too few were left to be joined into another one."""

    def replicas(self, model: str | None = None) -> tuple[PlacedReplica, ...]:
        """The replicas of one model in the order of their numbers, or all replicas by card and slot."""
        found = [
            replica
            for placed in self.cards
            for slot in placed.slots
            for replica in slot.members
            if model in (None, replica.model)
        ]
        return tuple(sorted(found, key=lambda replica: replica.replica) if model else found)

    @property
    def stoppers(self) -> tuple[PlacedReplica, ...]:
        """The replicas that are stopped between their turns."""
        return tuple(replica for replica in self.replicas() if replica.stops)

    def slot(self, replica: PlacedReplica) -> PlacedSlot:
        """The slot that a replica is in."""
        return self.cards[replica.card].slots[replica.slot]

    @property
    def longest_turns(self) -> int:
        """How many members the fullest slot has. 1 means that every replica has a slot to itself."""
        slots = [len(slot.members) for placed in self.cards for slot in placed.slots]
        return max(slots, default=0)

    @property
    def turn_takers(self) -> int:
        """How many replicas share a slot with others."""
        slots = [slot for placed in self.cards for slot in placed.slots if slot.takes_turns]
        return sum(len(slot.members) for slot in slots)
