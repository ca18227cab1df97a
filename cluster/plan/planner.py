"""Turns a `PlanningTask` into a `Placement`, or into an error with changes that would fit. Pure.

Models that fit on no single GPU are split over 2, 4 or 8 GPUs of a node, as few as it takes
(`widths.py`). `search.py` has the rules by which placements are compared.
"""

import math
from collections.abc import Iterator, Sequence

from cluster.cards.card import Card
from cluster.cards.tensor_parallel import join_cards
from cluster.plan.advice import Advice, find_advice
from cluster.plan.card_fill import host_limit, usable_bytes
from cluster.plan.footprint import Footprint, gib, kv_cache_tokens
from cluster.plan.placement import Placement
from cluster.plan.runnable import obstacles
from cluster.plan.task import FindWeights, PlanningTask, planning_task
from cluster.plan.widths import candidate_widths, place_on_fewest_gpus, split_obstacle
from configs.errors import UserError
from configs.schema import Recipe


class DoesNotFit(UserError):
    """The models do not fit on the cards. `advice` has changes with which they fit; it may be empty."""

    def __init__(self, message: str, *, advice: tuple[Advice, ...] = ()) -> None:
        super().__init__(message)
        self.advice = advice


class CannotRun(UserError):
    """None of the GPUs can run the numbers of a model's weights; the message says which and why."""


def plan(task: PlanningTask) -> Placement:
    """Place every model that has a checkpoint. The others take no card.

    Raises:
        CannotRun: no GPU can run the numbers of all models.
        DoesNotFit: no placement has room for all models, not even in turns.
    """
    reasons = obstacles(task)
    if reasons:
        raise CannotRun("\n".join(reasons))
    placement = place_on_fewest_gpus(task)
    if placement is not None:
        return placement
    advice = tuple(find_advice(task))
    lines = [*_sums(task), *_split_sums(task)]
    if not any(a.changes for a in advice):
        lines.append("Fewer sequences or shorter contexts are not enough.")
    lines += [f"It fits {a.text}." for a in advice]
    raise DoesNotFit("\n".join(lines), advice=advice)


def plan_recipe(
    recipe: Recipe, cards: Sequence[Card], find_weights: FindWeights | None = None
) -> Placement:
    """Place the models of `recipe` on `cards`. The arguments are those of `planning_task`.

    Raises:
        DoesNotFit: no placement has room for all models, not even in turns.
        UnknownCheckpoint: no file and no bundled shape tells how large a model is.
    """
    return plan(planning_task(recipe, cards, find_weights))


def _sums(task: PlanningTask) -> Iterator[str]:
    """A line for each model with the bytes that it needs, and for each card with those that it has."""
    yield f"The models of {task.recipe.name!r} do not fit, not even if they take turns."
    for name in task.checkpoints:
        needs = task.footprint(name)
        runtime = needs.activations + needs.residue
        yield (
            f"  {name}: {gib(needs.awake)} = weights {gib(needs.weights)} + KV {gib(needs.kv)} "
            f"({kv_cache_tokens(task.recipe.models[name])} tokens) + runtime {gib(runtime)}; "
            f"{_while_loading(needs)}"
            f"asleep {gib(needs.asleep)} on the card and {gib(needs.parked)} of host RAM"
        )
    for card in task.cards:
        limit = host_limit(task.recipe, card)
        host = "" if limit == math.inf else f", and {gib(limit)} of host RAM for its engines"
        yield f"  {card.name}: {gib(usable_bytes(task.recipe, card))} of {gib(card.total_bytes)}{host}"
    yield from (
        f"  {remark}" for remark in dict.fromkeys(r for card in task.cards for r in card.remarks)
    )


def _while_loading(needs: Footprint) -> str:
    """What a model needs while it starts, if that is more than it needs awake."""
    return f"{gib(needs.loading)} while it starts; " if needs.loading > needs.awake else ""


def _split_sums(task: PlanningTask) -> Iterator[str]:
    """For each width, the bytes of joined GPUs, or the reason why models cannot be split over them."""
    for width in candidate_widths(task):
        if width == 1:
            continue
        if obstacle := split_obstacle(task, width):
            yield f"They cannot be split over {width} GPUs: {obstacle}."
            continue
        names = [name for name in task.checkpoints if task.kind(name) == "gpu"]
        needs = ", ".join(f"{name} {gib(task.footprint(name, width).peak)}" for name in names)
        gpus = {card.name: card for card in join_cards(task.cards, width) if card.kind == "gpu"}
        has = ", ".join(f"{n} has {gib(usable_bytes(task.recipe, c))}" for n, c in gpus.items())
        yield f"Nor split over {width} GPUs, where the runtime counts on each: {needs}; {has}."
