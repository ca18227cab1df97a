"""A user's file -> its records, one after another, each with its place for messages.

JSON (a list of objects), JSONL, CSV and Parquet, by the name's ending, also with .gz after it. All but
JSON are streamed.
"""

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, cast

from configs.errors import UserError

BATCH_ROWS = 500

Placed = tuple[str, dict[str, Any]]


class SetError(UserError):
    """A set, or a file of outputs, cannot be had or read; the message names file, place and field."""


def records(path: Path) -> Iterator[Placed]:
    """Each record with its place, such as `prompts.jsonl, line 3`.

    Raises:
        SetError: the file cannot be read, or a record is no object.
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


def _json(file: IO[bytes], name: str) -> Iterator[Placed]:
    try:
        found = json.loads(file.read().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise SetError(f"{name} is not JSON: {error}; one object a line is JSONL: .jsonl") from error
    if not isinstance(found, list):
        raise SetError(f"{name} holds one {type(found).__name__}; a list of objects is needed")
    for number, record in enumerate(found, 1):
        yield _placed(f"{name}, row {number}", record)


def _jsonl(file: IO[bytes], name: str) -> Iterator[Placed]:
    for number, line in enumerate(file, 1):
        place = f"{name}, line {number}"
        if text := line.decode("utf-8-sig").strip():
            try:
                yield _placed(place, json.loads(text))
            except json.JSONDecodeError as error:
                raise SetError(f"{place} is not JSON: {error}") from error


def _csv(file: IO[bytes], name: str) -> Iterator[Placed]:
    csv.field_size_limit(sys.maxsize)  # 131,072 characters by default; a prompt may be longer
    reader = csv.DictReader(_lines(file), strict=True)
    try:
        for record in reader:
            place = f"{name}, line {reader.line_num}"
            if None in record or None in record.values():
                raise SetError(f"{place} has not as many fields as the first line")
            yield place, record
    except csv.Error as error:
        raise SetError(f"{name}, line {reader.line_num} is not CSV: {error}") from error


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Text with its line ends as they are: a quoted field may hold some."""
    for number, line in enumerate(file):
        yield line.decode("utf-8" if number else "utf-8-sig")


def _parquet(file: IO[bytes], name: str) -> Iterator[Placed]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise SetError(f"{name}: Parquet needs pyarrow: pip install 'slimmoa[bench]'") from error
    try:
        with closing(ParquetFile(file)) as table:
            number = 0
            for batch in table.iter_batches(batch_size=BATCH_ROWS):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{name}, row {number}", record
    except pyarrow.ArrowException as error:
        raise SetError(f"{name} is not Parquet: {error}") from error


def _placed(place: str, record: Any) -> Placed:
    if not isinstance(record, dict):
        raise SetError(f"{place} is {type(record).__name__}, not an object")
    return place, record


_READERS: dict[str, Callable[[IO[bytes], str], Iterator[Placed]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
