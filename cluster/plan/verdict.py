"""Whether a recipe fits on cards, in a few words for people: `slimmoa presets` shows one line for each.

Pure. The planner decides; this file puts the answer into words and finds the least memory that fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from cluster.cards.card import GIB, Card
from cluster.plan.footprint import gib
from cluster.plan.placement import Placement
from cluster.plan.predict import predict
from cluster.plan.runnable import obstacles
from cluster.plan.task import FindWeights, PlanningTask, planning_task
from cluster.plan.widths import place_on_fewest_gpus
from configs.errors import UserError
from configs.schema import Recipe

MOST_MEMORY = 2048 * GIB
"""Largest memory of a card that is tried to say what a recipe needs."""
NOT_HERE = "cannot be told"
"""Part of the error of a plan that knows nothing of some weights."""
STEP = GIB
"""A need is told to so many bytes."""


class Fit(IntEnum):
    """How well a recipe suits cards; a lower number is better."""

    AWAKE = 0
    """Every model keeps its memory all the time."""
    TURNS = 1
    """Models take turns, and the others sleep or are stopped meanwhile."""
    SLOW = 2
    """The models fit, but the recipe's own deadline ends before an answer would be complete."""
    NO = 3
    """The models do not fit, or none of the cards can run their numbers."""
    UNKNOWN = 4
    """Nothing here tells how large the models are."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a plan of a recipe says, in words."""

    fit: Fit
    words: str
    """One line."""
    answer_s: float | None = None
    """Predicted seconds of one answer; None if there is no prediction."""


def judge(recipe: Recipe, cards: Sequence[Card], find_weights: FindWeights) -> Verdict:
    """Plan a recipe on cards, and say in one line whether it fits and how fast it answers.

    Args:
        recipe: the recipe.
        cards: the cards.
        find_weights: what is known of the weights, as for `planning_task`.
    """
    try:
        task = planning_task(recipe, cards, find_weights)
    except UserError as error:
        cause = "its weights are not here" if NOT_HERE in str(error) else str(error).splitlines()[0]
        return Verdict(Fit.UNKNOWN, f"cannot be planned: {cause}")
    return judge_task(task)


def judge_task(task: PlanningTask) -> Verdict:
    """What `judge` says, for a recipe whose weights are known."""
    reasons = obstacles(task)
    if reasons:
        return Verdict(Fit.NO, f"does not run: {reasons[0]}")
    placement = place_on_fewest_gpus(task)
    if placement is None:
        return Verdict(Fit.NO, _need(task))
    if not placement.replicas():
        return Verdict(Fit.AWAKE, "takes no card")
    return _of_placement(task, placement)


def duration(seconds: float) -> str:
    """Seconds in words for people, rounded."""
    if seconds < 99.5:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} minutes"


def is_awake(placement: Placement) -> bool:
    """Whether every model keeps its memory all the time.

    Models on a CPU use its cores in turns, but they stay loaded in its RAM.
    """
    slots = [(each.card, slot) for each in placement.cards for slot in each.slots]
    return all(
        not slot.takes_turns or (card.kind == "cpu" and slot.keeps_loaded) for card, slot in slots
    )


def _of_placement(task: PlanningTask, placement: Placement) -> Verdict:
    prediction = predict(task, placement)
    seconds = None if prediction is None else prediction.answer_s
    speed = "" if seconds is None else f", {duration(seconds)} an answer"
    limit = task.recipe.limits.deadline_s
    if seconds is not None and seconds > limit:
        words = f"too slow here{speed}, and it gives up after {duration(limit).removeprefix('about ')}"
        return Verdict(Fit.SLOW, words, seconds)
    if is_awake(placement):
        on_cpu = all(each.card.kind == "cpu" for each in placement.cards if each.slots)
        return Verdict(Fit.AWAKE, f"fits, all {'loaded' if on_cpu else 'awake'}{speed}", seconds)
    restarts = ", some models are started from disk each time" if placement.stoppers else ""
    return Verdict(Fit.TURNS, f"takes turns{speed}{restarts}", seconds)


def _need(task: PlanningTask) -> str:
    """Why nothing fits: the least memory of such cards with which the models fit, or fit in turns."""
    kind = max({card.kind for card in task.cards} or {"cpu"})
    used = [card for card in task.cards if card.kind == kind]
    if not used:
        return "does not fit: there is no card"
    has = min(card.total_bytes for card in used)
    what = "the machine" if kind == "cpu" else "the card" if len(used) == 1 else "each card"
    needed = _least_bytes(task, has)
    if needed is None:
        return f"does not fit on such cards ({what} has {gib(has)})"
    return f"does not fit: needs {-(-needed // GIB)} GiB, {what} has {gib(has)}"


def _least_bytes(task: PlanningTask, too_few: int) -> int | None:
    """The least memory of each card, to a step of `STEP`, with which a placement exists; or None."""
    low, high = too_few, 2 * too_few
    while not _fits_with(task, high):
        if high >= MOST_MEMORY:
            return None
        low, high = high, 2 * high
    while high - low > STEP:
        middle = (low + high) // 2
        if _fits_with(task, middle):
            high = middle
        else:
            low = middle
    return high


def _fits_with(task: PlanningTask, total_bytes: int) -> bool:
    cards = [_with_memory(card, total_bytes) for card in task.cards]
    return place_on_fewest_gpus(replace(task, cards=cards)) is not None


def _with_memory(card: Card, total_bytes: int) -> Card:
    """The card with other memory, all of which is free. The RAM of a CPU is its host's RAM too."""
    host = total_bytes if card.kind == "cpu" else card.host_bytes
    return replace(card, total_bytes=total_bytes, free_bytes=None, host_bytes=host)
