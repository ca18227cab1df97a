"""A folder for a Unix socket that only this user can enter.

If a process leaves its folder behind, the next process that creates such a folder removes it.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PARENT = Path("/tmp")
"""Where the folders are created. TMPDIR may be too long: a Unix socket's path is limited to about 100
bytes."""
PREFIX = "slimmoa-socket-"
"""How the folders' names begin. Every unlocked folder of this user with such a name is removed."""
TRIES = 100
"""Attempts to create a folder before `PrivateFolder` gives up."""


class PrivateFolder:
    """A folder that is created with this object and exists until `remove` is called.

    If this process ends without `remove`, the next process that creates such a folder removes it.

    A lock on the folder shows that its owner is alive. The kernel releases the lock when the process
    ends, for whatever reason. A file with the process id would not do: the system uses ids again, and
    in another container the same id means another process.

    Raises:
        OSError: no folder could be created and locked.
    """

    def __init__(self, parent: Path = PARENT) -> None:
        for abandoned in parent.glob(PREFIX + "*"):
            if (lock := _lock(abandoned)) is not None:
                shutil.rmtree(abandoned, ignore_errors=True)
                os.close(lock)
        self.path, self._lock = _create_locked(parent)

    def remove(self) -> None:
        """Remove the folder and everything in it. Must be called only once."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _create_locked(parent: Path) -> tuple[Path, int]:
    """Create a folder; return its path and the file descriptor that holds the lock on it."""
    for _ in range(TRIES):
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = _lock(path)
        if lock is not None:
            if path.exists():
                return path, lock
            os.close(lock)
        # Another process saw the folder before it was locked, took it for abandoned and removes it.
    raise OSError(f"cannot lock a folder in {parent}")


def _lock(folder: Path) -> int | None:
    """Open and lock a folder; return its file descriptor.

    Returns None if another process holds the lock, the folder belongs to another user, or the path is
    not a folder.
    """
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(opened).st_uid == os.geteuid():
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return opened
    except OSError:
        pass
    os.close(opened)
    return None
