"""The header of a GGUF file: metadata, and how many bytes of the file each tensor takes.

This is a parser of our own because the `gguf` package reads every token of the vocabulary into NumPy.
On 2 cores the package took 2.6 s and 190 MB for a file of 98 MB, and 10.6 s and 520 MB for a file of
491 MB; this parser takes 0.1 s and needs no package. Format: docs/gguf.md of github.com/ggml-org/ggml.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluster.plan.file_kind import START_BYTES, foreign
from cluster.plan.gguf_types import least_bytes
from configs.weights import part_names

MAGIC = b"GGUF"
"""How a file begins."""
ARIA = ".aria2"
"""Ends the name of the file that aria2 keeps beside a download that it has not finished. The download
itself has its full length from the beginning."""
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of metadata values by their number in the file, as codes of `struct`."""
STRING = 8
"""Number of the type of a text."""
ARRAY = 9
"""Number of the type of a list."""
KEPT_ITEMS = 4096
"""Arrays with more items than this are vocabularies: only their length is kept."""


class NotGguf(ValueError):
    """The file is not GGUF of version 2 or 3, or ends within its header."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor, as the header describes it."""

    name: str
    shape: tuple[int, ...]
    """Its size in each dimension; the dimension whose values lie side by side comes first."""
    stored_bytes: int
    """Its bytes in the file, with the padding up to the next tensor."""


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a file before the data of the tensors."""

    metadata: dict[str, Any]
    """Values by key. An array with more than KEPT_ITEMS items is replaced by its length."""
    tensors: tuple[Tensor, ...]
    """The tensors in the order of the header."""


def read_header(path: Path) -> Header:
    """Read the header of the file at `path`.

    Raises:
        NotGguf: the file is not GGUF of version 2 or 3, or is cut; the message says what it is.
        OSError: the file cannot be read.
    """
    require_known(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _header(_Reader(data))
        except (struct.error, KeyError, UnicodeDecodeError, RecursionError) as error:
            raise NotGguf(f"it has a broken GGUF header, or is cut within it: {error}") from error


def require_known(path: Path) -> None:
    """Raise an error if the file begins as no GGUF file does.

    Raises:
        NotGguf: the message says what the file is, and what to do.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    if not start.startswith(MAGIC):
        what = foreign(start, path.stat().st_size)
        raise NotGguf(what or f"it is not a GGUF file (it begins with {start[:4]!r})")
    if path.with_name(f"{path.name}{ARIA}").exists():
        raise NotGguf(f"its download is not finished: aria2 has its {ARIA} file beside it")


def read_whole_header(path: Path) -> Header:
    """Read the header of a file, or those of all parts of a split file as one.

    Args:
        path: the file; of a split file any part, beside which the other parts lie.

    Raises:
        NotGguf: a part is missing, is no part of this file, or cannot be read; the message names it.
    """
    parts = [Path(name) for name in part_names(str(path))]
    if absent := [part.name for part in parts if not part.is_file()]:
        raise NotGguf(f"of its {len(parts)} parts, {absent[0]!r} is missing")
    return join_headers({part.name: read_header(part) for part in parts})


def join_headers(parts: Mapping[str, Header]) -> Header:
    """The headers of all parts of a file, by their names and in order, as one.

    Raises:
        NotGguf: a part is not what its name says.
    """
    for number, (name, header) in enumerate(parts.items()):
        count = max(1, _number(header, "split.count"))
        if count != len(parts):
            named = f"by its name {len(parts)}" if len(parts) > 1 else "its name is not that of a part"
            raise NotGguf(f"{name!r} says that the file has {count} parts, and {named}")
        if _number(header, "split.no") != number:
            raise NotGguf(f"{name!r} has part {_number(header, 'split.no') + 1}, not {number + 1}")
    headers = list(parts.values())
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    return Header(headers[0].metadata, tensors)


def _number(header: Header, key: str) -> int:
    value = header.metadata.get(key, 0)
    return value if isinstance(value, int) else 0


def file_bytes(path: Path) -> int:
    """Bytes of a file, or of all parts of a split file.

    Raises:
        OSError: a part is missing.
    """
    return sum(Path(name).stat().st_size for name in part_names(str(path)))


def parse_header(start: bytes, total_bytes: int) -> Header:
    """Read a header in the first bytes of a file, of which the rest need not be here.

    Args:
        start: the first bytes of the file.
        total_bytes: bytes of the whole file.

    Raises:
        NotGguf: as for `read_header`, or the header goes on behind `start`.
    """
    try:
        return _header(_Reader(start), total_bytes)
    except (struct.error, KeyError, UnicodeDecodeError, RecursionError) as error:
        raise NotGguf(f"it has a broken GGUF header: {error}") from error


def _header(reader: "_Reader", total_bytes: int | None = None) -> Header:
    magic, version = reader.bytes(4), reader.scalar("I")
    if magic != MAGIC:
        raise NotGguf(f"it is not a GGUF file (it begins with {magic!r})")
    if version & 0xFFFF == 0:
        raise NotGguf("it is for machines that put the highest byte first (big-endian)")
    if version not in (2, 3):
        raise NotGguf(f"it is GGUF of version {version}, and llama.cpp reads 2 and 3: fetch a new one")
    tensor_count, key_count = reader.scalar("Q"), reader.scalar("Q")
    metadata = {reader.string(): reader.value(reader.scalar("I")) for _ in range(key_count)}
    infos, least = [], 0
    for _ in range(tensor_count):
        name, shape, kind, at = reader.tensor()
        infos.append((name, shape, at))
        least = max(least, at + least_bytes(kind, shape))
    alignment = metadata.get("general.alignment", 32)
    if isinstance(alignment, bool) or not isinstance(alignment, int) or alignment < 1:
        raise NotGguf(f"its general.alignment is {alignment!r}, and must be a whole number from 1 on")
    start = -(-reader.at // alignment) * alignment
    # A tensor ends where the next one begins. So the sizes of quantization types need not be known.
    total = total_bytes or len(reader.data)
    if infos and total < start + least:
        raise NotGguf(
            f"the file is cut: it has {total} bytes and needs {start + least}; the download or copy is "
            "not finished"
        )
    ends = [*sorted(offset for _, _, offset in infos), total - start]
    following = dict(pairwise(ends))
    tensors = [Tensor(name, shape, following[at] - at) for name, shape, at in infos]
    if any(tensor.stored_bytes < 0 for tensor in tensors):
        raise NotGguf("the file ends before its last tensor begins")
    return Header(metadata, tuple(tensors))


class _Reader:
    """Reads one value after the other."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self.data = data
        self.at = 0

    def bytes(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self.data):
            raise struct.error("it ends in the middle")
        return self.data[self.at - count : self.at]

    def scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return value

    def string(self) -> str:
        return self.bytes(self.scalar("Q")).decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.scalar(SCALARS[kind])
        inner, count = self.scalar("I"), self.scalar("Q")
        if count <= KEPT_ITEMS:
            return [self.value(inner) for _ in range(count)]
        if inner == STRING:
            for _ in range(count):
                self.bytes(self.scalar("Q"))
        else:
            self.bytes(count * struct.calcsize(f"<{SCALARS[inner]}"))
        return count

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type of numbers, and where the tensor begins."""
        name, rank = self.string(), self.scalar("I")
        shape = tuple(self.scalar("Q") for _ in range(rank))
        return name, shape, self.scalar("I"), self.scalar("Q")
