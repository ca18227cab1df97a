"""What lives where: the planner's answer, as plain data."""

from dataclasses import dataclass

from cluster.cards.card import Card


@dataclass(frozen=True, slots=True)
class PlacedReplica:
    """One replica of a model in its slot.

    weights, kv, activations, residue: bytes, as in Footprint; sequences: how many run at a time;
    threads: CPU threads for its turn; fraction: what Ray books for it, in GPUs, or as a share of a
    CPU's cores; utilization: awake bytes over those of the card.
    """

    model: str
    replica: int
    weights: int
    kv: int
    activations: int
    residue: int
    sequences: int
    threads: int
    fraction: float
    utilization: float

    @property
    def awake(self) -> int:
        return self.weights + self.kv + self.activations + self.residue

    @property
    def kv_cache_memory_bytes(self) -> int:
        return self.kv


@dataclass(frozen=True, slots=True)
class Slot:
    """A share of a card that houses one awake model at a time. total_bytes: the most that it uses;
    keeps_loaded: members that sleep keep their weights in RAM, else they are read from disk."""

    members: tuple[PlacedReplica, ...]
    total_bytes: int
    keeps_loaded: bool = True

    @property
    def takes_turns(self) -> bool:
        return len(self.members) > 1


@dataclass(frozen=True, slots=True)
class PlacedCard:
    """A card and its slots. usable_bytes: what is left of it after the reserve."""

    card: Card
    usable_bytes: int
    slots: tuple[Slot, ...]

    @property
    def used_bytes(self) -> int:
        return sum(slot.total_bytes for slot in self.slots)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a member is: the numbers of its card and slot in the placement."""

    card: int
    slot: int
    member: PlacedReplica


@dataclass(frozen=True, slots=True)
class Placement:
    """cards: all of them, unused ones too; elsewhere: models that take no card; host_bytes: RAM
    that sleeping models need, by node; left_out: cards that are none of `cards`, for they could not
    be joined as the others are."""

    recipe: str
    cards: tuple[PlacedCard, ...]
    elsewhere: tuple[str, ...] = ()
    host_bytes: tuple[tuple[str, int], ...] = ()
    left_out: tuple[Card, ...] = ()

    def seats(self, model: str | None = None) -> tuple[Location, ...]:
        """All replicas, or those of one model, the first replica first."""
        found = [
            Location(c, s, member)
            for c, placed in enumerate(self.cards)
            for s, slot in enumerate(placed.slots)
            for member in slot.members
            if model in (None, member.model)
        ]
        return tuple(sorted(found, key=lambda seat: seat.member.replica) if model else found)

    @property
    def longest_turns(self) -> int:
        """Members of the fullest slot: 1 means that all are resident."""
        slots = [len(slot.members) for placed in self.cards for slot in placed.slots]
        return max(slots, default=0)

    @property
    def turn_takers(self) -> int:
        """Members that share a slot."""
        slots = [slot for placed in self.cards for slot in placed.slots if slot.takes_turns]
        return sum(len(slot.members) for slot in slots)
