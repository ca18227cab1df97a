"""Which cards can run the numbers of the models' weights. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from cluster.cards.card import Card
from cluster.plan.quantization import refusal
from cluster.plan.task import PlanningTask
from configs.schema import VllmModel


def with_runnable_cards(task: PlanningTask) -> PlanningTask:
    """The task without the GPUs on which vLLM cannot run all of its models."""
    return replace(task, cards=[card for card in task.cards if not _reasons(task, card)])


def obstacles(task: PlanningTask) -> list[str]:
    """For each model, why none of the GPUs can run it; empty if one of them can run all models."""
    gpus = [card for card in task.cards if card.kind == "gpu"]
    reasons = [_reasons(task, card) for card in gpus]
    if not gpus or not all(reasons):
        return []
    return _unlike([line for lines in reasons for line in lines])


def _reasons(task: PlanningTask, card: Card) -> list[str]:
    """Why the card cannot run models of the task."""
    if card.kind != "gpu":
        return []
    found = []
    for name, checkpoint in task.checkpoints.items():
        if isinstance(task.recipe.models[name], VllmModel):
            reason = refusal(checkpoint, card.capability)
            if reason is not None:
                found.append(f"model {name!r} cannot run on {card.name}: {reason}")
    return found


def _unlike(lines: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(lines))
