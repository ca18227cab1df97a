"""What a keeper says of its card to those who watch it. This file knows nothing of Ray."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from actors.keeper.card_keeper import StepTimes
from actors.keeper.kept_card import KeptCard, MemberBytes
from cluster.residency.messages import Snapshot
from cluster.residency.state import State, TurnState

NO_BYTES = MemberBytes(0, 0, 0)
NO_TIMES: Mapping[str, StepTimes] = MappingProxyType({})
NO_TIME = StepTimes(since_s=0.0, expected_s=None, last_s=None)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class MemberReport:
    """One replica of a model, and what its engine is doing."""

    name: str
    """The member's name: the model's, a slash, and the replica's number."""
    slot: str
    """The slot in which the member takes turns."""
    state: State
    """What the engine is doing."""
    turn: TurnState
    """Whether the replica may start calls."""
    in_flight: int
    """Calls that the engine works on."""
    waiting: int
    """Calls that wait for the member's turn, or for room in the engine."""
    oldest_wait_s: float
    """Seconds for which the oldest of these calls has waited; 0 if none waits."""
    last_step_s: float | None
    """Seconds that the engine's last start, wake, sleep or stop took; None before the first."""
    failure: str
    """Why the engine failed the last time; empty if it never did."""
    awake_bytes: int
    """Bytes of the card that the engine holds by the plan while it is awake."""
    asleep_bytes: int
    """Bytes of the card that the engine holds by the plan while it sleeps."""
    orders: Mapping[str, int]
    """How many orders of each kind (`start`, `wake`, `sleep`, ...) the member was given."""
    step_seconds: Mapping[str, float]
    """Seconds that all steps of the engine took, by the state in which they ended."""
    since_s: float = 0.0
    """Seconds for which the engine has been in this state."""
    expected_s: float | None = None
    """Seconds that the step takes in which the engine is now; None if it is in no step."""


@dataclass(frozen=True, slots=True)
class CardReport:
    """One card: its memory by the plan, and its members."""

    node: str
    """Ray's ID of the card's node."""
    gpus: tuple[int, ...] | None
    """NVML's numbers of the GPUs that form the card; None for the CPU of the node."""
    name: str
    """The name of the card's model, such as `NVIDIA A100-SXM4-80GB`."""
    total_bytes: int
    """Bytes of memory that the card has; 0 if nobody knows."""
    members: tuple[MemberReport, ...]
    """The members, slot by slot, in the order of the recipe."""


def card_report(
    card: KeptCard,
    snapshots: Mapping[str, Snapshot],
    orders: Mapping[tuple[str, str], int],
    step_seconds: Mapping[tuple[str, str], float],
    times: Mapping[str, StepTimes] = NO_TIMES,
) -> CardReport:
    """Put together what a keeper knows of its card.

    Args:
        card: the card and its plan.
        snapshots: the last snapshot of each member, with times in seconds from now.
        orders: how many orders each member was given, by (member, `Verb`).
        step_seconds: seconds that all steps took, by (member, `State`).
        times: how long each member has been in its state, and how long its steps take.
    """
    sizes = dict(card.members)
    members = []
    for slot in card.slots:
        for member in slot.members:
            found = snapshots[member.name]
            size = sizes.get(member.name, NO_BYTES)
            time = times.get(member.name, NO_TIME)
            first = found.calls.first_arrival_at
            report = MemberReport(
                name=member.name,
                slot=slot.name,
                state=found.state,
                turn=found.turn,
                in_flight=found.calls.in_flight,
                waiting=found.calls.waiting,
                oldest_wait_s=max(0.0, -first) if math.isfinite(first) else 0.0,
                last_step_s=time.last_s,
                failure=found.failure,
                awake_bytes=size.awake,
                asleep_bytes=size.asleep,
                orders=_of(member.name, orders),
                step_seconds=_of(member.name, step_seconds),
                since_s=time.since_s,
                expected_s=time.expected_s,
            )
            members.append(report)
    return CardReport(card.node, card.gpus, card.name, card.total_bytes, tuple(members))


def _of(member: str, values: Mapping[tuple[str, str], Value]) -> dict[str, Value]:
    return {str(what): value for (name, what), value in values.items() if name == member}
