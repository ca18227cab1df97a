"""Pure: cards of one node joined into wider ones, over which a model is split (tensor parallelism)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from cluster.cards.card import Card
from cluster.plan.checkpoint import Checkpoint
from configs.schema import LlamaCppModel, Recipe

WIDTHS = (1, 2, 4, 8)


def join_cards(cards: Sequence[Card], width: int) -> list[Card]:
    """The GPUs of each node in groups of `width` that are alike, each group as one card; what makes no
    whole group is left out. A CPU stays what it is.

    Neighbours by number make a group, as links between GPUs mostly have it. That links add up assumes
    that each GPU has its own to the host, and that the host's RAM is faster than all of them.
    """
    found: list[Card] = []
    groups: dict[tuple[object, ...], list[Card]] = {}
    for card in cards:
        if card.kind == "cpu" or width == 1:
            found.append(card)
            continue
        group = groups.setdefault((card.node, card.name, card.capability), [])
        group.append(card)
        if len(group) == width:
            found.append(_one(group))
            group.clear()
    return found


def _one(group: Sequence[Card]) -> Card:
    width, first = len(group), group[0]
    free = [card.free_bytes for card in group]
    # Every part of a model is of the same size, so the fullest GPU is the limit of all.
    return replace(
        first,
        name=f"{width} x {first.name}",
        total_bytes=width * min(card.total_bytes for card in group),
        free_bytes=None if None in free else width * min(b for b in free if b is not None),
        bandwidth=first.bandwidth and width * first.bandwidth,
        flops=first.flops and width * first.flops,
        link=first.link and width * first.link,
        indices=tuple(n for card in group for n in card.indices),
    )


def gpus_per_card(cards: Sequence[Card]) -> int:
    """GPUs of the widest card; 1 without any."""
    return max((len(card.indices) for card in cards), default=1)


def left_out(cards: Sequence[Card], wide: Sequence[Card]) -> tuple[Card, ...]:
    """Those of `cards` that none of the `wide` ones is made of."""
    used = {(card.node, card.kind, n) for card in wide for n in card.indices}
    return tuple(c for c in cards if not {(c.node, c.kind, n) for n in c.indices} <= used)


def widths(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cards: Sequence[Card]
) -> Iterator[int]:
    """Over how many GPUs the models may be split, the fewest first."""
    return (w for w in wanted(recipe, cards) if obstacle(recipe, checkpoints, cards, w) is None)


def wanted(recipe: Recipe, cards: Sequence[Card]) -> tuple[int, ...]:
    """The widths that the recipe names, or else those of which there are cards enough."""
    if all(card.kind == "cpu" for card in cards):
        return (1,)
    if recipe.cards.tensor_parallel is not None:
        return (recipe.cards.tensor_parallel,)
    return tuple(w for w in WIDTHS if w == 1 or gpus_per_card(join_cards(cards, w)) == w)


def obstacle(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cards: Sequence[Card], width: int
) -> str | None:
    """Why the models cannot be split over so many GPUs, if they cannot."""
    if width == 1:
        return None
    if gpus_per_card(join_cards(cards, width)) < width:
        return f"no node has {width} GPUs that are alike"
    to_cpu = any(card.kind == "cpu" for card in cards)
    for name, checkpoint in checkpoints.items():
        if isinstance(recipe.models[name], LlamaCppModel):
            # It can put whole layers on several GPUs, which then wait for each other.
            if not to_cpu:
                return f"{name} is run by llama.cpp, which is not split here"
        elif not checkpoint.splits(width):
            return (
                f"{name} has {checkpoint.heads} attention heads, {checkpoint.kv_heads} of keys and "
                f"values, and a feed-forward width of {checkpoint.ffn}, which do not divide evenly"
            )
    return None
