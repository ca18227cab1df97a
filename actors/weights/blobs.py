"""Large files in the cache of the Hub's client, which keeps each below its checksum.

The client begins an interrupted download anew, so large files are fetched here and linked by the client
("Understand caching" in the docs of huggingface_hub).
"""

from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # documented there

from actors.weights.download import Meter, arrived_bytes, download, locked, writing_to
from configs.weights import HubFile, HubFolder


def repository_folder(source: HubFolder | HubFile) -> Path:
    """Where the Hub's client keeps all of a repository."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source.hub, repo_type="model")


def blob_path(source: HubFolder | HubFile, sha256: str) -> Path:
    """Where the Hub's client keeps a large file. Snapshots of the repository link to it."""
    return repository_folder(source) / "blobs" / sha256


def fetch_blob(source: HubFolder | HubFile, url: str, size: int, sha256: str, meter: Meter) -> None:
    """Download one large file of a repository, unless this or another process has done so already.

    Args:
        source: what is in the repository.
        url: where the file is.
        size: its bytes.
        sha256: its checksum.
        meter: counts the bytes.

    Raises:
        WeightsError: the checksum is another, the disk is full, or the download was stopped.
        Exception: errors of the Hub's client.
    """
    target, lock = blob_path(source, sha256), _lock_path(source, sha256)
    with writing_to(target.parent, "HF_HOME", lambda: size - arrived_bytes(target)):
        for folder in (target.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(lock, meter):  # the Hub's client takes the same lock
            if target.exists():
                meter.add(size)
            else:
                download(url, target, size, sha256, meter)


def _lock_path(source: HubFolder | HubFile, sha256: str) -> Path:
    name = repository_folder(source).name
    return Path(constants.HF_HUB_CACHE) / ".locks" / name / f"{sha256}.lock"


class NoBar(tqdm):
    """A progress bar of the Hub's client that is not drawn: our own one is."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "disable": True})  # type: ignore[no-untyped-call]
