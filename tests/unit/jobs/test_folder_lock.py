"""One job at a time works on a run's folder; the others are told whose it is."""

import getpass
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.folder_lock import LOCK, OWNER, RunTaken, lock_folder, read_owner

HOLD = """
import sys
from pathlib import Path
from jobs.folder_lock import lock_folder
with lock_folder(Path(sys.argv[1]), "bench run --set x"):
    print("owned", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    """A process that holds the folder's lock until its standard input ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "owned\n"
    return child


def test_a_second_job_is_refused_with_the_owners_name(tmp_path: Path) -> None:
    with holder(tmp_path) as child:
        with pytest.raises(RunTaken) as refused, lock_folder(tmp_path, "bench judge"):
            pass
        child.communicate()
    user = f"{getpass.getuser()}@{socket.gethostname()}"
    assert f"in use by {user}, process {child.pid}, since 20" in str(refused.value)
    assert str(refused.value).endswith(": bench run --set x")
    with lock_folder(tmp_path, "bench judge"):
        assert f'"pid": {os.getpid()}' in (tmp_path / OWNER).read_text()


def test_a_killed_owner_leaves_the_folder_free(tmp_path: Path) -> None:
    with holder(tmp_path) as child:
        child.send_signal(signal.SIGKILL)
    assert (tmp_path / OWNER).exists()  # stale, and of no effect
    with lock_folder(tmp_path, "bench run"):
        pass
    assert not (tmp_path / OWNER).exists()


def test_a_job_that_fails_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock_folder(tmp_path / "new", "bench run"):
        raise ZeroDivisionError
    with (
        lock_folder(tmp_path / "new", "bench run"),
        pytest.raises(RunTaken),
        lock_folder(tmp_path / "new", "x"),
    ):
        pass


def test_an_owner_that_has_not_said_its_name_is_an_owner(tmp_path: Path) -> None:
    with lock_folder(tmp_path, "bench run"):
        (tmp_path / OWNER).unlink()
        with pytest.raises(RunTaken, match="just started"), lock_folder(tmp_path, "x"):
            pass


def test_who_works_on_a_folder_can_be_read_without_disturbing_anybody(tmp_path: Path) -> None:
    assert read_owner(tmp_path) is None
    assert not (tmp_path / LOCK).exists()
    with lock_folder(tmp_path, "bench run"):
        owner = read_owner(tmp_path)
        assert owner is not None
        assert f"process {os.getpid()}, since 20" in owner
        assert owner.endswith(": bench run")
    assert read_owner(tmp_path) is None
