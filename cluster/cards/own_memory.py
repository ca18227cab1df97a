"""The memory that other programs leave on a card, while engines of this project run on it. Pure.

A new plan replaces the engines of the old one, so their bytes are there for the new plan. NVML tells
what is free now, but not whose the rest is: it lists no processes under WSL, and to a container it
tells the host's process IDs, which mean nothing there. So the keepers of the cards tell what their
members hold by the plan.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.cards.card import OTHERS, Card

TOLERANCE = 0.05
"""An engine's real bytes may differ from its planned bytes by this share of the planned bytes. A
smaller difference is no sign that another program has taken or freed memory."""


@dataclass(frozen=True, slots=True)
class OwnUse:
    """What the engines of one plan hold on one card."""

    node: str
    """Ray's ID of the card's node."""
    gpus: tuple[int, ...]
    """NVML's numbers of the GPUs that form the card."""
    least_bytes: int
    """Bytes that the engines hold at least, over all GPUs of the card."""
    most_bytes: int | None
    """Bytes that they hold at most: more than the least while an engine starts, wakes, falls asleep or
    stops. None if nobody knows; the engines may then hold all of the card."""
    planned_free: int | None = None
    """Bytes of the card that other programs left when the plan was made; None if nobody knows."""


def without_own(cards: Sequence[Card], uses: Sequence[OwnUse]) -> list[Card]:
    """The cards as they would be without these engines: `free_bytes` is what other programs leave.

    If nothing but our own engines explains a card's free memory, the answer is the number with which
    the running plan was made. So a recipe that is planned again while it runs gets the same plan.
    """
    return [_without_own(card, uses) for card in cards]


def _without_own(card: Card, uses: Sequence[OwnUse]) -> Card:
    mine = [u for u in uses if u.node == card.node and set(u.gpus) & set(card.indices)]
    if card.kind != "gpu" or card.free_bytes is None or not mine:
        return card
    free = card.free_bytes
    known = [use.most_bytes for use in mine if use.most_bytes is not None]
    # A part of what NVML takes for other programs are these engines.
    card = replace(card, remarks=tuple(each for each in card.remarks if OTHERS not in each))
    least = free + sum(use.least_bytes // len(use.gpus) for use in mine)
    most = card.total_bytes
    if len(known) == len(mine):
        most = min(most, free + sum((u.most_bytes or 0) // len(u.gpus) for u in mine))
    spare = TOLERANCE * sum(known)
    for use in mine:
        planned = None if use.planned_free is None else use.planned_free // len(use.gpus)
        if planned is not None and least - spare <= planned <= most + spare:
            return replace(card, free_bytes=planned)
    return replace(card, free_bytes=most)
