"""Reads the entries of a user's file one after another, each with its position for messages.

The ending of the name tells the format: JSON (a list of objects), JSON lines, CSV, TSV or Parquet, and
compression if another ending follows. Files of all formats but JSON are streamed.
"""

import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

from jobs.sets.delimited import read_delimited
from jobs.sets.opened import PACKED, SetError, as_text, inner_name, open_unpacked

BATCH_ROWS = 500
"""Rows of a Parquet file that are in memory at once."""
SHOWN_KEYS = 6
"""A message lists so many keys at most."""


class FileEntry(NamedTuple):
    """One object of a file."""

    position: str
    """Where the entry is, for example `prompts.jsonl, line 3`; messages show this."""

    fields: dict[str, Any]
    """The values by the names of the fields."""


class _DoubledKey(ValueError):
    """A JSON object has a key twice."""


def read_entries(path: Path) -> Iterator[FileEntry]:
    """The entries of a file, in their order.

    Raises:
        SetError: the file's name has another ending, the file cannot be read, an entry is not an
            object, or an entry or a table has two values under one name.
    """
    read = _READERS.get(inner_name(path).suffix.lower())
    if read is None:
        endings, packed = ", ".join(_READERS), " or ".join(PACKED)
        raise SetError(f"{path}: the name must end in {endings}, or one of them and {packed}")
    try:
        with open_unpacked(path) as file:
            yield from read(file, path.name)
    except UnicodeError as error:
        raise SetError(
            f"cannot read {path}: it is not text in UTF-8 or UTF-16 ({error}); "
            "to convert it: iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else _cause(error)
        raise SetError(f"cannot read {path}: {why}") from error


def _cause(error: Exception) -> str:
    """An error's words, without the number and the path that an OSError adds."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _read_json(file: IO[bytes], name: str) -> Iterator[FileEntry]:
    with as_text(file) as lines:
        text = lines.read()
    try:
        found = _loads(name, text)
    except json.JSONDecodeError as error:
        # Many files that are called .json have one object a line.
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            yield from _read_lines(iter(text.split("\n")), name)
            return
        raise SetError(f"{name} is not JSON: {error}; one object a line is JSONL: .jsonl") from error
    for number, value in enumerate(_list_of(found, name), 1):
        yield _require_object(f"{name}, row {number}", value)


def _list_of(found: Any, name: str) -> list[Any]:
    """The entries of a JSON file: a list, or an object whose only list of objects has them."""
    if isinstance(found, list):
        return found
    if not isinstance(found, dict):
        raise SetError(f"{name} holds one {type(found).__name__}; a list of objects is needed")
    lists = [each for each in found.values() if isinstance(each, list) and each]
    lists = [each for each in lists if all(isinstance(value, dict) for value in each)]
    if not lists and (rows := _from_columns(found)):
        return rows
    if len(lists) != 1:
        keys = ", ".join(map(repr, [*found][:SHOWN_KEYS])) or "no keys"
        raise SetError(f"{name} holds one dict ({keys}); a list of objects is needed")
    return lists[0]


def _from_columns(found: dict[str, Any]) -> list[Any]:
    """The rows of a table that pandas has written column by column; empty for any other object."""
    columns = list(found.values())
    if not columns or not all(isinstance(each, dict) and each for each in columns):
        return []
    rows = list(columns[0])
    if any(list(each) != rows for each in columns):
        return []
    return [{name: column[row] for name, column in found.items()} for row in rows]


def _read_jsonl(file: IO[bytes], name: str) -> Iterator[FileEntry]:
    with as_text(file) as lines:
        blank: list[str] = []
        for first in lines:
            if not first.strip():
                blank.append(first)
            elif first.lstrip().startswith("["):  # a list, in spite of the name
                yield from _read_list("".join([first, *lines]), name)
            else:
                yield from _read_lines(chain(blank, [first], lines), name)


def _read_list(text: str, name: str) -> Iterator[FileEntry]:
    try:
        found = _loads(name, text)
    except json.JSONDecodeError as error:
        raise SetError(f"{name} is not JSON, neither a list nor lines: {error}") from error
    for number, value in enumerate(_list_of(found, name), 1):
        yield _require_object(f"{name}, row {number}", value)


def _read_lines(lines: Iterator[str], name: str) -> Iterator[FileEntry]:
    for number, line in enumerate(lines, 1):
        position = f"{name}, line {number}"
        if line.strip():
            try:
                yield _require_object(position, _loads(position, line))
            except json.JSONDecodeError as error:
                raise SetError(f"{position} is not JSON: {error}") from error


def _loads(position: str, text: str) -> Any:
    """The value of a JSON text, in which no object has a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_to_dict)
    except _DoubledKey as error:
        raise SetError(f"{position}: an object has the field {error} twice") from error
    except RecursionError as error:
        raise SetError(f"{position}: the JSON is nested too deeply") from error


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _DoubledKey(repr(next(name for name in names if names.count(name) > 1)))
    return found


def _read_delimited(file: IO[bytes], name: str) -> Iterator[FileEntry]:
    return (FileEntry(*found) for found in read_delimited(file, name))


def _read_parquet(file: IO[bytes], name: str) -> Iterator[FileEntry]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise SetError(f"{name}: Parquet needs pyarrow: pip install 'slimmoa[bench]'") from error
    try:
        with closing(ParquetFile(file)) as table:
            columns = table.schema_arrow.names
            if doubled := next((each for each in columns if columns.count(each) > 1), None):
                raise SetError(f"{name} has several columns {doubled!r}; rename all but one of them")
            number = 0
            for batch in table.iter_batches(batch_size=BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield FileEntry(f"{name}, row {number}", fields)
    except pyarrow.ArrowException as error:
        raise SetError(f"{name} is not Parquet: {error}") from error


def _require_object(position: str, value: Any) -> FileEntry:
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise SetError(f'{position} is {kind}, not an object; an object is {{"question": "TEXT"}}')
    return FileEntry(position, value)


_READERS: dict[str, Callable[[IO[bytes], str], Iterator[FileEntry]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".jsonlines": _read_jsonl,
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".parquet": _read_parquet,
}
