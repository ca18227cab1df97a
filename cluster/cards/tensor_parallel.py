"""Joins GPUs of one node into one wider card, over which models are split (tensor parallelism).

Pure. The width of a card is its number of GPUs. `cluster/plan/widths.py` decides the width.
"""

from collections.abc import Sequence
from dataclasses import replace

from cluster.cards.card import Card


def join_cards(cards: Sequence[Card], width: int) -> list[Card]:
    """Join every `width` GPUs that are alike into one card; return the resulting cards.

    GPUs are alike if they have the same node, name and compute capability. They are joined in the order
    of `cards`, because GPUs with neighbouring numbers mostly have the best links. GPUs left over are
    not in the result. CPU cards are returned unchanged, and so are all cards if `width` is 1.
    """
    joined: list[Card] = []
    groups: dict[tuple[object, ...], list[Card]] = {}
    for card in cards:
        if card.kind == "cpu" or width == 1:
            joined.append(card)
            continue
        group = groups.setdefault((card.node, card.name, card.capability), [])
        group.append(card)
        if len(group) == width:
            joined.append(_join_group(group))
            group.clear()
    return joined


def _join_group(group: Sequence[Card]) -> Card:
    """One card from GPUs that are alike. Their bandwidths, operations and links are added up.

    The sum of links assumes that each GPU has a link of its own to the host, and that the host's RAM
    is faster than all links together.
    """
    width, first = len(group), group[0]
    free = [card.free_bytes for card in group]
    # Each GPU gets a part of the same size, so the GPU with the least memory limits all of them.
    return replace(
        first,
        name=f"{width} x {first.name}",
        total_bytes=width * min(card.total_bytes for card in group),
        free_bytes=None if None in free else width * min(b for b in free if b is not None),
        bandwidth=first.bandwidth and width * first.bandwidth,
        flops=first.flops and width * first.flops,
        link=first.link and width * first.link,
        indices=tuple(n for card in group for n in card.indices),
        is_exclusive=any(card.is_exclusive for card in group),
        remarks=tuple(dict.fromkeys(remark for card in group for remark in card.remarks)),
    )


def gpus_per_card(cards: Sequence[Card]) -> int:
    """The number of GPUs in the widest card; 1 without any card."""
    return max((len(card.indices) for card in cards), default=1)


def unused_cards(cards: Sequence[Card], joined: Sequence[Card]) -> tuple[Card, ...]:
    """The cards that are left over: the GPUs and CPUs of `cards` that are in no card of `joined`."""
    used = {(card.node, card.kind, n) for card in joined for n in card.indices}
    return tuple(c for c in cards if not {(c.node, c.kind, n) for n in c.indices} <= used)
