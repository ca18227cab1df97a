"""Turns a recipe's reference to a model's folder into a path. For single files there is `files.py`.

A folder of the Hub goes into the cache of the Hub's client (`$HF_HOME`), so that other programs find it
there and what they have fetched is found here.
"""

import glob
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import (
    constants,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # documented there

from actors.weights.allowed_folders import require_allowed
from actors.weights.choice import index_files, small_files, weight_files, weights_here
from actors.weights.download import (
    Meter,
    Report,
    arrived_bytes,
    download,
    locked,
    require_space,
    silent,
)
from actors.weights.hub import HubEntry, Repository, ask_hub, explained, saved_repository
from cluster.plan.safetensors import INDEX
from configs.errors import WeightsError
from configs.weights import FolderSource, HubFolder, LocalFolder

T = TypeVar("T")
WORKERS = 4
"""How many files of weights are downloaded side by side."""


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
        if (_repository_folder(self.source) / "snapshots" / self.repository.commit / name).exists():
            return 0
        if entry.sha256 is None:
            return entry.size
        blob = blob_path(self.source, entry.sha256)
        return 0 if blob.exists() else max(0, entry.size - arrived_bytes(blob))


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
        return _fetch(download_of(source, weights=weights, code=code), report)

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


def require_space_for(downloads: Collection[FolderDownload]) -> None:
    """Raise an error if the disk of the Hub's cache has no room for all of `downloads`.

    Raises:
        WeightsError: there is too little free space; the message says how much is needed.
    """
    needed = {download.source: download.missing_bytes for download in downloads}
    if needed:
        require_space(sum(needed.values()), Path(constants.HF_HUB_CACHE), "HF_HOME")


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


def small_file(source: HubFolder, repository: Repository, name: str) -> Path:
    """Fetch one small file of a repository into the cache, where a later download finds it.

    Raises:
        WeightsError: the Hub cannot be reached, or refuses.
    """
    commit = repository.commit
    return Path(explained(source, lambda: hf_hub_download(source.hub, name, revision=commit)))


def blob_path(source: HubFolder, sha256: str) -> Path:
    """Where the Hub's client keeps a large file: below its checksum ("Understand caching" in the docs
    of huggingface_hub). A snapshot of the repository has links to such files."""
    return _repository_folder(source) / "blobs" / sha256


def _repository_folder(source: HubFolder) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source.hub, repo_type="model")


def _fetch(task: FolderDownload, report: Report) -> Path:
    """Download the weights side by side; then the Hub's client fetches the rest and links all files."""
    source = task.source
    require_space_for([task])
    large = [(n, e) for n in task.weights if (e := task.repository.files[n]).sha256 is not None]
    meter = Meter(f"{source.hub} from the Hub", sum(entry.size for _, entry in large), report)
    meter.add(0)  # shows the download before its first bytes have come
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            jobs = [pool.submit(_fetch_blob, task, name, entry, meter) for name, entry in large]
            for job in as_completed(jobs):
                explained(source, job.result)
        except BaseException:  # Ctrl-C too: what has arrived stays for the next try
            meter.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    names = [glob.escape(name) for name in (*task.weights, *task.others)]
    path = explained(
        source,
        lambda: snapshot_download(
            source.hub, revision=source.revision, allow_patterns=names, tqdm_class=_NoBar
        ),
    )
    return Path(path)


def _fetch_blob(task: FolderDownload, name: str, entry: HubEntry, meter: Meter) -> None:
    """Download one large file of a repository, unless this or another process has done so already."""
    assert entry.sha256 is not None
    target = blob_path(task.source, entry.sha256)
    lock = _lock_path(task.source, entry.sha256)
    for folder in (target.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(lock, meter):  # the Hub's client takes the same lock
        if target.exists():
            meter.add(entry.size)
        elif entry.size <= constants.MAX_HTTP_DOWNLOAD_SIZE:
            url = hf_hub_url(task.source.hub, name, revision=task.repository.commit)
            download(url, target, entry.size, entry.sha256, meter)
        # else the Hub serves it to its own client only, which fetches it with the small files


def _lock_path(source: HubFolder, sha256: str) -> Path:
    name = repo_folder_name(repo_id=source.hub, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / ".locks" / name / f"{sha256}.lock"


def require_here(source: FolderSource, *, weights: bool = True, code: bool = False) -> Path:
    """The folder of a source, which has to be whole on this machine.

    Raises:
        WeightsError: the folder is not here, not whole, or may not be read.
        OSError: as the Hub's client raises it for a folder that is not in its cache.
    """
    if isinstance(source, LocalFolder):
        folder = Path(source.path)
        require_allowed(folder)
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


class _NoBar(tqdm):
    """A progress bar that is not drawn: our own one is."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "disable": True})  # type: ignore[no-untyped-call]
