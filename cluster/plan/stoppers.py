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
from itertools import combinations

from cluster.plan.card_fill import (
    STOPPED_BYTES,
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
    over = parked_bytes(here)[node] - min(host_limit(recipe, fill.card) for fill in here)
    if over <= 0:
        return True
    sleepers = [
        member
        for fill in here
        if fill.card.kind == "gpu" and len(fill.turns) > 1
        for member in fill.turns
        if not member.stops and member.needs.parked > STOPPED_BYTES
    ]
    stopped = _cheapest(recipe, sleepers, over)
    for fill in here:
        fill.turns = [fill.stopped(each) if each in stopped else each for each in fill.turns]
    return bool(stopped)


def _cheapest(
    recipe: Recipe, sleepers: Sequence[ReplicaToPlace], over: float
) -> tuple[ReplicaToPlace, ...]:
    """The sleepers to stop, by rules 1 and 2, so that `over` bytes are saved; none if none suffice."""
    largest = sorted(sleepers, key=lambda each: (-each.needs.parked, each.order, each.replica))
    count, saved = 0, 0
    while saved < over and count < len(largest):
        saved += _saved(largest[count])
        count += 1
    if saved < over:
        return ()
    fewest = tuple(largest[:count])
    if math.comb(len(largest), count) > MOST_SETS:
        return fewest
    enough = [s for s in combinations(largest, count) if sum(map(_saved, s)) >= over]
    return min(enough, key=lambda chosen: sum(_cost_s(recipe, each) for each in chosen), default=fewest)


def _saved(member: ReplicaToPlace) -> int:
    return member.needs.parked - STOPPED_BYTES


def _cost_s(recipe: Recipe, member: ReplicaToPlace) -> float:
    """Predicted seconds of starts that one answer takes if the member is stopped."""
    return turns_per_answer(recipe, member.model) * member.start_s
