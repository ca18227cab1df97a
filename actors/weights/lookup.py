"""The weights of a recipe's models: where they are, what a plan knows of them, what is missing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.weights.absent import why_no_file
from actors.weights.adapters import adapter_here, fetch_adapter
from actors.weights.allowed_folders import is_allowed
from actors.weights.choice import weights_here
from actors.weights.download import Report, gigabytes, silent
from actors.weights.files import cached, fetch, here
from actors.weights.folders import fetch_folder, find_download, folder_here, require_here
from actors.weights.gguf_headers import fetch_gguf, gguf_known
from actors.weights.headers import fetch_headers, headers_here
from actors.weights.repository import FolderDownload, require_space_for, saved_download
from cluster.plan.advised_sampling import advised_sampling
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.gguf import file_bytes
from cluster.plan.gguf_shapes import bundled_file_bytes
from cluster.plan.task import bundled_shape
from configs.errors import WeightsError
from configs.schema import LlamaCppModel, Model, Recipe, VllmModel
from configs.vllm import Adapter
from configs.weights import HubFile, HubFolder, LocalFile, LocalFolder


def known_weights(model: VllmModel) -> Path | Checkpoint | None:
    """What this machine knows of a model's folder; None if that is nothing. Asks nobody.

    These are tried, each for all sources:

    1. The folder itself, in the recipe's path or in the cache of the Hub's client.
    2. Headers that an earlier plan has fetched.
    3. The shape that is bundled with the project.

    Raises:
        UnknownCheckpoint: the kept headers cannot be understood; the message names the key.
    """
    if (folder := folder_here(model.weights)) is not None:
        return folder
    hubs = [source for source in model.weights if isinstance(source, HubFolder)]
    known = (found for source in hubs if (found := headers_here(source)) is not None)
    bundled = (found for source in hubs if (found := bundled_shape(source)) is not None)
    return next(known, None) or next(bundled, None)


def find_here(_name: str, model: Model | Adapter) -> Path | Checkpoint | None:
    """What `find_weights` returns, as far as this machine knows without asking anybody, or None.

    Raises:
        UnknownCheckpoint: what is here cannot be understood; the message names the key.
    """
    if isinstance(model, Adapter):
        return adapter_here(model.weights)
    if isinstance(model, LlamaCppModel):
        return here(model.weights) or gguf_known(model.weights)
    return known_weights(model) if isinstance(model, VllmModel) else None


def find_weights(name: str, model: Model | Adapter) -> Path | Checkpoint | None:
    """What tells a plan how large a model is: its file or folder, or what is known of it.

    For a folder that is `known_weights`, and then the Hub, which is asked for headers. For a GGUF file
    it is the file, its header as an earlier plan has fetched it, and then the Hub too. The bundled
    shapes come before the Hub, because a plan of a preset then needs no network and gives the same
    answer everywhere; a test holds them to the arithmetic of their formats. They come after what is on
    this machine, because real headers are exact.

    Args:
        name: the model's name in the recipe, for error messages.
        model: the model's settings.

    Returns:
        The file or folder, or the checkpoint by its headers or shape. None for a model without
        weights, and for a file that is not here.

    Raises:
        WeightsError: nothing tells how large the model is; the message names the cause of each failure.
        UnknownCheckpoint: the checkpoint at the Hub cannot be understood; the message names the key.
    """
    if isinstance(model, Adapter):
        return fetch_adapter(name, model.weights)
    if isinstance(model, LlamaCppModel):
        return _find_file(name, model) or gguf_known(model.weights) or _ask_header(name, model)
    if not isinstance(model, VllmModel):
        return None
    if (known := known_weights(model)) is not None:
        return known
    causes = []
    for each in model.weights:
        try:
            return fetch_headers(each) if isinstance(each, HubFolder) else require_here(each)
        except (WeightsError, OSError) as error:
            causes.append(f"{each.hub if isinstance(each, HubFolder) else each.path}: {error}")
    message = f"how large model {name!r} is cannot be told: {'; '.join(causes)}"
    raise WeightsError(message, model=name)


def fetch_weights(name: str, model: Model | Adapter) -> Path | Checkpoint | None:
    """What `find_weights` returns, after the file of a llama.cpp model has been fetched.

    Folders are not fetched: a plan needs their headers only.

    Args:
        name: the model's name in the recipe, for error messages.
        model: the model's settings.

    Raises:
        WeightsError: the file cannot be fetched, or nothing tells how large the model is.
    """
    if isinstance(model, LlamaCppModel):
        return fetch(name, model.weights)
    return find_weights(name, model)


def bring_here(name: str, model: Model, report: Report = silent) -> None:
    """Fetch all that the engine of a model reads, if it is not on this machine.

    Args:
        name: the model's name in the recipe, for error messages.
        model: the model's settings.
        report: is called with the progress of downloads and checksums.

    Raises:
        WeightsError: no source delivered the weights; the message names the cause of each failure.
    """
    if isinstance(model, LlamaCppModel):
        for each, file in _with_draft(name, model):
            fetch(each, file.weights, report)
    elif isinstance(model, VllmModel):
        fetch_folder(name, model.weights, **_wanted(model), report=report)
        if (draft := model.draft_model) is not None:
            fetch_folder(name, draft.weights, **_wanted(draft), report=report)
        for adapter, settings in model.adapters.items():
            fetch_adapter(adapter, settings.weights)


def is_whole(model: VllmModel) -> bool:
    """Whether all that the engine of a model reads is on this machine."""
    draft = model.draft_model
    return (
        engine_folder(model) is not None
        and (draft is None or engine_folder(draft) is not None)
        and all(adapter_here(each.weights) is not None for each in model.adapters.values())
    )


def engine_folder(model: VllmModel) -> Path | None:
    """The folder that a model's engine reads, if it is whole on this machine. Fetches nothing."""
    return folder_here(model.weights, **_wanted(model))


def advised_here(model: Model) -> dict[str, Any] | None:
    """The sampling that a model's makers advise, as its files on this machine say.

    Returns:
        The values by name, none if the files advise nothing. None if the files are not here, or the
        model has none.

    Raises:
        UnknownCheckpoint: the files cannot be read, or a value is not allowed.
    """
    weights: Path | None = None
    if isinstance(model, LlamaCppModel):
        weights = here(model.weights)
    elif isinstance(model, VllmModel):
        weights = folder_here(model.weights, weights=False)
    return None if weights is None else advised_sampling(weights)


def find_downloads(recipe: Recipe) -> dict[str, FolderDownload]:
    """What has to be downloaded of the Hub's folders before a recipe's engines can start, by model.

    Raises:
        WeightsError: no source can deliver a folder, or the disk has no room for all of them.
    """
    found = {
        name: find_download(name, model.weights, **_wanted(model))
        for name, model in recipe.models.items()
        if isinstance(model, VllmModel)
    }
    downloads = {name: download for name, download in found.items() if download is not None}
    require_space_for(downloads.values())
    return downloads


@dataclass(frozen=True, slots=True)
class WeightsState:
    """Whether a model's weights are on this machine, as far as that can be told without a network."""

    here: bool
    size_bytes: int | None
    """Bytes of weights that are here, or else bytes to fetch; None if that is unknown. 0 for a folder
    that serves random weights."""
    can_fetch: bool = True
    """Whether the recipe names a source that they can be fetched from, and not only paths."""

    def __str__(self) -> str:
        if not self.size_bytes:
            return "here" if self.here else "not here yet" if self.can_fetch else "not here"
        return f"{gigabytes(self.size_bytes)} {'here' if self.here else 'to fetch'}"


def learn_size(name: str, model: Model) -> None:
    """Ask the Hub how large the folder of a model is, unless that is known. `weights_state` tells then.

    Raises:
        WeightsError: the Hub cannot be reached or refuses, or the folder is of no use.
    """
    state = weights_state(model)
    if (
        isinstance(model, VllmModel)
        and state is not None
        and not state.here
        and state.size_bytes is None
    ):
        find_download(name, model.weights, **_wanted(model))


def why_not_here(model: Model) -> str:
    """Why the paths of a model are not its weights; "" for a model that names none."""
    sources = model.weights if isinstance(model, LlamaCppModel | VllmModel) else ()
    causes = []
    for source in sources:
        if isinstance(source, LocalFolder):
            causes.append(f"{source.path}: {_why_no_folder(source)}")
        elif isinstance(source, LocalFile):
            absent = [Path(p.path) for p in source.pieces if not Path(p.path).is_file()]
            causes += [f"{path}: {why_no_file(path)}" for path in absent]
    return "; ".join(causes)


def _why_no_folder(source: LocalFolder) -> str:
    try:
        require_here(source)
    except (WeightsError, OSError) as error:
        return str(error)
    return "something of it is missing"


def weights_states(recipe: Recipe) -> dict[str, WeightsState]:
    """`weights_state` of each model that has weights."""
    states = {name: weights_state(model) for name, model in recipe.models.items()}
    return {name: state for name, state in states.items() if state is not None}


def weights_state(model: Model) -> WeightsState | None:
    """Whether a model's weights are here, and how many bytes; None for a model without weights."""
    if isinstance(model, LlamaCppModel):
        return _state_of_files([each for _, each in _with_draft("", model)])
    if not isinstance(model, VllmModel):
        return None
    if (folder := engine_folder(model)) is not None:
        if not is_whole(model):  # an adapter, or what guesses tokens, is missing
            return WeightsState(False, None)
        files = weights_here(folder) if model.load_format != "dummy" else ()
        return WeightsState(True, sum(file.stat().st_size for file in files))
    for source in model.weights:
        if isinstance(source, HubFolder):
            if (known := saved_download(source, code=model.trust_remote_code)) is not None:
                return WeightsState(False, known.missing_bytes)
            if (shape := bundled_shape(source)) is not None:
                return WeightsState(False, shape.weight_bytes)
    remote = any(isinstance(source, HubFolder) for source in model.weights)
    return WeightsState(False, None, remote)


def _state_of_files(models: list[LlamaCppModel]) -> WeightsState:
    """Whether the files of all these models are here, and their bytes if all of them are known."""
    paths = [here(model.weights) for model in models]
    sizes = [_bytes_of_file(model, path) for path, model in zip(paths, models, strict=True)]
    can_fetch = all(
        path is not None or not all(isinstance(source, LocalFile) for source in model.weights)
        for path, model in zip(paths, models, strict=True)
    )
    known = [size for size in sizes if size is not None]
    total = sum(known) if len(known) == len(sizes) else None
    return WeightsState(None not in paths, total, can_fetch)


def _bytes_of_file(model: LlamaCppModel, path: Path | None) -> int | None:
    """Bytes of a model's file that is here, or of one whose shape is bundled; None if unknown."""
    if path is not None:
        return file_bytes(path)
    return next(filter(None, map(bundled_file_bytes, model.weights)), None)


def needs_fetch(model: Model) -> bool:
    """Whether a model has files that are not on this machine. Folders do not count."""
    return isinstance(model, LlamaCppModel) and any(
        cached(file.weights) is None for _, file in _with_draft("", model)
    )


def _with_draft(name: str, model: LlamaCppModel) -> list[tuple[str, LlamaCppModel]]:
    """The model and, if it has one, its draft model, each with a name for messages."""
    draft = model.draft_model
    return [(name, model)] if draft is None else [(name, model), (f"{name} (draft)", draft)]


def _wanted(model: VllmModel) -> dict[str, bool]:
    """Which parts of the folder an engine reads. For random weights (`dummy`) no real ones."""
    return {"weights": model.load_format != "dummy", "code": model.trust_remote_code}


def _ask_header(name: str, model: LlamaCppModel) -> Checkpoint | None:
    """The checkpoint by the header of a GGUF file at the Hub.

    None if a shape of the file is bundled, or if the recipe has no source at the Hub that answers but
    another one.

    Raises:
        WeightsError: the recipe has no other source, and the Hub cannot be reached or refuses.
        UnknownCheckpoint: the header cannot be understood; the message names the key.
    """
    if any(bundled_shape(source) is not None for source in model.weights):
        return None
    hubs = [source for source in model.weights if isinstance(source, HubFile)]
    causes = []
    for source in hubs:
        try:
            return fetch_gguf(source)
        except WeightsError as error:
            causes.append(f"{source.hub}: {error.message}")
    if not causes or len(hubs) < len(model.weights):
        return None
    message = f"how large model {name!r} is cannot be told: {'; '.join(causes)}"
    raise WeightsError(message, model=name)


def _find_file(name: str, model: LlamaCppModel) -> Path | None:
    if (file := here(model.weights)) is not None:
        return file
    local = [source for source in model.weights if isinstance(source, LocalFile)]
    if len(local) < len(model.weights):
        return None
    paths = [Path(piece.path) for source in local for piece in source.pieces]
    absent = [path for path in paths if not (path.is_file() and is_allowed(path))]
    causes = "; ".join(f"{path}: {why_no_file(path)}" for path in absent)
    raise WeightsError(f"how large model {name!r} is cannot be told: {causes}", model=name)
