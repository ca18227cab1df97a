"""Turns a recipe's reference to a model's folder into a path. For single files there is `files.py`.

A folder of the Hub goes into the cache of the Hub's client (`$HF_HOME`), so that other programs find it
there and what they have fetched is found here.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from huggingface_hub import snapshot_download

from actors.weights.absent import why_no_folder
from actors.weights.allowed_folders import require_allowed
from actors.weights.choice import small_files, weights_here
from actors.weights.download import Report, silent
from actors.weights.folder_download import download_folder
from actors.weights.hub import saved_repository
from actors.weights.repository import FolderDownload, download_of
from configs.errors import WeightsError
from configs.weights import FolderSource, HubFolder, LocalFolder

T = TypeVar("T")


def folder_here(
    sources: Sequence[FolderSource], *, weights: bool = True, code: bool = False
) -> Path | None:
    """The first folder of `sources` that is whole on this machine and may be read, or None.

    A folder of the Hub may have been fetched in part. That one does not count: it is fetched on.
    Nothing is fetched here.

    Args:
        sources: where the folder comes from.
        weights: whether the folder has to have its weights, or its config.json alone is enough.
        code: whether a folder of the Hub has to have the checkpoint's own Python code.
    """
    for source in sources:
        with suppress(WeightsError, OSError, ValueError):
            return require_here(source, weights=weights, code=code)
    return None


def fetch_folder(
    model: str,
    sources: Sequence[FolderSource],
    *,
    weights: bool = True,
    code: bool = False,
    report: Report = silent,
) -> Path:
    """Make sure that the folder of `model` is on this machine, and return its path.

    Args:
        model: The model's name in the recipe, for the error message.
        sources: Where the folder comes from. One that is here is used, else the first that delivers.
        weights: Whether the folder has to hold safetensors. Pickled weights (.bin, .pt) are not enough,
            because they can run code when they are loaded. If False, a local folder only needs its
            config.json.
        code: Whether the checkpoint's own Python code is fetched too (`trust_remote_code`).
        report: Is called with the progress of a download.

    Raises:
        WeightsError: no source delivered the folder; the message names the cause of each failure.
    """

    def fetch(source: FolderSource) -> Path:
        if isinstance(source, LocalFolder):
            return require_here(source, weights=weights, code=code)
        return download_folder(download_of(source, weights=weights, code=code), report)

    return folder_here(sources, weights=weights, code=code) or _first(model, sources, fetch)


def find_download(
    model: str, sources: Sequence[FolderSource], *, weights: bool = True, code: bool = False
) -> FolderDownload | None:
    """What `fetch_folder` would download; None if the folder is on this machine.

    Raises:
        WeightsError: no source can deliver the folder; the message names the cause of each failure.
    """

    def find(source: FolderSource) -> FolderDownload:
        if isinstance(source, LocalFolder):
            require_here(source, weights=weights, code=code)
        assert isinstance(source, HubFolder)
        return download_of(source, weights=weights, code=code)

    if folder_here(sources, weights=weights, code=code) is not None:
        return None
    return _first(model, sources, find)


def _first(model: str, sources: Sequence[FolderSource], get: Callable[[FolderSource], T]) -> T:
    """What `get` returns for the first source for which it raises no error."""
    causes = []
    for source in sources:
        try:
            return get(source)
        except Exception as error:  # the Hub's client raises many errors; the next source may work
            name = source.hub if isinstance(source, HubFolder) else source.path
            causes.append(f"{name}: {' '.join(str(error).split()) or repr(error)}")
    raise WeightsError(f"no weights for model {model!r}: {'; '.join(causes)}", model=model)


def require_here(source: FolderSource, *, weights: bool = True, code: bool = False) -> Path:
    """The folder of a source, which has to be whole on this machine.

    Raises:
        WeightsError: the folder is not here, not whole, or may not be read.
        OSError: as the Hub's client raises it for a folder that is not in its cache.
    """
    if isinstance(source, LocalFolder):
        folder = Path(source.path)
        require_allowed(folder)
        if not (folder / "config.json").is_file():
            raise WeightsError(why_no_folder(folder))
    else:
        folder = Path(
            snapshot_download(
                source.hub,
                revision=source.revision,
                allow_patterns=["config.json"],
                local_files_only=True,
            )
        )
    if not (folder / "config.json").is_file():
        raise WeightsError("there is no config.json")
    if weights:
        weights_here(folder)
    if isinstance(source, HubFolder):
        _require_others(source, folder, code=code)
    return folder


def _require_others(source: HubFolder, folder: Path, *, code: bool) -> None:
    """Raise WeightsError if the tokenizer or another small file is missing, as far as this machine
    knows which files there are."""
    known = saved_repository(source)
    if known is not None and known.commit == folder.name:
        absent = (name for name in small_files(known.files, code=code) if not (folder / name).exists())
        if (name := next(absent, None)) is not None:
            raise WeightsError(f"{name} is missing")
