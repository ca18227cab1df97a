"""The input of a plan: a recipe, facts about the weights of its models, and cards.

`PlanningTask` is plain data. The functions gather it: from files that are on this machine, from the
shapes that are bundled with the project, and from cards that were detected or that the recipe names.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.cards.card import Card, Kind
from cluster.cards.catalog import card_by_name
from cluster.plan.checkpoint import (
    Checkpoint,
    UnknownCheckpoint,
    from_folder,
    from_gguf,
    from_shapes,
    scripted_checkpoint,
)
from cluster.plan.footprint import Footprint, footprint
from cluster.plan.gguf_shapes import from_gguf_shapes
from cluster.plan.vllm_extras import with_adapters, with_draft
from configs.schema import LlamaCppModel, Model, Recipe, ScriptedModel, VllmModel
from configs.vllm import Adapter
from configs.weights import FolderSource, HubFolder, LocalFolder, WeightsSource

MAIN_REVISION = "main"
"""The revision of a repository whose shape may be bundled."""
FindWeights = Callable[[str, Model | Adapter], Path | Checkpoint | None]
"""Takes the name and the settings of a model or an adapter; returns the file or folder of its weights,
or what is known of them, or None."""


@dataclass(frozen=True, slots=True)
class PlanningTask:
    """The question that the planner answers: where do these models go on these cards?"""

    recipe: Recipe
    checkpoints: Mapping[str, Checkpoint]
    """Facts about weights, by model. A model without a checkpoint takes no card."""
    cards: Sequence[Card]

    def kind(self, model: str) -> Kind:
        """The kind of card that a model goes to, if there is one: for llama.cpp a CPU, else a GPU.

        A model of llama.cpp with a number of `gpu_layers` goes to a GPU too.
        """
        kinds = {card.kind for card in self.cards}
        settings = self.recipe.models[model]
        if isinstance(settings, LlamaCppModel) and settings.gpu_layers in ("auto", 0):
            return "cpu" if "cpu" in kinds else "gpu"
        return "gpu" if "gpu" in kinds else "cpu"

    def footprint(self, model: str, gpus: int = 1) -> Footprint:
        """The footprint of one replica on a card that `gpus` GPUs form.

        If the cards have different compute capabilities, the largest footprint.
        """
        settings, checkpoint, kind = (
            self.recipe.models[model],
            self.checkpoints[model],
            self.kind(model),
        )
        capabilities = {card.capability for card in self.cards if card.kind == kind} or {None}
        found = [footprint(settings, checkpoint, kind, gpus, each) for each in capabilities]
        return max(found, key=lambda each: each.peak)


def planning_task(
    recipe: Recipe, cards: Sequence[Card], find_weights: FindWeights | None = None
) -> PlanningTask:
    """The task of planning `recipe` on `cards`.

    Args:
        recipe: the recipe.
        cards: the cards to plan for.
        find_weights: finds weights on this machine. The default finds those with a path in the recipe.

    Raises:
        UnknownCheckpoint: no file and no bundled shape tells how large a model is.
    """
    return PlanningTask(recipe, read_checkpoints(recipe, find_weights), cards)


def choose_cards(recipe: Recipe, found: Sequence[Card]) -> list[Card]:
    """The cards that the recipe names, put on the first node of `found`; without names, all of `found`.

    Raises:
        UnknownCard: the recipe names a card that the catalog does not have.
    """
    if not recipe.cards.names:
        return list(found)
    node = found[0].node if found else ""
    return [replace(card_by_name(name, n), node=node) for n, name in enumerate(recipe.cards.names)]


def read_checkpoints(recipe: Recipe, find_weights: FindWeights | None = None) -> dict[str, Checkpoint]:
    """Facts about the weights of all models that have weights, by model.

    Raises:
        UnknownCheckpoint: no file and no bundled shape tells how large a model is.
    """
    find = find_weights or _find_local_path
    found = {name: _read_checkpoint(name, model, find) for name, model in recipe.models.items()}
    return {name: checkpoint for name, checkpoint in found.items() if checkpoint is not None}


def _read_checkpoint(name: str, model: Model, find: FindWeights) -> Checkpoint | None:
    """Facts about one model's weights; None if it has no weights."""
    found = _read_own(name, model, find)
    draft = model.draft_model if isinstance(model, LlamaCppModel) else None
    if found is None or draft is None:
        return found
    return replace(found, draft=_read_own(f"{name} (draft)", draft, find))


def _read_own(name: str, model: Model, find: FindWeights) -> Checkpoint | None:
    """Facts about one model's weights without those of its draft model."""
    if isinstance(model, ScriptedModel) and model.weight_bytes is not None:
        return scripted_checkpoint(model.weight_bytes)
    if not isinstance(model, LlamaCppModel | VllmModel):
        return None
    checkpoint = _read_weights(name, model, find)
    return _with_extras(name, model, checkpoint, find) if isinstance(model, VllmModel) else checkpoint


def _with_extras(name: str, model: VllmModel, checkpoint: Checkpoint, find: FindWeights) -> Checkpoint:
    """The checkpoint with the facts about adapters, and about the weights that guess tokens."""

    def find_adapter(adapter: str, settings: Adapter) -> Path | None:
        folder = find(adapter, settings)
        return folder if isinstance(folder, Path) else None

    draft = model.draft_model
    guesser = None if draft is None else _read_weights(name, draft, find)
    return with_adapters(name, model, with_draft(name, model, checkpoint, guesser), find_adapter)


def _read_weights(name: str, model: LlamaCppModel | VllmModel, find: FindWeights) -> Checkpoint:
    found = find(name, model)
    if isinstance(found, Checkpoint):
        return found
    if found is not None:
        return from_gguf(found) if found.is_file() else from_folder(found)
    for source in model.weights:
        if (shape := bundled_shape(source)) is not None:
            return shape
    if isinstance(model, LlamaCppModel):
        raise UnknownCheckpoint(
            f"how large model {name!r} is cannot be told before its file is here: "
            "run `slimmoa models RECIPE --fetch`"
        )
    raise UnknownCheckpoint(
        f"how large model {name!r} is cannot be told: its folder is not here, and no shape of it is "
        "bundled"
    )


def bundled_shape(source: WeightsSource | FolderSource) -> Checkpoint | None:
    """The shape of a folder of the Hub, or of a GGUF file, that is bundled with the project, or None.

    Other revisions of a folder than the main one may hold other weights, such as other bits, so they
    have none.
    """
    if isinstance(source, HubFolder):
        return from_shapes(source.hub) if source.revision == MAIN_REVISION else None
    return None if isinstance(source, LocalFolder) else from_gguf_shapes(source)


def _find_local_path(_name: str, model: Model | Adapter) -> Path | None:
    for source in getattr(model, "weights", ()):
        path = Path(getattr(source, "path", ""))
        if getattr(source, "path", None) and path.exists():
            return path
    return None
