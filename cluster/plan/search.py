"""Searches for the best placement of models on cards.

A placement gives each replica a card and a slot, which is a share of the card's memory. A resident has
a slot to itself and stays awake. The other replicas of a card are the members of its slot of turns,
where one member at a time is awake. The search is a pure function. All its GPU cards are equally wide:
each is made of the same number of GPUs (`widths.py`).

1. Rank the replicas by how much they gain from staying awake, in two ways: the aggregator first and
   then the others from small to large, or all from small to large. The recipe's `residency` of a model
   goes before both.
2. For each ranking, make all replicas residents, then all but the last, and so on, and spread the
   others over the cards' slots of turns. On a CPU no replica becomes a resident unless the recipe says
   so: cores are scarce there, so all replicas share the slot of turns.
3. Of the placements that fit, take the placement where the fewest replicas are stopped between their
   turns (`stoppers.py`): none, if the sleepers of any placement fit into host RAM. Among equals, take
   the placement whose fullest slot has the fewest members, and then the placement where the fewest
   replicas take turns. The search also tries to use fewer cards, so that one more card never makes the
   placement worse.
4. Fill each card that has no replica yet with more replicas of the busiest models, at most one of each
   model. On a GPU they become residents. If the card can have no resident, as on a CPU, they share a
   slot of turns.

Each replica reserves its whole KV cache: by default the whole context of each sequence, so that the
engine never has to preempt a sequence. Memory that is left over stays free: footprints are estimates.
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
    to_placement,
    usable_bytes,
)
from cluster.plan.placement import Placement
from cluster.plan.speed import start_s
from cluster.plan.stoppers import host_suffices, stop_where_sleep_does_not_fit
from cluster.plan.task import PlanningTask
from configs.schema import LlamaCppModel, Recipe

MOST_CARD_SETS = 1024
"""Most sets of cards to try. If there are more, only the n largest cards are tried, for each n."""
ALL_RESIDENT = (0, 1, 0)
"""The measure of rule 3 for the best possible placement: replicas that are stopped between turns,
members of the fullest slot, and replicas that take turns."""


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
    """The best placement by rule 3, as filled cards; among equals, the first. None if nothing fits."""
    best: list[CardFill] | None = None
    best_turns = (math.inf, math.inf, math.inf)
    for numbers in _card_sets(task.cards):
        for fills in _possible_fills(task, replicas, [empty[number] for number in numbers]):
            lengths = [len(fill.turns) for fill in fills if len(fill.turns) > 1]
            stoppers = sum(fill.stoppers for fill in fills)
            turns = (stoppers, max(lengths, default=1), sum(lengths))
            if turns < best_turns:
                best, best_turns = fills, turns
            if best_turns == ALL_RESIDENT:
                return best
    return best


def _replicas_to_place(task: PlanningTask) -> Iterator[ReplicaToPlace]:
    """The replicas that the recipe demands: `replicas.min` of each model that takes a card."""
    gpus = gpus_per_card(task.cards)
    for order, (name, model) in enumerate(task.recipe.models.items()):
        if name not in task.checkpoints:
            continue
        kind = task.kind(name)
        card = next((card for card in task.cards if card.kind == kind), None)
        starts_in_s = start_s(model, task.checkpoints[name], card) if card else 0.0
        needs = task.footprint(name, gpus if kind == "gpu" else 1)
        calls = task.recipe.calls_per_answer(name)
        work = calls * task.checkpoints[name].read_bytes(1) / model.replicas.min
        for number in range(model.replicas.min):
            yield ReplicaToPlace(
                model=name,
                replica=number,
                order=order,
                needs=needs,
                work=work,
                kind=kind,
                can_sleep=not isinstance(model, LlamaCppModel),
                start_s=starts_in_s,
            )


def _card_sets(cards: Sequence[Card]) -> Iterator[list[int]]:
    """The sets of cards to try, each as positions in `cards`. The set of all cards comes first.

    Sets with equal cards, which differ only in the numbers of their GPUs, count as one set.
    """
    order = sorted(range(len(cards)), key=lambda n: (-cards[n].total_bytes, n))
    alike: dict[Card, list[int]] = {}
    for n in order:
        alike.setdefault(replace(cards[n], indices=(), remarks=()), []).append(n)
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
    """Rules 1 and 2: the ways to fill the empty cards that leave no replica without room."""
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
    """A sort key that puts small models first."""
    return replica.needs.awake, replica.order, replica.replica


def _fill_cards(
    recipe: Recipe,
    empty: Sequence[CardFill],
    residents: Sequence[ReplicaToPlace],
    turns: Sequence[ReplicaToPlace],
    most_free_first: bool,
) -> list[CardFill] | None:
    """Fill the cards: `residents` get slots of their own, `turns` take turns. None if there is no room.

    If the models of a CPU do not fit into its RAM together, a second attempt stops those that are not
    awake.
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
            and stop_where_sleep_does_not_fit(recipe, fills)
        ):
            return fills
    return None


def _place_residents(
    fills: Sequence[CardFill], residents: Iterable[ReplicaToPlace], most_free_first: bool
) -> bool:
    """Give each resident a card, in the order from the largest resident to the smallest.

    A resident goes to a card without another replica of its model if there is room on any. Among such
    cards it takes the first card, or with `most_free_first` the card with the most free memory.

    Returns False if a resident has no room.
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
    """Put each replica into a card's slot of turns, in the order from the most work to the least.

    A replica goes to a card without another replica of its model if there is room on any. Among such
    cards it takes the slot with the fewest members, and among equals the slot with the least work.

    Returns False if a replica has no room.
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
        chosen.turns.append(chosen.as_member(replica))
    return True


def _with_extra_replicas(
    task: PlanningTask,
    replicas: Sequence[ReplicaToPlace],
    fills: Sequence[CardFill],
    empty: Sequence[CardFill],
) -> list[CardFill]:
    """Rule 4: all cards, with extra replicas on each card that `fills` leaves empty."""
    used = {fill.number: fill for fill in fills if fill.replicas}
    every = [used.get(fill.number, fill) for fill in empty]
    extra = _ExtraReplicas(task.recipe, replicas, every)
    for fill in every:
        if fill.number not in used:
            extra.fill_with_residents(fill)
            extra.fill_with_turns(fill)
    return every


class _ExtraReplicas:
    """Rule 4: extra replicas for empty cards. The model with the most work per replica goes first."""

    def __init__(
        self, recipe: Recipe, replicas: Sequence[ReplicaToPlace], fills: Sequence[CardFill]
    ) -> None:
        self._recipe = recipe
        self._fills = fills
        self._firsts = [each for each in replicas if each.replica == 0]
        self._counts = Counter(each.model for each in replicas)
        self._work = {each.model: each.work * self._counts[each.model] for each in self._firsts}

    def fill_with_residents(self, fill: CardFill) -> None:
        """Add residents to the card until no further resident has room."""
        while candidates := [r for r in self._wanted(fill) if self._can_be_resident(r, fill)]:
            fill.residents.append(self._next_replica(candidates))

    def fill_with_turns(self, fill: CardFill) -> None:
        """Add members to the card's slot of turns until no further member has room."""
        while candidates := [r for r in self._wanted(fill) if self._can_take_turns(r, fill)]:
            fill.turns.append(fill.as_member(self._next_replica(candidates)))

    def _wanted(self, fill: CardFill) -> Iterator[ReplicaToPlace]:
        """The models that may get a replica on this card, each as its first replica.

        The recipe allows more replicas of such a model, and the card has none.
        """
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
        trial = replace(fill, turns=[*fill.turns, fill.as_member(replica)])
        return fill.can_hold_in_turns(replica) and host_suffices(self._recipe, [*others, trial])

    def _next_replica(self, candidates: Iterable[ReplicaToPlace]) -> ReplicaToPlace:
        """Count and return one more replica of the candidate that has the most work per replica."""

        def work_per_replica(replica: ReplicaToPlace) -> tuple[float, int]:
            return self._work[replica.model] / self._counts[replica.model], -replica.order

        busiest = max(candidates, key=work_per_replica)
        number = self._counts[busiest.model]
        self._counts[busiest.model] += 1
        return replace(busiest, replica=number)
