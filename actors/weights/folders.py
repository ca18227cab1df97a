"""Turns a recipe's reference to a model's folder into a path. For single files there is `files.py`."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download

from actors.weights.allowed_folders import is_allowed, require_allowed
from configs.errors import WeightsError
from configs.weights import FolderSource, HubFolder, LocalFolder

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Files in these formats can run code when they are loaded."""
PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
"""The files that are downloaded, because engines read them. Other formats repeat the same weights."""


def folder_here(sources: Sequence[FolderSource]) -> Path | None:
    """The first local folder that may be read and has a config.json, or None. Fetches nothing."""
    paths = (Path(source.path) for source in sources if isinstance(source, LocalFolder))
    here = (path for path in paths if is_allowed(path) and (path / "config.json").is_file())
    return next(here, None)


def fetch_folder(model: str, sources: Sequence[FolderSource], *, weights: bool = True) -> Path:
    """Make sure that the folder of `model` is on this machine, and return its path.

    Args:
        model: The model's name in the recipe, for the error message.
        sources: Where the folder comes from; the first source that delivers is used.
        weights: Whether the folder has to hold safetensors. Pickled weights (.bin, .pt) are not enough,
            because they can run code when they are loaded. If False, a local folder only needs its
            config.json.

    Raises:
        WeightsError: no source delivered the folder; the message names the cause of each failure.
    """
    causes = []
    for source in sources:
        try:
            found = _from_hub(source) if isinstance(source, HubFolder) else _local(Path(source.path))
            if weights:
                _check_format(found)
            return found
        except Exception as error:  # the Hub's client raises many errors; the next source may work
            name = source.hub if isinstance(source, HubFolder) else source.path
            causes.append(f"{name}: {error}")
    raise WeightsError(f"no weights for model {model!r}: {'; '.join(causes)}", model=model)


def _check_format(folder: Path) -> None:
    if next(folder.glob("*.safetensors"), None) is not None:
        return
    pickled = sorted(path.name for kind in PICKLED for path in folder.glob(kind))
    if pickled:
        what = f"{pickled[0]!r} is a pickle, which can run code"
        raise WeightsError(f"only safetensors are loaded, and there are none: {what}")
    raise WeightsError("there are no safetensors")


def _local(folder: Path) -> Path:
    require_allowed(folder)
    if not (folder / "config.json").is_file():
        raise WeightsError("there is no config.json")
    return folder


def _from_hub(source: HubFolder) -> Path:
    try:  # files of an earlier download need no network
        path = snapshot_download(
            source.hub, revision=source.revision, allow_patterns=PATTERNS, local_files_only=True
        )
    except FileNotFoundError:
        path = snapshot_download(source.hub, revision=source.revision, allow_patterns=PATTERNS)
    return Path(path)
