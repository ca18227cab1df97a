"""Which cards can run the numbers of the models' weights. Pure but for `recipe_obstacles`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cluster.cards.card import Card
from cluster.plan.checkpoint import UnknownCheckpoint
from cluster.plan.lora import BadAdapter
from cluster.plan.quantization import refusal, settings_refusal, settings_remark
from cluster.plan.task import FindWeights, PlanningTask, choose_cards, read_checkpoints
from cluster.plan.vllm_extras import AbsentAdapter, CannotSpeculate
from configs.schema import Model, Recipe, VllmModel


def with_runnable_cards(task: PlanningTask) -> PlanningTask:
    """The task without the GPUs on which vLLM cannot run all of its models."""
    return replace(task, cards=[card for card in task.cards if not _reasons(task, card)])


def obstacles(task: PlanningTask) -> list[str]:
    """For each model, why none of the GPUs can run it; empty if one of them can run all models."""
    gpus = [card for card in task.cards if card.kind == "gpu"]
    reasons = [_reasons(task, card) for card in gpus]
    if not gpus or not all(reasons):
        return []
    return list(dict.fromkeys(line for lines in reasons for line in lines))


def recipe_obstacles(recipe: Recipe, found: Sequence[Card], find: FindWeights) -> list[str]:
    """Why models of a recipe cannot be understood or run, as far as their files are on this machine.

    Args:
        recipe: the recipe.
        found: the cards of this machine, which count where the recipe names none.
        find: finds weights on this machine.

    Raises:
        UnknownCard: the recipe names a card that the catalog does not have.
    """
    cards = [card for card in choose_cards(recipe, found) if card.kind == "gpu"]
    lines: list[str] = []
    for name, model in recipe.models.items():
        alone = recipe.model_copy(update={"models": {name: model}})
        refused = _settings(name, model, cards)
        lines += refused
        try:
            task = PlanningTask(alone, read_checkpoints(alone, find), cards)
        except AbsentAdapter:
            continue
        except (BadAdapter, CannotSpeculate) as error:
            lines.append(str(error))
            continue
        except UnknownCheckpoint as error:
            if _is_known(find, name, model):  # else its files are not here yet
                lines.append(f"model {name!r}: {error}")
            continue
        if not refused:
            lines += obstacles(task) if cards else _methods(task, model)
    return lines


def _settings(name: str, model: Model, cards: Sequence[Card]) -> list[str]:
    """Why none of the cards can run a model with its settings; empty if one of them can."""
    if not isinstance(model, VllmModel):
        return []
    reasons = {card.name: settings_refusal(model, card.capability) for card in cards}
    if not reasons or not all(reasons.values()):
        return []
    return [f"model {name!r} cannot run on {card}: {reason}" for card, reason in reasons.items()]


def setting_remarks(recipe: Recipe, cards: Sequence[Card]) -> Iterator[str]:
    """What a person should know of settings of models on the cards that the recipe would have."""
    gpus = {card.name: card for card in choose_cards(recipe, cards) if card.kind == "gpu"}
    for name, model in recipe.models.items():
        for card in gpus.values():
            if isinstance(model, VllmModel):
                remark = settings_remark(model, card.capability)
                if remark is not None:
                    yield f"model {name!r} on {card.name}: {remark}"


def _is_known(find: FindWeights, name: str, model: Model) -> bool:
    draft = model.draft_model if isinstance(model, VllmModel) else None
    try:
        return find(name, model) is not None and (draft is None or find(name, draft) is not None)
    except UnknownCheckpoint:
        return True


def _methods(task: PlanningTask, model: Model) -> Iterator[str]:
    """Models whose numbers vLLM runs on no GPU at all."""
    if isinstance(model, VllmModel):
        for name, checkpoint in task.checkpoints.items():
            reason = refusal(checkpoint, None)
            if reason is not None:
                yield f"model {name!r} cannot run: {reason}"


def _reasons(task: PlanningTask, card: Card) -> list[str]:
    """Why the card cannot run models of the task."""
    if card.kind != "gpu":
        return []
    found = []
    for name, checkpoint in task.checkpoints.items():
        model = task.recipe.models[name]
        if isinstance(model, VllmModel):
            reason = settings_refusal(model, card.capability) or refusal(checkpoint, card.capability)
            if reason is not None:
                found.append(f"model {name!r} cannot run on {card.name}: {reason}")
    return found
