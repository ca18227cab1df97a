"""A folder that only this user can enter, for a socket; it does not outlive its process for long."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

# Not TMPDIR, which may be long: the path of a Unix socket may have about 100 bytes.
PARENT = Path("/tmp")
PREFIX = "slimmoa-socket-"
TRIES = 100


class PrivateFolder:
    """Lives until `remove`, or until its process is gone and another one makes such a folder.

    The lock on it says that its owner lives. The kernel ends it with the process, however that
    ends; a process id would be used again, and means another process in another container.
    """

    def __init__(self, parent: Path = PARENT) -> None:
        for abandoned in parent.glob(PREFIX + "*"):
            if (lock := _lock(abandoned)) is not None:
                shutil.rmtree(abandoned, ignore_errors=True)
                os.close(lock)
        self.path, self._lock = _make(parent)

    def remove(self) -> None:
        """Remove it with all that is in it; call once."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _make(parent: Path) -> tuple[Path, int]:
    for _ in range(TRIES):
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = _lock(path)
        if lock is not None:
            if path.exists():
                return path, lock
            os.close(lock)
        # Another process took the folder for abandoned before it was locked.
    raise OSError(f"cannot lock a folder in {parent}")


def _lock(folder: Path) -> int | None:
    """An open, locked folder; None if it is locked already, is not ours, or is no folder."""
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
