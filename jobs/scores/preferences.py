"""Reads judgements of pairs, and the two files of AlpacaEval that length control needs.

The files are CSV, plain or gzipped (`.gz`). They have these columns, in any order; other columns are
ignored:

    preferences   generator, row, preference (1 to 2, empty without a verdict), len_1, len_2
    difficulty    index (or no name), instruction_difficulty
    gamed rows    preference (0 to 1), std_delta_len, instruction_difficulty, not_gamed_baseline

`len_1` and `len_2` are the lengths in characters of the baseline's and of the generator's answer.
"""

import csv
import gzip
import hashlib
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError

NOT_NAMED = "not named"
"""Stands for a judge or a baseline whose name is unknown."""
OFFICIAL_GAMED = "official file"
"""The `source` of gamed rows from the leaderboard's own file."""
OFFICIAL_GAMED_SHA256 = "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d"
"""Checksum of df_gamed.csv of the dataset tatsu-lab/alpaca_eval, revision 2edc6fad, as others published
it. We never had the file itself."""


class PreferencesError(UserError):
    """A file or a judgement cannot be used; the message names place, value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """A judge's verdicts on one generator against a baseline: columns of equal length, in row order."""

    generator: str
    rows: tuple[int, ...]
    """Positions of the rows in the set, from 0."""
    preferences: tuple[float | None, ...]
    """From 1 (the baseline's answer is better) to 2 (the generator's is); None without a verdict."""
    len_baseline: tuple[int, ...]
    """Length of the baseline's answer to each row, in characters."""
    len_generator: tuple[int, ...]
    """Length of the generator's answer to each row, in characters."""
    judge: str = NOT_NAMED
    baseline: str = NOT_NAMED
    unjudged: int = 0
    """Number of rows of the set that are not in the columns."""

    def wins(self) -> list[float]:
        """The probability that the generator wins, 0 to 1, for each judged row."""
        return [value - 1 for value in self.preferences if value is not None]


@dataclass(frozen=True, slots=True)
class Gamed:
    """Rows that keep the regression from explaining too much by length.

    Each row compares the baseline with itself when told to be verbose, or when told to be concise.
    """

    source: str
    """Where the rows come from."""
    wins: tuple[float, ...]
    """The preference of each row, 0 to 1."""
    lengths: tuple[float, ...]
    """The difference in length of each row, in standard deviations."""
    difficulties: tuple[float, ...]
    """The difficulty of each row's instruction."""


def read_preferences(
    path: Path, *, judge: str = NOT_NAMED, baseline: str = NOT_NAMED
) -> dict[str, Preferences]:
    """Read published judgements, by generator; the generators come in the order of the file.

    Args:
        path: The file of judgements.
        judge: Name of the judge, which the file does not hold.
        baseline: Name of the baseline, which the file does not hold.

    Raises:
        PreferencesError: the file cannot be read, or a value is not allowed.
    """
    found: dict[str, dict[int, tuple[float | None, int, int]]] = {}
    for line in _lines(path, "generator", "row", "preference", "len_1", "len_2"):
        rows = found.setdefault(line.text("generator"), {})
        row = line.whole("row")
        if row in rows:
            raise line.error("row", "a row that the generator does not have yet")
        preference = line.real("preference", 1, 2) if line.values["preference"] else None
        rows[row] = preference, line.whole("len_1"), line.whole("len_2")
    return {name: _columns(name, rows, judge, baseline) for name, rows in found.items()}


def _columns(
    name: str, rows: Mapping[int, tuple[float | None, int, int]], judge: str, baseline: str
) -> Preferences:
    order = sorted(rows)
    preferences, len_baseline, len_generator = zip(*(rows[row] for row in order), strict=True)
    return Preferences(name, tuple(order), preferences, len_baseline, len_generator, judge, baseline)


def read_difficulty(path: Path) -> dict[int, float]:
    """Read the difficulty of each instruction of AlpacaEval, by its position in the set.

    Raises:
        PreferencesError: the file cannot be read, or a value is not allowed.
    """
    found: dict[int, float] = {}
    for line in _lines(path, "index", "instruction_difficulty"):
        index, value = line.whole("index"), line.real("instruction_difficulty")
        if found.setdefault(index, value) != value:
            raise line.error("instruction_difficulty", f"index {index}'s value above, {found[index]}")
    return found


def read_gamed(path: Path, source: str | None = None) -> Gamed:
    """Read AlpacaEval's judgements of its baseline against itself; see `Gamed` for their use.

    Args:
        path: The file, with the columns of gamed rows in the docstring of this module.
        source: Name of the rows' source for reports. By default, OFFICIAL_GAMED if the file has the
            SHA-256 of the leaderboard's file, and the file's name otherwise.

    Raises:
        PreferencesError: the file cannot be read, or a value is not allowed.
    """
    columns = "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"
    rows = []
    for line in _lines(path, *columns):
        if line.values["not_gamed_baseline"].lower() != "false":
            raise line.error("not_gamed_baseline", "False")
        rows.append((line.real("preference", 0, 1), *(line.real(name) for name in columns[1:3])))
    wins, lengths, difficulties = zip(*rows, strict=True)
    return Gamed(source or _source(path), wins, lengths, difficulties)


def _source(path: Path) -> str:
    is_official = hashlib.sha256(path.read_bytes()).hexdigest() == OFFICIAL_GAMED_SHA256
    return OFFICIAL_GAMED if is_official else path.name


@dataclass(frozen=True, slots=True)
class _Line:
    path: Path
    number: int
    values: Mapping[str, str]

    def error(self, column: str, allowed: str) -> PreferencesError:
        value = self.values[column]
        return PreferencesError(
            f"{self.path}, line {self.number}, column {column!r}: {value!r} is not {allowed}"
        )

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


def _lines(path: Path, *columns: str) -> Iterator[_Line]:
    """Read the lines of a CSV file, at least one; every line has these columns."""
    text = io.StringIO(_read(path), newline="")
    reader = csv.DictReader(text, restval="", strict=True)
    # pandas writes the index of a table as a column without a name.
    names = ["index" if name == "" else name for name in reader.fieldnames or ()]
    if lacking := [name for name in columns if name not in names]:
        raise PreferencesError(f"{path}: no column {', '.join(map(repr, lacking))} among {names}")
    reader.fieldnames = names
    number = 0
    try:
        for record in reader:
            number = reader.line_num
            yield _Line(path, number, {name: record[name].strip() for name in columns})
    except csv.Error as error:
        raise PreferencesError(f"{path}, line {reader.line_num + 1}: not CSV: {error}") from error
    if not number:
        raise PreferencesError(f"{path}: no lines below its header")


def _read(path: Path) -> str:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                return file.read().decode("utf-8-sig")
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise PreferencesError(f"cannot read {path}: {error}") from error
