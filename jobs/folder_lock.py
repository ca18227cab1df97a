"""The lock of a run's folder: one job at a time may write to it.

The kernel holds the lock and releases it when the owner's process ends, however that happens. A file
beside the lock describes the owner for the jobs that are refused. After a crash that file is stale; it
counts only while the lock is held.
"""

import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from configs.errors import UserError
from jobs.atomic_file import write_atomically

LOCK = "run.lock"
"""Name of the lock file in the run's folder."""

OWNER = "run.owner.json"
"""Name of the file that describes the owner."""

LOCK_TIMEOUT_S = 0.2
"""Seconds to wait for the lock, which `read_owner` in another process may hold for a moment."""


class RunTaken(UserError):
    """Another job works on the run's folder; the message says whose, where and since when."""


@contextmanager
def lock_folder(folder: Path, command: str) -> Iterator[None]:
    """Hold the lock of a run's folder during the block. A missing folder is created.

    Args:
        folder: The run's folder.
        command: The command line, shown to jobs that are refused.

    Raises:
        RunTaken: another job holds the lock; nobody waits until that job ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        raise RunTaken(f"{folder} is in use by {_describe_owner(folder)}") from None
    try:
        _write_owner(folder, command)
        yield
    finally:
        # The file first: once the lock is released, the file may be the next owner's.
        with suppress(OSError):
            (folder / OWNER).unlink()
        lock.release()


def read_owner(folder: Path) -> str | None:
    """Describe the job that works on the run's folder, for people; None if no job does."""
    if not (folder / LOCK).exists():
        return None
    lock = FileLock(folder / LOCK)
    try:
        with lock.acquire(timeout=0):
            return None
    except Timeout:
        return _describe_owner(folder)


def _write_owner(folder: Path, command: str) -> None:
    owner = {
        "user": f"{_user_name()}@{socket.gethostname()}",
        "pid": os.getpid(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
    }
    with write_atomically(folder / OWNER) as file:
        file.write(json.dumps(owner).encode())


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        return f"user {os.getuid()}"


def _describe_owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / OWNER).read_text("utf-8"))
        return "{user}, process {pid}, since {since}: {command}".format(**owner)
    except (OSError, ValueError, KeyError):  # the owner has not written the file yet
        return "a job that has just started"
