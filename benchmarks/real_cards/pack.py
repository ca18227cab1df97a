"""Packs vLLM, Ray and what they need into parts for a GPU machine without a network.

    python -m benchmarks.real_cards.pack pack build/stack      # here: part1, part2, ... and their sizes
    python -m benchmarks.real_cards.pack unpack PART --to /tmp/stack   # there, once for each part
    export PYTHONPATH=/tmp/stack/site                          # there, before a check

`stack.toml` says what is packed, in groups in order of worth. Each group is one archive, cut where a
part is full, so the first parts hold the most valuable groups. `unpack` unpacks each group whose pieces
are all there. It needs nothing but Python; `pack` needs pip, a package index and, to be quick, xz.
"""

import argparse
import hashlib
import io
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

MIB = 1 << 20
STACK = Path(__file__).with_name("stack.toml")
PART_MIB = 59
"""Size of a part. A call carries 64 MiB, and the project's own files are 4 MiB of them."""
MANIFEST = "manifest.json"
GLIBC = (39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 24, 17, 12, 5)
"""Versions of glibc, 2.N, whose wheels the machine can use. pip matches each exactly."""
OLD_PLATFORMS = ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64")


class PackError(Exception):
    """Something is wrong with the stack or its parts; the message says what."""


@dataclass(frozen=True, slots=True)
class Group:
    """Packages that are packed together."""

    name: str
    packages: tuple[str, ...]
    """Requirements with exact versions, `name==1.2.3`. The packages that they need are not fetched."""
    takes: tuple[str, ...] = ()
    """Patterns of files that move here from earlier groups."""


@dataclass(frozen=True, slots=True)
class Stack:
    """What is packed."""

    python: str
    """Version of Python on the machine."""
    leave_out: tuple[str, ...]
    """Patterns of files that are not packed."""
    groups: tuple[Group, ...]
    """The groups, the most valuable first."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a group's archive; it is a file in the folder of a part."""

    group: str
    number: int
    """Number among the pieces of its group, from 0."""
    part: int
    """Number of the part, from 1."""
    size: int
    """Bytes."""
    sha256: str

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"{self.group}.tar.xz.{self.number:02}"


def read_stack(file: Path = STACK) -> Stack:
    """The stack of a file.

    Raises:
        PackError: the file is broken, a group repeats a name, or a package has no exact version.
    """
    try:
        found = tomllib.loads(file.read_text("utf-8"))
        groups = tuple(
            Group(g["name"], tuple(g["packages"]), tuple(g.get("takes", ()))) for g in found["group"]
        )
        stack = Stack(found["python"], tuple(found.get("leave_out", ())), groups)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackError(f"cannot read the stack in {file.name}: {error!r}") from error
    names = [group.name for group in groups]
    if len(set(names)) < len(names):
        raise PackError(f"two groups of {file.name} have one name: {', '.join(names)}")
    for package in (package for group in groups for package in group.packages):
        if "==" not in package:
            raise PackError(f"{package!r} in {file.name} needs an exact version, as in name==1.2.3")
    return stack


def download(stack: Stack, folder: Path) -> None:
    """Fetch the wheels of all groups, a folder for each.

    Raises:
        PackError: pip cannot find a wheel.
    """
    platforms = [*(f"manylinux_2_{n}_x86_64" for n in GLIBC), *OLD_PLATFORMS]
    for group in stack.groups:
        (folder / group.name).mkdir(parents=True, exist_ok=True)
        if not group.packages:
            continue
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", stack.python, "--implementation", "cp"]
        command += [f"--platform={platform}" for platform in platforms]
        command += ["--dest", str(folder / group.name), *group.packages]
        if subprocess.run(command, check=False).returncode:
            raise PackError(f"pip could not fetch the wheels of group {group.name!r}")


def pack(stack: Stack, wheels: Path, out: Path, part_bytes: int) -> list[Piece]:
    """Make the parts in `out` from the wheels of each group."""
    pieces: list[Piece] = []
    part, room = 1, part_bytes
    with TemporaryDirectory(prefix="pack-") as folder:
        for group, site in _sites(stack, wheels, Path(folder)):
            with _archive(site).open("rb") as data:
                number = 0
                while content := data.read(room):
                    piece = Piece(group.name, number, part, len(content), _sha256(content))
                    _part_folder(out, part).mkdir(parents=True, exist_ok=True)
                    (_part_folder(out, part) / piece.file).write_bytes(content)
                    pieces.append(piece)
                    number, room = number + 1, room - len(content)
                    if not room:
                        part, room = part + 1, part_bytes
    text = json.dumps([asdict(piece) for piece in pieces], indent=1)
    for number in {piece.part for piece in pieces}:
        (_part_folder(out, number) / MANIFEST).write_text(text, "utf-8")
    return pieces


def _part_folder(out: Path, number: int) -> Path:
    return out / f"part{number}"


def _sites(stack: Stack, wheels: Path, folder: Path) -> Iterator[tuple[Group, Path]]:
    """Each group with the folder of its files."""
    sites = {group.name: folder / group.name / "site" for group in stack.groups}
    for group in stack.groups:
        sites[group.name].mkdir(parents=True)
        for wheel in sorted((wheels / group.name).glob("*.whl")):
            _extract_wheel(wheel, sites[group.name])
        for file in _files(sites[group.name]):
            if any(fnmatch(file, pattern) for pattern in stack.leave_out):
                (sites[group.name] / file).unlink()
    for group in stack.groups:
        for earlier in (sites[other.name] for other in stack.groups if other is not group):
            for file in _files(earlier):
                if any(fnmatch(file, pattern) for pattern in group.takes):
                    (sites[group.name] / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(earlier / file, sites[group.name] / file)
    for group in stack.groups:
        yield group, sites[group.name]


def _extract_wheel(wheel: Path, site: Path) -> None:
    """Extract what pip would install into `site`: not scripts, headers and the like."""
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(site)
    for data in site.glob("*.data"):
        for kind in ("purelib", "platlib"):
            if (data / kind).is_dir():
                shutil.copytree(data / kind, site, dirs_exist_ok=True)
        shutil.rmtree(data)


def _files(folder: Path) -> list[str]:
    """Paths of the files below a folder, as they are named in it, in order."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _archive(site: Path) -> Path:
    """A .tar.xz of a folder `site`, with the same bytes for the same files."""
    plain = site.with_suffix(".tar")
    with tarfile.open(plain, "w") as tar:
        for name in _files(site):
            entry = tarfile.TarInfo(f"site/{name}")
            entry.size = (site / name).stat().st_size
            entry.mode = 0o755 if ".so" in name else 0o644
            with (site / name).open("rb") as content:
                tar.addfile(entry, content)
    shutil.rmtree(site)
    archive = plain.with_suffix(".tar.xz")
    if xz := shutil.which("xz"):
        subprocess.run([xz, "-T0", "-6", str(plain)], check=True)
    else:
        with plain.open("rb") as source, lzma.open(archive, "wb") as target:
            shutil.copyfileobj(source, target)
        plain.unlink()
    return archive


def unpack(part: Path, target: Path) -> tuple[list[str], list[str]]:
    """Take the pieces of a part to `target`, and unpack each group that is complete now.

    Returns:
        The groups that lie in `target/site` now, and those that still lack pieces.

    Raises:
        PackError: the part has no manifest, or a piece is not what the manifest says.
    """
    try:
        pieces = [Piece(**piece) for piece in json.loads((part / MANIFEST).read_text("utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise PackError(f"{part} is no part of a stack: {error}") from error
    held = target / "pieces"
    held.mkdir(parents=True, exist_ok=True)
    for piece in pieces:
        if (part / piece.file).exists():
            shutil.copyfile(part / piece.file, held / piece.file)
    whole, missing = [], []
    for name in dict.fromkeys(piece.group for piece in pieces):
        own = sorted((p for p in pieces if p.group == name), key=lambda piece: piece.number)
        if not all((held / piece.file).exists() for piece in own):
            missing.append(name)
            continue
        whole.append(name)
        if not (held / f"{name}.done").exists():
            _extract([(held / piece.file, piece) for piece in own], target)
            (held / f"{name}.done").touch()
    return whole, missing


def _extract(pieces: Sequence[tuple[Path, Piece]], target: Path) -> None:
    joined = io.BytesIO()
    for file, piece in pieces:
        content = file.read_bytes()
        if _sha256(content) != piece.sha256:
            raise PackError(f"{piece.file} is damaged: carry part {piece.part} again")
        joined.write(content)
    joined.seek(0)
    with tarfile.open(fileobj=joined, mode="r:xz") as tar:
        # Python 3.11.4 brought filters. Before that the attribute has no effect.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(target)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="pack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="fetch the wheels and make the parts")
    packing.add_argument("out", type=Path, help="folder for the parts")
    packing.add_argument("--part-mib", type=int, default=PART_MIB, help="size of a part")
    packing.add_argument("--wheels", type=Path, help="folder that keeps the wheels for the next time")
    unpacking = verbs.add_parser("unpack", help="unpack what is complete")
    unpacking.add_argument("part", type=Path, nargs="+")
    unpacking.add_argument("--to", type=Path, required=True, help="folder that gets `site`")
    options = parser.parse_args(arguments)
    try:
        return _pack(options) if options.verb == "pack" else _unpack(options)
    except PackError as error:
        print(error, file=sys.stderr)
        return 1


def _pack(options: argparse.Namespace) -> int:
    stack = read_stack()
    for old in options.out.glob("part[0-9]*"):
        shutil.rmtree(old)
    with TemporaryDirectory(prefix="wheels-") as folder:
        wheels = options.wheels or Path(folder)
        download(stack, wheels)
        pieces = pack(stack, wheels, options.out, options.part_mib * MIB)
    for number in sorted({piece.part for piece in pieces}):
        held = [f"{p.file} {p.size / MIB:.1f} MiB" for p in pieces if p.part == number]
        print(f"{_part_folder(options.out, number)}: {', '.join(held)}")
    return 0


def _unpack(options: argparse.Namespace) -> int:
    for part in options.part:
        whole, missing = unpack(part, options.to)
        print(f"{part}: unpacked {', '.join(whole) or 'nothing'}", end="; ")
        print(f"not complete: {', '.join(missing) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
