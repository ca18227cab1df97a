"""The search for the best placement of models on cards. Pure; all GPUs are equally wide (`widths.py`).

1. Rank the models by how much they gain from staying awake: the aggregator first and then the small
   models, or the small models only. A recipe's `residency` overrides this.
2. For each ranking and each number of residents, the most first: give residents slots of their own,
   and spread the other models over one slot of turns on each card. On a CPU no model becomes resident
   unless the recipe says so: cores are scarce there, so all its models share one slot.
3. Of the placements that fit, take the one whose fullest slot has the fewest members; of several, the
   one where the fewest models take turns. Sets of fewer cards are tried too, so that one more card
   never makes a placement worse.
4. A card that is left over gets replicas of the busiest models, at most one of each model. On a GPU
   they are residents; where none can be, as on a CPU, they share a slot of turns.

The whole context of each sequence is reserved for every replica, so the engines never have to preempt
a planned sequence. Memory that is left over stays free, because the footprints are estimates.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product

from cluster.cards.card import Card
from cluster.cards.tensor_parallel import gpus_per_card
from cluster.plan.card_fill import (
    CardFill,
    ReplicaToPlace,
    host_limit,
    parked_bytes,
    to_placement,
    usable_bytes,
)
from cluster.plan.placement import Placement
from cluster.plan.task import PlanningTask
from configs.schema import Recipe

MOST_CARD_SETS = 1024
"""Sets of cards to try. With more, only the sets of the largest cards are tried, one for each size."""
ALL_RESIDENT = (1, 0)
"""Members of the fullest slot and models that take turns, in the best placement that there can be."""


def search_placement(task: PlanningTask) -> Placement | None:
    """The best placement, or None if nothing fits. Models without a checkpoint take no card."""
    replicas = list(_replicas_to_place(task))
    empty = [
        CardFill(number, card, usable_bytes(task.recipe, card), keeps_in_ram=card.kind == "cpu")
        for number, card in enumerate(task.cards)
    ]
    if not all(any(fill.can_hold_resident(each) for fill in empty) for each in replicas):
        return None  # a replica that has no room alone has none beside others
    best = _best_fills(task, replicas, empty)
    if best is None:
        return None
    return to_placement(task.recipe, _with_extra_replicas(task, replicas, best, empty))


def _best_fills(
    task: PlanningTask, replicas: Sequence[ReplicaToPlace], empty: Sequence[CardFill]
) -> list[CardFill] | None:
    """Rule 3. The first of several equally good ones."""
    best: list[CardFill] | None = None
    best_turns = (math.inf, math.inf)
    for numbers in _card_sets(task.cards):
        for fills in _possible_fills(task, replicas, [empty[number] for number in numbers]):
            lengths = [len(fill.turns) for fill in fills if len(fill.turns) > 1]
            turns = (max(lengths, default=1), sum(lengths))
            if turns < best_turns:
                best, best_turns = fills, turns
            if best_turns == ALL_RESIDENT:
                return best
    return best


def _replicas_to_place(task: PlanningTask) -> Iterator[ReplicaToPlace]:
    """The least replicas of each model."""
    gpus = gpus_per_card(task.cards)
    for order, (name, model) in enumerate(task.recipe.models.items()):
        if name not in task.checkpoints:
            continue
        kind = task.kind(name)
        needs = task.footprint(name, gpus if kind == "gpu" else 1)
        calls = task.recipe.calls_per_answer(name)
        work = calls * task.checkpoints[name].read_bytes(1) / model.replicas.min
        for number in range(model.replicas.min):
            yield ReplicaToPlace(
                model=name, replica=number, order=order, needs=needs, work=work, kind=kind
            )


def _card_sets(cards: Sequence[Card]) -> Iterator[list[int]]:
    """Sets of cards by their numbers, the largest first. Of sets that are alike only one is given."""
    order = sorted(range(len(cards)), key=lambda n: (-cards[n].total_bytes, n))
    alike: dict[Card, list[int]] = {}
    for n in order:
        alike.setdefault(replace(cards[n], indices=()), []).append(n)
    groups = list(alike.values())
    if math.prod(len(group) + 1 for group in groups) > MOST_CARD_SETS:
        yield from (order[:count] for count in range(len(order), -1, -1))
        return
    for counts in product(*(range(len(group), -1, -1) for group in groups)):
        chosen = {n for group, count in zip(groups, counts, strict=True) for n in group[:count]}
        yield [n for n in order if n in chosen]


def _possible_fills(
    task: PlanningTask, replicas: Sequence[ReplicaToPlace], empty: Sequence[CardFill]
) -> Iterator[list[CardFill]]:
    """Rules 1 and 2: all ways to fill the empty cards in which every replica has room."""
    residency = {each.model: task.recipe.models[each.model].residency for each in replicas}
    forced = [each for each in replicas if residency[each.model] == "resident"]
    optional = [each for each in replicas if residency[each.model] == "auto" and each.kind == "gpu"]
    for ranked in (_aggregator_first(task.recipe, optional), sorted(optional, key=_size_rank)):
        for most_free_first in (False, True):
            for count in range(len(ranked), -1, -1):
                residents = [*forced, *ranked[:count]]
                turns = [each for each in replicas if each not in residents]
                fills = _fill_cards(task.recipe, empty, residents, turns, most_free_first)
                if fills is not None:
                    yield fills


def _aggregator_first(recipe: Recipe, replicas: Iterable[ReplicaToPlace]) -> list[ReplicaToPlace]:
    return sorted(replicas, key=lambda each: (each.model != recipe.aggregator.model, *_size_rank(each)))


def _size_rank(replica: ReplicaToPlace) -> tuple[int, int, int]:
    """Small models come first."""
    return replica.needs.awake, replica.order, replica.replica


def _fill_cards(
    recipe: Recipe,
    empty: Sequence[CardFill],
    residents: Sequence[ReplicaToPlace],
    turns: Sequence[ReplicaToPlace],
    most_free_first: bool,
) -> list[CardFill] | None:
    """The cards with `residents` in slots of their own and `turns` in turns, or None without room.

    If the models of a CPU do not fit into its RAM together, a second attempt unloads those that sleep.
    """
    has_cpu = any(fill.card.kind == "cpu" for fill in empty)
    for keeps_in_ram in (True, False) if has_cpu else (False,):
        fills = [
            CardFill(each.number, each.card, each.usable_bytes, keeps_in_ram and each.keeps_in_ram)
            for each in empty
        ]
        if (
            _place_residents(fills, residents, most_free_first)
            and _place_in_turns(fills, turns)
            and _host_suffices(recipe, fills)
        ):
            return fills
    return None


def _place_residents(
    fills: Sequence[CardFill], residents: Iterable[ReplicaToPlace], most_free_first: bool
) -> bool:
    """Give each resident a card, the largest one first. False if some resident has no room.

    Cards without a replica of the model come first. Of these, the first card, or the one with the most
    free memory.
    """
    for replica in sorted(residents, key=lambda each: (-each.needs.awake, each.order, each.replica)):
        candidates = [fill for fill in fills if fill.can_hold_resident(replica)]
        if not candidates:
            return False
        if most_free_first:
            candidates.sort(key=lambda fill: -fill.free_bytes(fill.turns))
        min(candidates, key=lambda fill: fill.has_model(replica)).residents.append(replica)
    return True


def _place_in_turns(fills: Sequence[CardFill], turns: Iterable[ReplicaToPlace]) -> bool:
    """Give each other replica a card, the one with the most work first. False if one has no room.

    Cards without a replica of the model come first; of these, the slot with the fewest members, and
    then the one with the least work.
    """
    for replica in sorted(turns, key=lambda each: (-each.work, each.order, each.replica)):
        candidates = [fill for fill in fills if fill.can_hold_in_turns(replica)]
        if not candidates:
            return False
        chosen = min(
            candidates,
            key=lambda fill: (
                fill.has_model(replica),
                len(fill.turns),
                sum(each.work for each in fill.turns),
            ),
        )
        chosen.turns.append(replica)
    return True


def _host_suffices(recipe: Recipe, fills: Sequence[CardFill]) -> bool:
    """Whether every node has the host RAM that its sleeping models need."""
    parked = parked_bytes(fills)
    return all(parked[fill.card.node] <= host_limit(recipe, fill.card) for fill in fills)


def _with_extra_replicas(
    task: PlanningTask,
    replicas: Sequence[ReplicaToPlace],
    fills: Sequence[CardFill],
    empty: Sequence[CardFill],
) -> list[CardFill]:
    """Rule 4: all cards, and extra replicas on those that `fills` leaves empty."""
    used = {fill.number: fill for fill in fills if fill.replicas}
    every = [used.get(fill.number, fill) for fill in empty]
    extra = _ExtraReplicas(task.recipe, replicas, every)
    for fill in every:
        if fill.number not in used:
            extra.fill_with_residents(fill)
            extra.fill_with_turns(fill)
    return every


class _ExtraReplicas:
    """Rule 4: replicas for empty cards, of the model with the most work per replica first."""

    def __init__(
        self, recipe: Recipe, replicas: Sequence[ReplicaToPlace], fills: Sequence[CardFill]
    ) -> None:
        self._recipe = recipe
        self._fills = fills
        self._firsts = [each for each in replicas if each.replica == 0]
        self._counts = Counter(each.model for each in replicas)
        self._work = {each.model: each.work * self._counts[each.model] for each in self._firsts}

    def fill_with_residents(self, fill: CardFill) -> None:
        """Add residents while one has room."""
        while candidates := [r for r in self._wanted(fill) if self._can_be_resident(r, fill)]:
            fill.residents.append(self._next_replica(candidates))

    def fill_with_turns(self, fill: CardFill) -> None:
        """Add members of the slot of turns while one has room."""
        while candidates := [r for r in self._wanted(fill) if self._can_take_turns(r, fill)]:
            fill.turns.append(self._next_replica(candidates))

    def _wanted(self, fill: CardFill) -> Iterator[ReplicaToPlace]:
        """Models that the recipe allows more replicas of, and of which the card has none."""
        for replica in self._firsts:
            most = self._recipe.models[replica.model].replicas.max
            if (most is None or self._counts[replica.model] < most) and not fill.has_model(replica):
                yield replica

    def _can_be_resident(self, replica: ReplicaToPlace, fill: CardFill) -> bool:
        residency = self._recipe.models[replica.model].residency
        stays_awake = residency == "resident" or (residency == "auto" and fill.card.kind == "gpu")
        return stays_awake and fill.can_hold_resident(replica)

    def _can_take_turns(self, replica: ReplicaToPlace, fill: CardFill) -> bool:
        residency = self._recipe.models[replica.model].residency
        if residency == "resident" or (fill.card.kind == "gpu" and fill.residents):
            return False
        others = [other for other in self._fills if other is not fill]
        trial = replace(fill, turns=[*fill.turns, replica])
        return fill.can_hold_in_turns(replica) and _host_suffices(self._recipe, [*others, trial])

    def _next_replica(self, candidates: Iterable[ReplicaToPlace]) -> ReplicaToPlace:
        """One more replica of the candidate with the most work per replica."""

        def work_per_replica(replica: ReplicaToPlace) -> tuple[float, int]:
            return self._work[replica.model] / self._counts[replica.model], -replica.order

        busiest = max(candidates, key=work_per_replica)
        number = self._counts[busiest.model]
        self._counts[busiest.model] += 1
        return replace(busiest, replica=number)
