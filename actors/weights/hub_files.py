"""Single files of the Hub, in the cache of the Hub's client.

Other programs find there what was fetched here, and what they have fetched is used here. A file that is
there is read where it lies: nothing is written to the cache for it, so the cache may be read-only.
"""

from functools import partial
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, try_to_load_from_cache

from actors.weights.blobs import NoBar, blob_path, fetch_blob
from actors.weights.download import Meter, Report, arrived_bytes, require_space
from actors.weights.hub import HUB_PROBE_S, SHA256, explained, file_url, first_answer
from configs.errors import WeightsError
from configs.weights import HubFile


def hub_file_here(source: HubFile) -> Path | None:
    """The file in the cache of the Hub's client, or None. Asks nobody.

    A file with a checksum is also found if another revision of the repository has it. Its content is
    not checked here, but what the cache names by another checksum is not the file.
    """
    found = None
    try:
        found = try_to_load_from_cache(source.hub, source.file, revision=source.revision)
    except ValueError:  # a name that is no path in a repository
        return None
    file = Path(found) if isinstance(found, str) else None
    if source.sha256 is None:
        return file
    if file is not None:
        name = file.resolve().name
        if name == source.sha256 or not SHA256.fullmatch(name):
            return file
    blob = blob_path(source, source.sha256)
    return blob if blob.is_file() else None


def download_hub_file(source: HubFile, what: str, report: Report) -> Path:
    """Download a file into the cache of the Hub's client. An interrupted download is continued.

    Args:
        source: the file.
        what: the file in words for people.
        report: is called with the progress.

    Returns:
        The file. Its checksum is that of the Hub.

    Raises:
        WeightsError: the Hub cannot be reached, refuses or has another file, or the disk has no room.
    """
    url = file_url(source)
    found = first_answer(source, lambda: get_hf_file_metadata(url, timeout=HUB_PROBE_S))
    size, sum_there = found.size or 0, f"{found.etag}"
    if source.sha256 is not None and SHA256.fullmatch(sum_there) and sum_there != source.sha256:
        raise WeightsError(f"SHA-256 is {sum_there}, not {source.sha256}")
    if SHA256.fullmatch(sum_there) and size <= constants.MAX_HTTP_DOWNLOAD_SIZE:
        arrived = arrived_bytes(blob_path(source, sum_there))
        require_space(size - arrived, Path(constants.HF_HUB_CACHE), "HF_HOME")
        meter = Meter(f"{what} from the Hub", size, report)
        meter.add(0)  # shows the download before its first bytes have come
        explained(source, partial(fetch_blob, source, url, size, sum_there, meter))
    else:  # a small file, or one that the Hub serves to its own client only
        require_space(size, Path(constants.HF_HUB_CACHE), "HF_HOME")
    download = partial(hf_hub_download, revision=source.revision, tqdm_class=NoBar)
    return Path(explained(source, lambda: download(source.hub, source.file)))
