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
    """Fetch the file of a model's weights and return its path: a plan needs the size of the file.

    Weights in a folder are not fetched. A plan only needs the model's dimensions, which are bundled
    with the project or lie in a local folder. So this returns the local folder, or None without a local
    folder. It also returns None for a model that has no weights here.

    Args:
        name: the model's name in the recipe, for error messages.
        model: the model's settings.

    Raises:
        WeightsError: the file cannot be fetched.
    """
    if isinstance(model, LlamaCppModel):
        return fetch(name, model.weights)
    return find_weights(name, model)
