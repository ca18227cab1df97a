import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors import private_folder
from actors.private_folder import PREFIX, PrivateFolder

OWNER = """
import sys
from pathlib import Path
from actors.private_folder import PrivateFolder
folder = PrivateFolder(Path(sys.argv[1]))
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_only_this_user_can_enter_and_it_goes_on_demand(tmp_path: Path) -> None:
    folder = PrivateFolder(tmp_path)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "llama.sock").touch()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_stays_and_one_of_a_killed_process_goes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        theirs = Path(owner.stdout.readline().strip())
        ours = PrivateFolder(tmp_path)
        assert theirs.exists()
        owner.send_signal(signal.SIGKILL)
    later = PrivateFolder(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([ours.path, later.path])


def test_links_and_files_are_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (target / "file").touch()
    link, file = tmp_path / f"{PREFIX}link", tmp_path / f"{PREFIX}file"
    link.symlink_to(target)
    file.touch()
    PrivateFolder(tmp_path).remove()
    assert link.is_symlink()
    assert file.exists()
    assert (target / "file").exists()


def test_a_folder_of_another_user_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / f"{PREFIX}theirs"
    theirs.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid + 1)
    with pytest.raises(OSError, match="cannot lock"):  # so its own folders seem to be another user's
        PrivateFolder(tmp_path)
    assert theirs.exists()


def test_a_folder_that_another_process_took_away_before_the_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = private_folder._lock
    removed: list[Path] = []

    def removed_once(folder: Path) -> int | None:
        if not removed:
            removed.append(folder)
            folder.rmdir()
        return lock(folder)

    monkeypatch.setattr(private_folder, "_lock", removed_once)
    folder = PrivateFolder(tmp_path)
    assert folder.path.is_dir()
    assert folder.path != removed[0]
