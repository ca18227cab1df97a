"""Which file or folder has the weights of a model, for the planner."""

from pathlib import Path

from actors.weights.files import cached, fetch
from actors.weights.folders import folder_here
from configs.schema import LlamaCppModel, Model, VllmModel


def find_weights(_name: str, model: Model) -> Path | None:
    """The file or folder of a model's weights if it is on this machine; nothing is fetched."""
    if isinstance(model, LlamaCppModel):
        return cached(model.weights)
    return folder_here(model.weights) if isinstance(model, VllmModel) else None


def fetch_weights(name: str, model: Model) -> Path | None:
    """The file or folder of a model's weights. A single file is fetched, because a plan needs its size.

    A folder is not fetched: a plan only needs its shape, which is bundled or lies in a local folder.

    Raises:
        WeightsError: a file cannot be fetched.
    """
    if isinstance(model, LlamaCppModel):
        return fetch(name, model.weights)
    return find_weights(name, model)
