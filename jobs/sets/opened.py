"""Opens a user's file: unpacks its bytes, and reads its text in whichever Unicode encoding it has."""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from configs.errors import UserError


class SetError(UserError):
    """A set, or a file of outputs, cannot be fetched or read; the message names file, position and
    field."""


def _open_zstd(path: Path) -> IO[bytes]:
    try:
        from pyarrow import input_stream
    except ImportError as error:
        raise SetError(
            f"{path}: Zstandard needs pyarrow: pip install 'slimmoa[bench]', or unpack it: zstd -d"
        ) from error
    return io.BufferedReader(cast("io.RawIOBase", input_stream(path, compression="zstd")))


def _open_gzip(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path))


def _open_bz2(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", bz2.open(path))


def _open_xz(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", lzma.open(path))


PACKED: dict[str, tuple[bytes, Callable[[Path], IO[bytes]]]] = {
    ".gz": (b"\x1f\x8b", _open_gzip),
    ".zst": (b"\x28\xb5\x2f\xfd", _open_zstd),
    ".bz2": (b"BZh", _open_bz2),
    ".xz": (b"\xfd7zXZ\x00", _open_xz),
}
"""The kinds of compression, by the ending of a file's name: the first bytes of such a file, and what
opens the file."""


def open_unpacked(path: Path) -> IO[bytes]:
    """A file's bytes, unpacked.

    The ending of the name tells the compression. A file whose name does not tell it is recognised by
    its first bytes, because downloads often lose the ending.

    Raises:
        SetError: Zstandard's library is not installed.
        OSError: the file cannot be read.
    """
    if (packed := PACKED.get(path.suffix.lower())) is not None:
        return packed[1](path)
    file = path.open("rb")
    start = file.peek()[:8]
    for magic, opened in PACKED.values():
        if start.startswith(magic):
            file.close()
            return opened(path)
    return file


def inner_name(path: Path) -> Path:
    """The path without the ending that tells the compression."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


@contextmanager
def as_text(file: IO[bytes]) -> Iterator[io.TextIOWrapper]:
    """The text of a file, within a `with` block. The line ends are as they are in the file. Whoever has
    opened the file closes it.

    A byte order mark tells the encoding; without one, zero bytes among the first four tell UTF-16 and
    UTF-32, since data files begin with ASCII characters. Everything else is UTF-8.
    """
    buffered = cast("io.BufferedReader", file)
    encoding = json.detect_encoding(buffered.peek(4)[:4])
    text = io.TextIOWrapper(buffered, encoding, newline="")
    try:
        yield text
    finally:
        text.detach()
