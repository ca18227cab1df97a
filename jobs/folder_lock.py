"""A run folder has one owner at a time: the job that writes to it.

The lock is the kernel's and ends with the owner's process, however it dies. Who holds it is written in
a file beside it, for those who are refused; after a crash that file is stale and means nothing.
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

LOCK = "run.lock"
LOOK_S = 0.2  # who asks for the owner holds the lock for a moment
OWNER = "run.owner.json"


class RunTaken(UserError):
    """Another job works on the run folder; the message says whose, where and since when."""


@contextmanager
def lock_folder(folder: Path, what: str) -> Iterator[None]:
    """Own a run folder, made if it is not there. what: the command, for those who come second.

    Raises:
        RunTaken: it has an owner; nothing is waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=LOOK_S)
    except Timeout:
        raise RunTaken(f"{folder} is in use by {_owner(folder)}") from None
    try:
        _write(folder / OWNER, what)
        yield
    finally:  # in this order: without the lock the file may be the next owner's
        with suppress(OSError):
            (folder / OWNER).unlink()
        lock.release()


def read_owner(folder: Path) -> str | None:
    """Who owns the run folder now, for people; None if nobody does."""
    if not (folder / LOCK).exists():
        return None
    lock = FileLock(folder / LOCK)
    try:
        with lock.acquire(timeout=0):
            return None
    except Timeout:
        return _owner(folder)


def _write(file: Path, what: str) -> None:
    owner = {
        "user": f"{_user()}@{socket.gethostname()}",
        "pid": os.getpid(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "what": what,
    }
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(owner), "utf-8")
    os.replace(new, file)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / OWNER).read_text("utf-8"))
        return "{user}, process {pid}, since {since}: {what}".format(**owner)
    except (OSError, ValueError, KeyError):  # it has the lock, and is about to write its name
        return "a job that has just started"
