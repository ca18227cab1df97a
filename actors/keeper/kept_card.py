"""A card and its plan, as the card's keeper knows them. This file knows nothing of Ray."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.cards.own_memory import OwnUse
from cluster.logs.line import Shape
from cluster.residency.policy import CPU_POLICY, Policy
from cluster.residency.state import Slot, State

WITHOUT_MEMORY = (State.ABSENT, State.NOT_STARTED, State.STOPPED)
"""States in which an engine holds no memory of its card."""


@dataclass(frozen=True, slots=True)
class MemberBytes:
    """Bytes of a card that one member holds by the plan, over all GPUs of the card."""

    awake: int
    """While its engine is awake."""
    asleep: int
    """While its engine sleeps."""
    peak: int
    """At most: while its engine starts, or while it is awake."""

    def held(self, state: State) -> tuple[int, int]:
        """The least and the most that the member holds in a state."""
        if state in WITHOUT_MEMORY:
            return 0, 0
        if state is State.RESIDENT:
            return self.awake, self.awake
        if state is State.ASLEEP:
            return self.asleep, self.asleep
        return 0, self.peak


@dataclass(frozen=True, slots=True)
class KeptCard:
    """A card that has a keeper, or gets one as soon as a replica asks for it."""

    app: str
    """Name of the Serve application."""
    node: str
    """Ray's ID of the card's node."""
    gpus: tuple[int, ...] | None
    """NVML's numbers of the GPUs that form the card; None for the CPU of the node."""
    slots: tuple[Slot, ...]
    """The card's slots and their members."""
    policy: Policy = CPU_POLICY
    """The numbers of the scheduler."""
    members: tuple[tuple[str, MemberBytes], ...] = ()
    """For each member, its name and the bytes that its engine holds on the card."""
    free_bytes: int | None = None
    """Bytes that other programs left on the card when the plan was made; None if nobody knows."""
    handover_s: float = 60.0
    """See `Handover`: seconds that the replicas of an earlier plan get to end their calls."""
    name: str = "cpu"
    """The name of the card's model, for people."""
    total_bytes: int = 0
    """Bytes of memory that the card has; 0 if nobody knows."""
    log: Shape = "text"
    """The shape of the keeper's log lines. A keeper keeps the shape with which it was created."""

    @property
    def label(self) -> str:
        """A short name of the card for log lines: `cpu`, `gpu0`, `gpu0+1`."""
        return "cpu" if self.gpus is None else f"gpu{'+'.join(map(str, self.gpus))}"

    @property
    def actor_name(self) -> str:
        """The name of the keeper's actor: `keeper:APP:NODE:CARD:PLAN`.

        CARD is `cpu` or the GPUs' numbers (`0+1`), and PLAN a digest of what the plan has on the card.
        So another plan for the same card gets another keeper.
        """
        card = "cpu" if self.gpus is None else "+".join(map(str, self.gpus))
        plan = repr((self.slots, self.members, self.free_bytes))
        digest = hashlib.sha256(plan.encode()).hexdigest()[:8]
        return f"{name_prefix(self.app)}{self.node}:{card}:{digest}"

    def overlaps(self, actor_name: str) -> bool:
        """Whether the keeper with this actor name has the same CPU or any of the same GPUs."""
        node, gpus = card_of(actor_name)
        if node != self.node:
            return False
        if gpus is None or self.gpus is None:
            return gpus is self.gpus
        return bool(set(gpus) & set(self.gpus))

    def use(self, states: Mapping[str, State]) -> OwnUse | None:
        """What the members hold in these states; None for a CPU, whose RAM is not counted so."""
        if self.gpus is None:
            return None
        held = [size.held(states.get(name, State.ABSENT)) for name, size in self.members]
        least, most = (sum(bytes_held) for bytes_held in zip((0, 0), *held, strict=True))
        return OwnUse(self.node, self.gpus, least, most, self.free_bytes)


def name_prefix(app: str) -> str:
    """What the actor names of all keepers of an application begin with."""
    return f"keeper:{app}:"


def card_of(actor_name: str) -> tuple[str, tuple[int, ...] | None]:
    """The node and the GPUs in a keeper's actor name; None for a CPU."""
    _, node, card, _ = actor_name.rsplit(":", 3)
    return node, None if card == "cpu" else tuple(int(number) for number in card.split("+"))
