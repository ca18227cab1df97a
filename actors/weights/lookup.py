"""For the planner: finds the file or folder with the weights of a model."""

from pathlib import Path

from actors.weights.files import cached, fetch
from actors.weights.folders import folder_here
from configs.schema import LlamaCppModel, Model, VllmModel


def find_weights(_name: str, model: Model) -> Path | None:
    """The file or folder with a model's weights; None if this machine has none. Fetches nothing."""
    if isinstance(model, LlamaCppModel):
        return cached(model.weights)
    return folder_here(model.weights) if isinstance(model, VllmModel) else None


def fetch_weights(name: str, model: Model) -> Path | None:
    """The file or folder with a model's weights, or None as from `find_weights`.

    A single file is fetched, because a plan needs its size. A folder is not fetched: a plan only needs
    the model's shape, which is bundled or read from a local folder.

    Raises:
        WeightsError: the file cannot be fetched.
    """
    if isinstance(model, LlamaCppModel):
        return fetch(name, model.weights)
    return find_weights(name, model)
