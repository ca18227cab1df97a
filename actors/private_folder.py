"""A folder that only this user can enter: for a Unix socket, or for what a process says of itself.

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
"""How the names of folders for sockets begin."""
TRIES = 100
"""Attempts to create a folder before `PrivateFolder` gives up."""


class PrivateFolder:
    """A folder that is created with this object and exists until `remove` is called.

    If this process ends without `remove`, the next process that creates such a folder removes it.

    A lock on the folder shows that its owner is alive. The kernel releases the lock when the process
    ends, for whatever reason. A file with the process id would not do: the system uses ids again, and
    in another container the same id means another process.

    Args:
        parent: where the folder is created.
        prefix: how its name begins. Every unlocked folder of this user with such a name is removed.

    Raises:
        OSError: no folder could be created and locked.
    """

    def __init__(self, parent: Path = PARENT, prefix: str = PREFIX) -> None:
        for abandoned in parent.glob(prefix + "*"):
            if (lock := _lock(abandoned)) is not None:
                shutil.rmtree(abandoned, ignore_errors=True)
                os.close(lock)
        self.path, self._lock = _create_locked(parent, prefix)

    def remove(self) -> None:
        """Remove the folder and everything in it. Must be called only once."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def folders_in_use(parent: Path, prefix: str) -> list[Path]:
    """The folders of this user with such names whose processes are alive, sorted by name."""
    found = []
    for folder in sorted(parent.glob(prefix + "*")):
        try:
            is_own = not folder.is_symlink() and folder.stat().st_uid == os.geteuid()
        except OSError:  # it has just been removed
            continue
        if is_own and folder.is_dir():
            if (lock := _lock(folder)) is None:
                found.append(folder)
            else:
                os.close(lock)
    return found


def _create_locked(parent: Path, prefix: str) -> tuple[Path, int]:
    """Create a folder; return its path and the file descriptor that holds the lock on it."""
    for _ in range(TRIES):
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
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
