"""Downloads one file over HTTP into a file of this machine, and goes on where an earlier try ended.

The Hub's client (from 2.0) begins each file anew: an interrupted download of 40 GB would begin at its
first byte. So this module keeps the part that has arrived and asks for the rest only.
"""

import errno
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import Timeout
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # its documented place
    WeakFileLock,
    build_hf_headers,
    disable_progress_bars,
)

from cluster.waiting import tell_waiting
from configs.errors import WeightsError

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
"""How much of a file is copied or hashed at a time."""
LOCK_LOOK_S = 1.0
"""While another process downloads the same file: seconds between two looks whether to stop waiting."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of errors of a disk without room, and of a user without room on it."""
WRITE_ERRORS = {
    errno.ENOSPC: "is on a disk that is full",
    errno.EDQUOT: "is on a disk where this user may not take more room (quota)",
    errno.EFBIG: "is on a disk that takes no files of this size",
    errno.EROFS: "is on a disk that is read-only",
    errno.EACCES: "may not be written by this user",
    errno.EPERM: "may not be written by this user",
}
"""What the errors of a write say of the folder, by their numbers."""
PARTIAL = ".incomplete"
"""Ends the name of a file that is not complete; clients of the Hub before 2.0 use the same name."""


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """How far a download, or the checking of a file's checksum, has come."""

    what: str
    """What is downloaded or checked, in words for people."""
    done_bytes: int
    total_bytes: int
    """0 while the size is unknown."""


Report = Callable[[DownloadProgress], None]
"""Is called with the progress: once per `BLOCK_BYTES` of a checksum, at times during a download."""


def silent(_progress: DownloadProgress) -> None:
    """Report nothing."""


class Meter:
    """Counts the bytes of a download that has several files, which threads fetch side by side.

    Args:
        what: what is downloaded, in words for people.
        total_bytes: bytes of all files.
        report: is called with the progress, by one thread at a time.
    """

    def __init__(self, what: str, total_bytes: int, report: Report) -> None:
        self.what = what
        self._total_bytes = total_bytes
        self._report = report
        self._done_bytes = 0
        self._stopped = False
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count bytes that are on this machine now.

        Raises:
            WeightsError: the download has been stopped.
        """
        with self._lock:
            if self._stopped:
                raise WeightsError("the download was stopped")
            self._done_bytes += count
            self._report(DownloadProgress(self.what, self._done_bytes, self._total_bytes))

    def stop(self) -> None:
        """End all downloads that this object counts, at their next bytes."""
        self._stopped = True


class _Sink:
    """A file that is not complete: counts and hashes the bytes that it has and those that come."""

    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self._file = file
        self._meter = meter
        self.digest = hashlib.sha256()
        while block := file.read(BLOCK_BYTES):
            self._count(block)

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._file.flush()  # so that a process that is killed leaves all that it has counted
        self._count(data)
        return len(data)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)

    def truncate(self) -> int:
        """Forget all bytes. The client does so if the server cannot send the rest only."""
        length = self._file.seek(0, os.SEEK_END)
        self._meter.add(-length)
        self.digest = hashlib.sha256()
        self._file.seek(0)
        return self._file.truncate()

    def _count(self, data: bytes) -> None:
        self.digest.update(data)
        self._meter.add(len(data))


def gigabytes(count: int) -> str:
    """Bytes in words for people, in powers of ten, as the Hub and disks count them."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def require_space(needed_bytes: int, folder: Path, variable: str) -> None:
    """Raise an error if the disk of `folder` has no room for a download.

    Args:
        needed_bytes: bytes that are still to be downloaded.
        folder: where they are to go; it need not exist yet.
        variable: the environment variable that names another folder.

    Raises:
        WeightsError: there is less free space than `needed_bytes`.
    """
    free = free_bytes(folder)
    if free < needed_bytes:
        raise WeightsError(
            f"the download needs {gigabytes(needed_bytes)}, and the disk of {folder} has "
            f"{gigabytes(free)} free: make room, or set {variable} to a folder on a larger disk"
        )


@contextmanager
def writing_to(folder: Path, variable: str, missing: Callable[[], int] | None = None) -> Iterator[None]:
    """Turn errors of a block that writes into `folder` into what to do about them.

    Args:
        folder: the folder.
        variable: the environment variable that names another folder.
        missing: tells how many bytes are still to be written, if that is known.

    Raises:
        WeightsError: the disk is full, or may not be written.
    """
    try:
        yield
    except OSError as error:
        if (cause := write_error(error, folder, variable, missing)) is None:
            raise
        raise WeightsError(cause) from error


def write_error(
    error: Exception, folder: Path, variable: str, missing: Callable[[], int] | None = None
) -> str | None:
    """What to do about an error of a write; None for other errors. Arguments: as of `writing_to`."""
    number = getattr(error, "errno", None)
    cause = WRITE_ERRORS.get(number) if isinstance(error, OSError) and number else None
    if cause is None:
        return None
    if number in FULL:
        needed = "" if missing is None else f", {gigabytes(max(0, missing()))} still to come"
        cause += f" ({gigabytes(free_bytes(folder))} free{needed})"
    room = "make room, or " if number in FULL else ""
    return f"{folder} {cause}: {room}set {variable} to a folder on another disk"


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk of a folder, which need not exist yet."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


@contextmanager
def locked(path: Path, meter: Meter) -> Iterator[None]:
    """Hold a lock file that keeps other processes from the same download.

    Some network file systems give the lock to all who ask. Then the checksum of what arrived is wrong.

    Raises:
        WeightsError: the download was stopped while it waited.
    """
    with ExitStack() as held:
        with tell_waiting(f"another process that downloads {meter.what}", logger.warning):
            while True:
                with suppress(Timeout):
                    held.enter_context(WeakFileLock(path, timeout=LOCK_LOOK_S))
                    break
                meter.add(0)
        yield


def arrived_bytes(target: Path) -> int:
    """How many bytes of `target` an interrupted download has left here."""
    partial = target.with_name(target.name + PARTIAL)
    return partial.stat().st_size if partial.exists() else 0


def download(url: str, target: Path, size: int, sha256: str | None, meter: Meter) -> None:
    """Download a file of the Hub to `target`, which appears there only when it is complete.

    Args:
        url: where the file is; the token of this machine is sent along.
        target: path of the file. Its folder has to exist.
        size: bytes of the file.
        sha256: checksum of the file, or None if it is not known.
        meter: counts the bytes, those that an earlier try has left here too.

    Raises:
        WeightsError: the checksum of what arrived is another, or the download was stopped.
        OSError: the disk is full, or the server sent fewer or more bytes.
        Exception: errors of the Hub's client.
    """
    partial = target.with_name(target.name + PARTIAL)
    if arrived_bytes(target) > size:  # another file of the same name, before it changed on the server
        partial.unlink()
    partial.touch()
    # The bars of the client would be drawn into those of the command line.
    disable_progress_bars("huggingface_hub.http_get")
    with partial.open("r+b") as file:
        sink: Any = _Sink(file, meter)
        http_get(
            url, sink, resume_size=sink.tell(), headers=build_hf_headers(), expected_size=size or None
        )
    if sha256 is not None and sink.digest.hexdigest() != sha256:
        partial.unlink()  # else the next try would reuse the wrong bytes
        raise WeightsError(f"SHA-256 is {sink.digest.hexdigest()}, not {sha256}")
    os.replace(partial, target)
