"""Over how many GPUs the models of a recipe are split: as few as it takes.

Pure. All GPUs of a plan are equally wide: single ones, or joined ones of 2, 4 or 8 GPUs each.
"""

from dataclasses import replace

from cluster.cards.tensor_parallel import gpus_per_card, join_cards, unused_cards
from cluster.plan.placement import Placement
from cluster.plan.runnable import with_runnable_cards
from cluster.plan.search import search_placement
from cluster.plan.task import PlanningTask
from configs.schema import LlamaCppModel

WIDTHS = (1, 2, 4, 8)
"""Numbers of GPUs per card to try. The number of attention heads is mostly a multiple of them."""


def place_on_fewest_gpus(task: PlanningTask) -> Placement | None:
    """The best placement with as few GPUs per card as possible, or None if no width fits.

    GPUs that cannot run a model's numbers take no model.
    """
    everything = task.cards
    task = with_runnable_cards(task)
    if everything and not task.cards:
        return None
    for width in candidate_widths(task):
        if split_obstacle(task, width) is not None:
            continue
        joined = join_cards(task.cards, width)
        placement = search_placement(replace(task, cards=joined))
        if placement is not None:
            return replace(placement, left_out=unused_cards(everything, joined))
    return None


def candidate_widths(task: PlanningTask) -> tuple[int, ...]:
    """Numbers of GPUs per card to try: the recipe's, or else all of WIDTHS that the cards allow."""
    if all(card.kind == "cpu" for card in task.cards):
        return (1,)
    if task.recipe.cards.tensor_parallel is not None:
        return (task.recipe.cards.tensor_parallel,)
    return tuple(w for w in WIDTHS if w == 1 or gpus_per_card(join_cards(task.cards, w)) == w)


def split_obstacle(task: PlanningTask, width: int) -> str | None:
    """The reason why the models cannot be split over `width` GPUs, or None if they can."""
    if width == 1:
        return None
    if gpus_per_card(join_cards(task.cards, width)) < width:
        return f"no node has {width} GPUs that are alike"
    for name, checkpoint in task.checkpoints.items():
        # llama.cpp puts whole layers on each GPU, so nothing has to divide.
        is_layered = isinstance(task.recipe.models[name], LlamaCppModel)
        if not is_layered and not checkpoint.can_split(width):
            return (
                f"{name} has {checkpoint.heads} attention heads, {checkpoint.kv_heads} of keys and "
                f"values, and a feed-forward width of {checkpoint.ffn}, which do not divide evenly"
            )
    return None
