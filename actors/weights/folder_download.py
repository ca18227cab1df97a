"""Downloads a folder of the Hub into the cache of the Hub's client."""

import glob
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_url, snapshot_download
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # documented there

from actors.weights.download import Meter, Report, download, locked
from actors.weights.hub import HubEntry, explained
from actors.weights.repository import FolderDownload, blob_path, require_space_for
from actors.weights.side_by_side import side_by_side
from configs.weights import HubFolder


def download_folder(task: FolderDownload, report: Report) -> Path:
    """Download the weights side by side; then the Hub's client fetches the rest and links all files.

    Returns:
        The folder.

    Raises:
        WeightsError: the Hub cannot be reached or refuses, or the disk has no room.
    """
    source = task.source
    require_space_for([task])
    large = [(n, e) for n in task.weights if (e := task.repository.files[n]).sha256 is not None]
    meter = Meter(f"{source.hub} from the Hub", sum(entry.size for _, entry in large), report)
    meter.add(0)  # shows the download before its first bytes have come
    try:
        jobs = [partial(_fetch_blob, task, name, entry, meter) for name, entry in large]
        explained(source, lambda: side_by_side(jobs))
    except BaseException:  # Ctrl-C too: what has arrived stays for the next try
        meter.stop()
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


class _NoBar(tqdm):
    """A progress bar that is not drawn: our own one is."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "disable": True})  # type: ignore[no-untyped-call]
