"""A reference to a model folder -> its local path. Files that stand alone: see `weights.py`."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download

from actors.errors import WeightsError
from configs.schema import FolderSource, HubFolder, LocalFolder

# What engines read; other formats of the same weights would double the download.
PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken"]


def folder_here(sources: Sequence[FolderSource]) -> Path | None:
    """The folder, if it lies on this machine as a source says; nothing is fetched."""
    paths = (Path(source.path) for source in sources if isinstance(source, LocalFolder))
    return next((path for path in paths if (path / "config.json").is_file()), None)


def fetch_folder(model: str, sources: Sequence[FolderSource]) -> Path:
    """Make the folder of `model` available and return its path.

    Raises:
        WeightsError: no source gave the folder; the message names the cause of each.
    """
    causes = []
    for source in sources:
        try:
            return _from_hub(source) if isinstance(source, HubFolder) else _local(Path(source.path))
        except Exception as error:  # the Hub's client fails in many ways; the next source may not
            name = source.hub if isinstance(source, HubFolder) else source.path
            causes.append(f"{name}: {error}")
    raise WeightsError(f"no weights for model {model!r}: {'; '.join(causes)}", model=model)


def _local(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise WeightsError("there is no config.json")
    return folder


def _from_hub(source: HubFolder) -> Path:
    try:  # what is here already needs no network
        path = snapshot_download(
            source.hub, revision=source.revision, allow_patterns=PATTERNS, local_files_only=True
        )
    except FileNotFoundError:
        path = snapshot_download(source.hub, revision=source.revision, allow_patterns=PATTERNS)
    return Path(path)
