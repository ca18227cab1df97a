"""Downloads a folder of the Hub into the cache of the Hub's client."""

import glob
from functools import partial
from pathlib import Path

from huggingface_hub import constants, hf_hub_url, snapshot_download

from actors.weights.blobs import NoBar, fetch_blob
from actors.weights.download import Meter, Report
from actors.weights.hub import HubEntry, explained
from actors.weights.repository import FolderDownload, require_space_for
from actors.weights.side_by_side import side_by_side


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
        jobs = [partial(_fetch, task, name, entry, meter) for name, entry in large]
        explained(source, lambda: side_by_side(jobs))
    except BaseException:  # Ctrl-C too: what has arrived stays for the next try
        meter.stop()
        raise
    names = [glob.escape(name) for name in (*task.weights, *task.others)]
    path = explained(
        source,
        lambda: snapshot_download(
            source.hub, revision=source.revision, allow_patterns=names, tqdm_class=NoBar
        ),
    )
    return Path(path)


def _fetch(task: FolderDownload, name: str, entry: HubEntry, meter: Meter) -> None:
    """Download one large file, unless the Hub serves it to its own client only."""
    assert entry.sha256 is not None
    if entry.size <= constants.MAX_HTTP_DOWNLOAD_SIZE:
        url = hf_hub_url(task.source.hub, name, revision=task.repository.commit)
        fetch_blob(task.source, url, entry.size, entry.sha256, meter)
