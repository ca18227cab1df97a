"""Reads the columns of a table of figures, and names place, value and what is allowed where one is
bad."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from jobs.sets.files import read_entries
from jobs.sets.opened import SetError


class PreferencesError(UserError):
    """A file or a judgement cannot be used; the message names place, value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table, or one object of a file."""

    where: str
    """Where the line is, with the path of its file."""
    values: Mapping[str, str]
    """The values as texts, by the names of the columns."""

    def error(self, column: str, allowed: str) -> PreferencesError:
        value = self.values[column]
        return PreferencesError(f"{self.where}, column {column!r}: {value!r} is not {allowed}")

    def text(self, column: str) -> str:
        if not self.values[column]:
            raise self.error(column, "a name")
        return self.values[column]

    def whole(self, column: str) -> int:
        value = self.values[column]
        if not (value.isascii() and value.isdigit()):
            raise self.error(column, "a whole number, 0 or more")
        return int(value)

    def real(self, column: str, low: float = -math.inf, high: float = math.inf) -> float:
        allowed = "a finite number" if math.isinf(low) else f"a number from {low:g} to {high:g}"
        try:
            value = float(self.values[column])
        except ValueError:
            raise self.error(column, allowed) from None
        if not (low <= value <= high and math.isfinite(value)):
            raise self.error(column, allowed)
        return value


def read_lines(path: Path, *columns: str) -> Iterator[Line]:
    """The lines of a file, at least one; every line has these columns, and maybe others.

    Raises:
        PreferencesError: the file cannot be read, has no lines, or lacks one of the columns.
    """
    is_empty = True
    try:
        for position, fields in read_entries(path):
            is_empty = False
            # pandas writes the index of a table as a column without a name.
            named = {name or "index": _text(name, value) for name, value in fields.items()}
            if lacking := [name for name in columns if name not in named]:
                missing = ", ".join(map(repr, lacking))
                raise PreferencesError(f"{path}: no column {missing} among {list(named)}")
            yield Line(str(path.parent / position), named)
    except SetError as error:
        message = str(error)
        known = message.startswith((str(path), "cannot read"))
        raise PreferencesError(message if known else str(path.parent / message)) from error
    if is_empty:
        raise PreferencesError(f"{path}: no lines below its header")


def _text(name: str, value: Any) -> str:
    """A value as text. White space at its ends is no part of it, unless the value is an answer."""
    text = "" if value is None else str(value)
    return text if name.startswith("output") else text.strip()
