"""Judgements of pairs as columns, and the two files of AlpacaEval that length control needs.

Files are CSV, also gzipped (`.gz`), with these columns, in any order and beside others:

    preferences   generator, row, preference (1 to 2, empty without a verdict), len_1, len_2
    difficulty    index (or no name), instruction_difficulty
    gamed rows    preference (0 to 1), std_delta_len, instruction_difficulty, not_gamed_baseline
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
OFFICIAL_GAMED = "official file"
# df_gamed.csv of the dataset tatsu-lab/alpaca_eval at its revision 2edc6fad,
# as others published it: we never had the file.
OFFICIAL_GAMED_SHA256 = "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d"


class PreferencesError(UserError):
    """A file or a judgement cannot be used; the message names the place, the value, what is allowed."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """A judge's verdicts on one generator against a baseline: columns of equal length, in row order.

    rows: positions in the set's order; preferences: 1 (baseline) to 2 (generator), None where the
    verdict is missing; len_baseline, len_generator: characters; unjudged: rows of the set that are not
    in the columns at all.
    """

    generator: str
    rows: tuple[int, ...]
    preferences: tuple[float | None, ...]
    len_baseline: tuple[int, ...]
    len_generator: tuple[int, ...]
    judge: str = NOT_NAMED
    baseline: str = NOT_NAMED
    unjudged: int = 0

    def wins(self) -> list[float]:
        """How likely each judged row is won, 0 to 1."""
        return [value - 1 for value in self.preferences if value is not None]


@dataclass(frozen=True, slots=True)
class Gamed:
    """Rows that keep the length's weight honest: the baseline told to be verbose, and to be concise.

    source: where they come from; wins: 0 to 1; lengths: standardised differences; difficulties.
    """

    source: str
    wins: tuple[float, ...]
    lengths: tuple[float, ...]
    difficulties: tuple[float, ...]


def read_preferences(
    path: Path, *, judge: str = NOT_NAMED, baseline: str = NOT_NAMED
) -> dict[str, Preferences]:
    """Published judgements by generator, in the file's order. The file itself names no judge.

    Raises:
        PreferencesError: it cannot be read, or a value is not allowed.
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
    """How hard each row of AlpacaEval is, by its position in the set.

    Raises:
        PreferencesError: it cannot be read, or a value is not allowed.
    """
    found: dict[int, float] = {}
    for line in _lines(path, "index", "instruction_difficulty"):
        index, value = line.whole("index"), line.real("instruction_difficulty")
        if found.setdefault(index, value) != value:
            raise line.error("instruction_difficulty", f"index {index}'s value above, {found[index]}")
    return found


def read_gamed(path: Path, source: str | None = None) -> Gamed:
    """Rows of gamed baselines. Without a source, the official file is known by its SHA-256, and others
    are called by the file's name.

    Raises:
        PreferencesError: it cannot be read, or a value is not allowed.
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
    """A CSV file's lines, at least one, all with these columns."""
    text = io.StringIO(_read(path), newline="")
    reader = csv.DictReader(text, restval="", strict=True)
    # pandas writes a table's index as a column without a name.
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
