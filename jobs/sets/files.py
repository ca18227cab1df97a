"""Reads the entries of a user's file one after another, each with its position for messages.

The ending of the name tells the format: JSON (a list of objects), JSONL, CSV or Parquet, also with .gz
after it. Files of all formats but JSON are streamed.
"""

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from configs.errors import UserError

BATCH_ROWS = 500
"""Rows of a Parquet file that are in memory at once."""


class SetError(UserError):
    """A set, or a file of outputs, cannot be fetched or read; the message names file, position and
    field."""


class FileEntry(NamedTuple):
    """One object of a file."""

    position: str
    """Where the entry is, for example `prompts.jsonl, line 3`; messages show this."""

    fields: dict[str, Any]
    """The values by the names of the fields."""


def read_entries(path: Path) -> Iterator[FileEntry]:
    """The entries of a file, in their order.

    Raises:
        SetError: the file's name has another ending, the file cannot be read, or an entry is not an
            object.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    ending = (suffixes[-2:-1] if zipped else suffixes[-1:]) or [""]
    read = _READERS.get(ending[0])
    if read is None:
        raise SetError(f"{path}: the name must end in {', '.join(_READERS)}, or one of them and .gz")
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            yield from read(cast("IO[bytes]", file), path.name)
    except (OSError, EOFError, UnicodeError, zlib.error) as error:
        raise SetError(f"cannot read {path}: {error}") from error


def _read_json(file: IO[bytes], name: str) -> Iterator[FileEntry]:
    try:
        found = json.loads(file.read().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise SetError(f"{name} is not JSON: {error}; one object a line is JSONL: .jsonl") from error
    if not isinstance(found, list):
        raise SetError(f"{name} holds one {type(found).__name__}; a list of objects is needed")
    for number, value in enumerate(found, 1):
        yield _require_object(f"{name}, row {number}", value)


def _read_jsonl(file: IO[bytes], name: str) -> Iterator[FileEntry]:
    for number, line in enumerate(file, 1):
        position = f"{name}, line {number}"
        if text := line.decode("utf-8-sig").strip():
            try:
                yield _require_object(position, json.loads(text))
            except json.JSONDecodeError as error:
                raise SetError(f"{position} is not JSON: {error}") from error


def _read_csv(file: IO[bytes], name: str) -> Iterator[FileEntry]:
    csv.field_size_limit(sys.maxsize)  # the default is 131,072 characters; a prompt may be longer
    reader = csv.DictReader(_lines(file), strict=True)
    try:
        for fields in reader:
            position = f"{name}, line {reader.line_num}"
            if None in fields or None in fields.values():
                raise SetError(f"{position} has not as many fields as the first line")
            yield FileEntry(position, fields)
    except csv.Error as error:
        raise SetError(f"{name}, line {reader.line_num} is not CSV: {error}") from error


def _lines(file: IO[bytes]) -> Iterator[str]:
    """The lines of a file with their line ends unchanged: a quoted field may contain some."""
    for number, line in enumerate(file):
        yield line.decode("utf-8" if number else "utf-8-sig")


def _read_parquet(file: IO[bytes], name: str) -> Iterator[FileEntry]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise SetError(f"{name}: Parquet needs pyarrow: pip install 'slimmoa[bench]'") from error
    try:
        with closing(ParquetFile(file)) as table:
            number = 0
            for batch in table.iter_batches(batch_size=BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield FileEntry(f"{name}, row {number}", fields)
    except pyarrow.ArrowException as error:
        raise SetError(f"{name} is not Parquet: {error}") from error


def _require_object(position: str, value: Any) -> FileEntry:
    if not isinstance(value, dict):
        raise SetError(f"{position} is {type(value).__name__}, not an object")
    return FileEntry(position, value)


_READERS: dict[str, Callable[[IO[bytes], str], Iterator[FileEntry]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
