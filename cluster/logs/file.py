"""The log's file: several processes append lines to it, and one may show them as they come."""

import fcntl
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MOST_BYTES = 50_000_000
"""Bytes after which a file is put aside and a new one begun."""
KEPT = 4
"""How many files that were put aside are kept: `NAME.1` is the latest."""
LOOK_S = 0.25
"""Seconds between two looks of `Follower` at the file."""
PIECE_BYTES = 1 << 20
"""Most bytes that `Follower` reads at a time."""


class LogFile:
    """Appends lines to a file that other processes append to as well.

    A line is one write at the end of the file, so that lines of several processes never mix. The file
    may be renamed or removed at any time, as logrotate does; the next line then makes a new one. If the
    file cannot be written, the line is lost, and standard error says so once.

    Args:
        path: the file.
        most_bytes: see `MOST_BYTES`.
        kept: see `KEPT`.
    """

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES, kept: int = KEPT) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._kept = kept
        self._file = -1
        self._inode = -1
        self._lock = threading.Lock()
        self._has_complained = False

    def write(self, line: str) -> None:
        """Append a line."""
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        try:
            with self._lock:
                self._open_current()
                os.write(self._file, data)
            self._has_complained = False
        except OSError as error:
            if not self._has_complained:
                self._has_complained = True
                with suppress(Exception):
                    print(f"the log {self._path} cannot be written: {error.strerror}", file=sys.stderr)

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        with self._lock:
            self._close()

    def _open_current(self) -> None:
        """Have the file of this name open, with room for another line."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            self._open()
            return
        if found.st_ino != self._inode:
            self._open()
        if found.st_size >= self._most_bytes:
            self._put_aside()

    def _open(self) -> None:
        self._close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._path, flags, 0o640)
        self._inode = os.fstat(self._file).st_ino

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = self._inode = -1

    def _put_aside(self) -> None:
        """Begin a new file. Only the first of several processes that want this renames the old one."""
        fcntl.flock(self._file, fcntl.LOCK_EX)  # closing the file ends the lock
        found = os.stat(self._path) if self._path.exists() else None
        if found is not None and found.st_ino == self._inode and found.st_size >= self._most_bytes:
            for number in range(self._kept, 0, -1):
                older = self._path.with_name(f"{self._path.name}.{number}")
                newer = self._path.with_name(f"{self._path.name}.{number - 1}")
                with suppress(FileNotFoundError):
                    (newer if number > 1 else self._path).rename(older)
        self._open()


class Follower:
    """Shows the lines of a file as they come, from now on, in a thread of its own.

    Args:
        path: the file, which may not be there yet.
        show: is called in that thread with one or several whole lines and their ends.
    """

    def __init__(self, path: Path, show: Callable[[str], None]) -> None:
        self._path = path
        self._show = show
        self._ended = threading.Event()
        self._file = self._open()
        if self._file >= 0:
            os.lseek(self._file, 0, os.SEEK_END)
        self._rest = b""
        self._thread = threading.Thread(target=self._run, daemon=True, name="log")
        self._thread.start()

    def stop(self) -> None:
        """Show what has come so far, and end."""
        self._ended.set()
        self._thread.join(4 * LOOK_S)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1

    def _run(self) -> None:
        try:
            while not self._ended.wait(LOOK_S):
                self._look()
            self._look()
        except (OSError, ValueError):  # nobody reads what is shown, or the terminal is gone
            pass
        finally:
            if self._file >= 0:
                os.close(self._file)

    def _look(self) -> None:
        if self._file < 0:
            self._file = self._open()
        if self._file < 0:
            return
        self._read()
        if self._has_moved():
            self._read()  # the last lines may have come just before the file was put aside
            os.close(self._file)
            self._file = self._open()
            if self._file >= 0:
                self._read()

    def _read(self) -> None:
        while data := os.read(self._file, PIECE_BYTES):
            whole, end, rest = (self._rest + data).rpartition(b"\n")
            self._rest = rest
            if end:
                self._show((whole + end).decode("utf-8", "replace"))

    def _has_moved(self) -> bool:
        try:
            return os.stat(self._path).st_ino != os.fstat(self._file).st_ino
        except OSError:
            return False
