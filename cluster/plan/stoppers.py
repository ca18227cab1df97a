"""Which members of slots of turns are stopped when their turn ends, because they cannot sleep. Pure.

A model that leaves a GPU sleeps if it can: its weights wait in host RAM, and it is awake again in
seconds. A stopped model takes no RAM, and its engine starts from disk, in a minute or more. So models
are stopped only where the host RAM of a machine cannot hold all of its sleepers:

1. As few as possible are stopped.
2. Among equally many, those whose starts cost an answer the fewest predicted seconds: a model that
   answers in one stage of the mixture is started once for an answer, or once for a whole batch.

llama.cpp has no sleep. Its models are stopped wherever they do not stay loaded.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from cluster.plan.card_fill import (
    CardFill,
    ReplicaToPlace,
    host_limit,
    parked_bytes,
)
from configs.schema import Recipe

MOST_SETS = 5000
"""Most sets of models to compare. If there are more, those that park the most bytes are stopped."""


def stop_where_sleep_does_not_fit(recipe: Recipe, fills: Sequence[CardFill]) -> bool:
    """Mark members of the slots of turns as stopped, where a machine's RAM cannot hold its sleepers.

    Returns False if the RAM does not suffice even with all members on GPUs stopped.
    """
    return all(_stop_on_node(recipe, fills, node) for node in {fill.card.node for fill in fills})


def host_suffices(recipe: Recipe, fills: Sequence[CardFill]) -> bool:
    """Whether every machine has enough host RAM for its sleeping and its stopped models."""
    parked = parked_bytes(fills)
    return all(parked[fill.card.node] <= host_limit(recipe, fill.card) for fill in fills)


def turns_per_answer(recipe: Recipe, model: str) -> int:
    """How many turns of a model one answer takes: one for each layer in which it proposes, and one to
    aggregate. The samples of a layer share a turn."""
    layers = sum(model in layer.samples_by_model() for layer in recipe.layers)
    return layers + (model == recipe.aggregator.model)


def _stop_on_node(recipe: Recipe, fills: Sequence[CardFill], node: str) -> bool:
    here = [fill for fill in fills if fill.card.node == node]
    limit = min(host_limit(recipe, fill.card) for fill in here)
    if parked_bytes(here)[node] <= limit:
        return True
    stopped = _cheapest(recipe, here, limit)
    for fill, turns in zip(here, _turns_with(here, stopped), strict=True):
        fill.turns = turns
    return bool(stopped)


def _cheapest(recipe: Recipe, fills: Sequence[CardFill], limit: float) -> tuple[ReplicaToPlace, ...]:
    """The sleepers to stop, by rules 1 and 2, so that a machine's engines take at most `limit` bytes of
    RAM; none if none suffice."""
    largest = sorted(_sleepers(fills), key=lambda each: (-each.needs.parked, each.order, each.replica))
    for count in range(1, len(largest) + 1):
        if _ram_with(fills, largest[:count]) > limit:
            continue
        if math.comb(len(largest), count) > MOST_SETS:
            return tuple(largest[:count])
        enough = [s for s in combinations(largest, count) if _ram_with(fills, s) <= limit]
        return min(enough, key=lambda chosen: sum(_cost_s(recipe, each) for each in chosen))
    return ()


def _sleepers(fills: Sequence[CardFill]) -> list[ReplicaToPlace]:
    """The members of slots of turns that leave the card by falling asleep."""
    shared = [fill for fill in fills if fill.card.kind == "gpu" and len(fill.turns) > 1]
    return [member for fill in shared for member in fill.turns if not member.stops]


def _turns_with(
    fills: Sequence[CardFill], stopped: Sequence[ReplicaToPlace]
) -> list[list[ReplicaToPlace]]:
    """The members of each card's slot of turns if those of `stopped` are stopped."""
    return [[f.stopped(each) if each in stopped else each for each in f.turns] for f in fills]


def _ram_with(fills: Sequence[CardFill], stopped: Sequence[ReplicaToPlace]) -> int:
    """Bytes of RAM of one machine's engines if those of `stopped` are stopped between their turns."""
    turns = _turns_with(fills, stopped)
    changed = [replace(fill, turns=new) for fill, new in zip(fills, turns, strict=True)]
    return sum(parked_bytes(changed).values())


def _cost_s(recipe: Recipe, member: ReplicaToPlace) -> float:
    """Predicted seconds of starts that one answer takes if the member is stopped."""
    return turns_per_answer(recipe, member.model) * member.start_s
