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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from cluster.plan.card_fill import CardFill, ReplicaToPlace, host_limit, parked_bytes
from configs.schema import Recipe

MOST_SETS = 5000
"""Most sets of models to compare. If there are more, those that park the most bytes are stopped."""


def stop_where_sleep_does_not_fit(recipe: Recipe, fills: Sequence[CardFill]) -> bool:
    """Mark members of the slots of turns as stopped, where a machine's RAM cannot hold its sleepers.

    Returns False if the RAM does not suffice even with all members on GPUs stopped.
    """
    return all(_stop_on_node(recipe, fills, node) for node in {fill.card.node for fill in fills})


def host_suffices(recipe: Recipe, fills: Sequence[CardFill]) -> bool:
    """Whether every machine has enough host RAM for its engines and its sleeping models."""
    return all(_bytes_over(recipe, fills, node) <= 0 for node in {fill.card.node for fill in fills})


def turns_per_answer(recipe: Recipe, model: str) -> int:
    """How many turns of a model one answer takes: one for each layer in which it proposes, and one to
    aggregate. The samples of a layer share a turn."""
    layers = sum(model in layer.samples_by_model() for layer in recipe.layers)
    return layers + (model == recipe.aggregator.model)


def _bytes_over(recipe: Recipe, fills: Iterable[CardFill], node: str) -> float:
    """Bytes by which a machine's RAM is too small; 0 or less if it suffices."""
    here = [fill for fill in fills if fill.card.node == node]
    return parked_bytes(here)[node] - min(host_limit(recipe, fill.card) for fill in here)


def _stop_on_node(recipe: Recipe, fills: Sequence[CardFill], node: str) -> bool:
    over = _bytes_over(recipe, fills, node)
    if over <= 0:
        return True
    here = [fill for fill in fills if fill.card.node == node]
    sleepers = [
        _Sleeper(fill.number, member)
        for fill in here
        if fill.card.kind == "gpu" and len(fill.turns) > 1
        for member in fill.turns
        if not member.stops
    ]
    stopped = [sleeper.member for sleeper in _cheapest(recipe, sleepers, over)]
    for fill in here:
        fill.turns = [fill.stopped(each) if each in stopped else each for each in fill.turns]
    return _bytes_over(recipe, here, node) <= 0


@dataclass(frozen=True, slots=True)
class _Sleeper:
    """A member that would sleep between its turns, and could be stopped."""

    slot: int
    """Number of its card, which has one slot of turns."""
    member: ReplicaToPlace

    @property
    def saved(self) -> int:
        """Bytes of RAM that are saved if it is stopped, while it is not awake."""
        return self.member.needs.parked - self.member.stopped_bytes

    @property
    def processes(self) -> int:
        """Bytes of RAM that come back while it is awake."""
        return self.member.needs.processes - self.member.stopped_bytes


def _bytes_saved(stopped: Sequence[_Sleeper]) -> int:
    """Bytes of RAM that are saved if these are stopped. One of each slot is awake at a time."""
    awake = [
        max(sleeper.processes for sleeper in stopped if sleeper.slot == slot)
        for slot in {sleeper.slot for sleeper in stopped}
    ]
    return sum(sleeper.saved for sleeper in stopped) - sum(awake)


def _cheapest(recipe: Recipe, sleepers: Sequence[_Sleeper], over: float) -> Sequence[_Sleeper]:
    """The sleepers to stop, by rules 1 and 2, so that `over` bytes are saved; none if none suffice."""
    largest = sorted(sleepers, key=lambda each: (-each.saved, each.member.order, each.member.replica))
    counts = range(1, len(largest) + 1)
    count = next((count for count in counts if _bytes_saved(largest[:count]) >= over), None)
    if count is None:
        return ()
    if math.comb(len(largest), count) > MOST_SETS:
        return largest[:count]
    enough = [chosen for chosen in combinations(largest, count) if _bytes_saved(chosen) >= over]
    return min(enough, key=lambda chosen: sum(_cost_s(recipe, each.member) for each in chosen))


def _cost_s(recipe: Recipe, member: ReplicaToPlace) -> float:
    """Predicted seconds of starts that one answer takes if the member is stopped."""
    return turns_per_answer(recipe, member.model) * member.start_s
