"""Reads tables of text: comma-separated, tab-separated, and the semicolons of Excel in many
countries."""

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import IO, Any, TextIO

from jobs.sets.opened import SetError, as_text

DELIMITERS = (",", "\t", ";", "|")
"""What may stand between two fields. Among delimiters that split the first line into equally many
fields the first one counts."""
DECLARATION = "sep="
"""Excel's own line before the first line of a table, which names the delimiter."""


def read_delimited(file: IO[bytes], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of a table below its first line, each with its position for messages.

    The first line has the names of the columns. It tells the delimiter too: the one that splits the
    line into the most fields.

    Raises:
        SetError: the table is not sound, a line has more or fewer fields than the first one, or two
            columns have one name.
    """
    csv.field_size_limit(sys.maxsize)  # the default is 131,072 characters; a prompt may be longer
    with as_text(file) as lines:
        yield from _read_rows(lines, name)


def _read_rows(lines: TextIO, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    first, before = lines.readline(), 0
    delimiter = None
    if first.lower().startswith(DECLARATION):
        delimiter = first.strip()[len(DECLARATION) :] or None
        first, before = lines.readline(), 1
    delimiter = delimiter or _delimiter(first)
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        _require_different(columns, name)
        for values in reader:
            position = f"{name}, line {reader.line_num + before}"
            if not any(value.strip() for value in values):
                continue  # spreadsheets write rows of delimiters alone below a table
            if len(values) != len(columns):
                raise SetError(f"{position} has not as many fields as the first line")
            yield position, dict(zip(columns, values, strict=True))
    except csv.Error as error:
        raise SetError(f"{name}, line {reader.line_num + before} is not CSV: {error}") from error


def _delimiter(first: str) -> str:
    return max(DELIMITERS, key=lambda delimiter: _field_count(first, delimiter))


def _field_count(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader(io.StringIO(line), delimiter=delimiter, strict=True), []))
    except csv.Error:
        return 0


def _require_different(columns: list[str], name: str) -> None:
    """Raise SetError if two columns have one name: a value would take the place of another one."""
    for column, times in Counter(columns).items():
        if times > 1 and column:
            raise SetError(f"{name} has {times} columns {column!r}; rename all but one of them")
