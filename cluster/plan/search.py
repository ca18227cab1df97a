"""Pure: the search for the best placement of given models on given cards; `planner.py` asks it.
All GPUs are equally wide: single ones, or joined ones of as many GPUs each (`joining.py`).

1. Rank the models by how much they gain from staying awake: the aggregator, then the small ones; or
   just the small ones. A recipe's `residency` overrides this.
2. For each ranking and each number of residents, the most first: give residents slots of their own,
   and spread the others over one slot of turns on each card. On a CPU nobody is made resident: its
   cores are what is scarce, so all its models share one slot.
3. Of those that fit, take the one whose fullest slot has the fewest members, then the fewest that
   take turns. Sets of fewer cards are tried too, so that one more card never makes it worse.
4. A card that is left over gets replicas of the busiest models, one of each at most. On a GPU they
   are residents; where none can be, as on a CPU, they share a slot of turns.

Every replica has the whole context of each of its sequences reserved, so nothing that is planned is
ever preempted. What is left of a card stays free: the estimates have not met it yet.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from cluster.cards.card import Card, Kind
from cluster.cards.tensor_parallel import gpus_per_card
from cluster.plan.card_fill import (
    CardFill,
    ReplicaToPlace,
    finished,
    host_limit,
    parked_bytes,
    usable_bytes,
)
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.footprint import footprint
from cluster.plan.placement import Placement
from configs.schema import LlamaCppModel, Model, Recipe

MOST_CARD_SETS = 1024


def home(model: Model, cards: Sequence[Card]) -> Kind:
    """The kind of card for a model: llama.cpp goes to a CPU if one is among the cards."""
    kinds = {card.kind for card in cards}
    if isinstance(model, LlamaCppModel):
        return "cpu" if "cpu" in kinds else "gpu"
    return "gpu" if "gpu" in kinds else "cpu"


def search_placement(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cards: Sequence[Card]
) -> Placement | None:
    """The best placement, or None. Models without a checkpoint take no card."""
    units = list(_units(recipe, checkpoints, cards))
    best, best_key = None, (math.inf, math.inf)
    for chosen in _card_sets(cards):
        for drafts in _candidates(recipe, units, [(n, cards[n]) for n in chosen]):
            lengths = [len(draft.turns) for draft in drafts if len(draft.turns) > 1]
            key = (max(lengths, default=1), sum(lengths))
            if key < best_key:
                best, best_key = drafts, key
    if best is None:
        return None
    return finished(recipe, _with_replicas(recipe, units, cards, best))


def _units(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], cards: Sequence[Card]
) -> Iterator[ReplicaToPlace]:
    gpus = gpus_per_card(cards)
    for order, (name, model) in enumerate(recipe.models.items()):
        if name in checkpoints:
            kind = home(model, cards)
            calls = recipe.calls_per_answer(name)
            work = calls * checkpoints[name].read_bytes(1) / model.replicas.min
            needs = footprint(model, checkpoints[name], kind, gpus if kind == "gpu" else 1)
            for n in range(model.replicas.min):
                yield ReplicaToPlace(name, n, order, needs, work, kind)


def _card_sets(cards: Sequence[Card]) -> Iterator[list[int]]:
    """Sets of cards by number, the largest cards first; of sets that are alike just one."""
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


def _candidates(
    recipe: Recipe, units: Sequence[ReplicaToPlace], cards: Sequence[tuple[int, Card]]
) -> Iterator[list[CardFill]]:
    """Rules 1 and 2: everything that fits on these cards."""
    wants = {unit.model: recipe.models[unit.model].residency for unit in units}
    forced = [unit for unit in units if wants[unit.model] == "resident"]
    free = [unit for unit in units if wants[unit.model] == "auto" and unit.kind == "gpu"]
    for key, roomiest in product((_aggregator_first(recipe), _small_first), (False, True)):
        ranked = sorted(free, key=key)
        for count in range(len(ranked), -1, -1):
            residents = [*forced, *ranked[:count]]
            turns = [unit for unit in units if unit not in residents]
            drafts = _filled(recipe, cards, residents, turns, roomiest)
            if drafts is not None:
                yield drafts


def _filled(
    recipe: Recipe,
    cards: Sequence[tuple[int, Card]],
    residents: Sequence[ReplicaToPlace],
    turns: Sequence[ReplicaToPlace],
    roomiest: bool,
) -> list[CardFill] | None:
    for held in (True, False):
        drafts = [
            CardFill(n, card, usable_bytes(recipe, card), held and card.kind == "cpu")
            for n, card in cards
        ]
        if _fill(drafts, residents, turns, roomiest) and _host_suffices(recipe, drafts):
            return drafts
    return None


def _aggregator_first(recipe: Recipe) -> Callable[[ReplicaToPlace], tuple[float, ...]]:
    return lambda unit: (unit.model != recipe.aggregator.model, *_small_first(unit))


def _small_first(unit: ReplicaToPlace) -> tuple[float, ...]:
    return unit.bytes.awake, unit.order, unit.replica


def _fill(
    drafts: Sequence[CardFill],
    residents: Iterable[ReplicaToPlace],
    turns: Iterable[ReplicaToPlace],
    roomiest: bool,
) -> bool:
    for unit in sorted(residents, key=lambda u: (-u.bytes.awake, u.order, u.replica)):
        takers = [draft for draft in drafts if draft.takes_resident(unit)]
        room = (lambda d: -d.free()) if roomiest else (lambda _: 0)
        taker = min(takers, key=lambda d: (d.has(unit), room(d)), default=None)
        if taker is None:
            return False
        taker.residents.append(unit)
    for unit in sorted(turns, key=lambda u: (-u.work, u.order, u.replica)):
        takers = [draft for draft in drafts if draft.takes_turn(unit)]
        taker = min(takers, key=lambda d: (d.has(unit), len(d.turns), _work(d.turns)), default=None)
        if taker is None:
            return False
        taker.turns.append(unit)
    return True


def _work(units: Iterable[ReplicaToPlace]) -> float:
    return sum(unit.work for unit in units)


def _host_suffices(recipe: Recipe, drafts: Sequence[CardFill]) -> bool:
    parked = parked_bytes(drafts)
    return all(parked[draft.card.node] <= host_limit(recipe, draft.card) for draft in drafts)


def _with_replicas(
    recipe: Recipe, units: Sequence[ReplicaToPlace], cards: Sequence[Card], drafts: Sequence[CardFill]
) -> list[CardFill]:
    """Rule 4. The model with the most work per replica comes first."""
    used = {draft.number: draft for draft in drafts if draft.units}
    whole = [
        used.get(n) or CardFill(n, card, usable_bytes(recipe, card), held=card.kind == "cpu")
        for n, card in enumerate(cards)
    ]
    counts = Counter(unit.model for unit in units)
    work = {unit.model: unit.work * counts[unit.model] for unit in units}
    firsts = [unit for unit in units if unit.replica == 0]
    most = {u.model: recipe.models[u.model].replicas.max or math.inf for u in firsts}
    for draft in (draft for draft in whole if draft.number not in used):
        for resident in (True, False):
            while takers := [
                unit
                for unit in firsts
                if counts[unit.model] < most[unit.model]
                and _takes(recipe, whole, draft, unit, resident)
            ]:
                busiest = max(takers, key=lambda u: (work[u.model] / counts[u.model], -u.order))
                place = draft.residents if resident else draft.turns
                place.append(replace(busiest, replica=counts[busiest.model]))
                counts[busiest.model] += 1
    return whole


def _takes(
    recipe: Recipe, drafts: Sequence[CardFill], draft: CardFill, unit: ReplicaToPlace, resident: bool
) -> bool:
    """Whether a card that would stand idle takes one more replica of this model, as a resident or in
    its slot of turns."""
    wants, on_gpu = recipe.models[unit.model].residency, draft.card.kind == "gpu"
    if draft.has(unit):
        return False
    if resident:
        awake = wants == "resident" or (on_gpu and wants == "auto")
        return awake and draft.takes_resident(unit)
    if wants == "resident" or (on_gpu and draft.residents):
        return False
    others = [other for other in drafts if other is not draft]
    trial = replace(draft, turns=[*draft.turns, unit])
    return draft.takes_turn(unit) and _host_suffices(recipe, [*others, trial])
