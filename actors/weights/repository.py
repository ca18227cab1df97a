"""What of a Hub repository is to be downloaded, and how many bytes of that are not here yet."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download, try_to_load_from_cache

from actors.weights.blobs import blob_path, repository_folder
from actors.weights.choice import index_files, small_files, weight_files
from actors.weights.download import arrived_bytes, require_space
from actors.weights.hub import (
    SHA256,
    HubEntry,
    Repository,
    ask_hub,
    explained,
    saved_repository,
)
from cluster.plan.safetensors import INDEX
from configs.errors import WeightsError
from configs.weights import HubFolder


@dataclass(frozen=True, slots=True)
class FolderDownload:
    """A folder of the Hub that is not, or not whole, on this machine."""

    source: HubFolder
    repository: Repository
    weights: tuple[str, ...]
    """The files of weights to fetch; none if only the model's shape is wanted."""
    others: tuple[str, ...]
    """The other files to fetch."""

    @property
    def missing_bytes(self) -> int:
        """Bytes that are still to be downloaded."""
        return sum(self._missing(name) for name in (*self.weights, *self.others))

    def _missing(self, name: str) -> int:
        entry = self.repository.files[name]
        if (repository_folder(self.source) / "snapshots" / self.repository.commit / name).exists():
            return 0
        if entry.sha256 is None:
            return entry.size
        blob = blob_path(self.source, entry.sha256)
        return 0 if blob.exists() else max(0, entry.size - arrived_bytes(blob))


def download_of(source: HubFolder, *, weights: bool = True, code: bool = False) -> FolderDownload:
    """Ask the Hub which files of a repository an engine reads, and how large they are.

    Raises:
        WeightsError: the Hub cannot be reached or refuses, or the repository has no safetensors.
    """
    repository = ask_hub(source)
    names = repository.files.keys()
    chosen = weight_files(names, _indexed(source, repository)) if weights else ()
    return FolderDownload(source, repository, tuple(chosen), tuple(small_files(names, code=code)))


def saved_download(source: HubFolder, *, code: bool = False) -> FolderDownload | None:
    """What `download_of` returned the last time, as this machine has kept it; None if it has not."""
    repository = saved_repository(source)
    if repository is None:
        return None
    indexed, names = None, repository.files.keys()
    try:
        if INDEX in names:
            index = try_to_load_from_cache(source.hub, INDEX, revision=repository.commit)
            if not isinstance(index, str):
                return None
            indexed = index_files(Path(index).read_text("utf-8"))
        chosen = weight_files(names, indexed)
    except (WeightsError, OSError):
        return None
    return FolderDownload(source, repository, tuple(chosen), tuple(small_files(names, code=code)))


def _indexed(source: HubFolder, repository: Repository) -> frozenset[str] | None:
    """The files that the repository's index names; None if it has no index."""
    if INDEX not in repository.files:
        return None
    return index_files(small_file(source, repository, INDEX).read_text("utf-8"))


def repository_here(source: HubFolder) -> Repository | None:
    """The files of a repository that are in the cache of the Hub's client; None if there are none."""
    try:
        found = snapshot_download(
            source.hub, revision=source.revision, allow_patterns=[], local_files_only=True
        )
    except (OSError, ValueError):  # as the client says that it has no snapshot of this revision
        return None
    folder, files = Path(found), {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            name = file.resolve().name
            sha256 = name if SHA256.fullmatch(name) else None
            files[file.relative_to(folder).as_posix()] = HubEntry(file.stat().st_size, sha256)
    return Repository(folder.name, files) if files else None


def small_file(source: HubFolder, repository: Repository, name: str) -> Path:
    """Fetch one small file of a repository into the cache, where a later download finds it.

    Raises:
        WeightsError: the Hub cannot be reached, or refuses.
    """
    commit = repository.commit
    return Path(explained(source, lambda: hf_hub_download(source.hub, name, revision=commit)))


def require_space_for(downloads: Collection[FolderDownload]) -> None:
    """Raise an error if the disk of the Hub's cache has no room for all of `downloads`.

    Raises:
        WeightsError: there is too little free space; the message says how much is needed.
    """
    needed = {download.source: download.missing_bytes for download in downloads}
    if needed:
        require_space(sum(needed.values()), Path(constants.HF_HUB_CACHE), "HF_HOME")
