"""Reads judgements of pairs, and AlpacaEval's gamed rows, which length control needs.

The files are tables (CSV, TSV), JSON, JSON lines or Parquet, plain or packed. They have these columns,
in any order; other columns are ignored:

    judgements    generator, row, preference (1 to 2, empty without a verdict), len_1, len_2;
                  maybe index, instruction, judge and baseline
    annotations   AlpacaEval's annotations.json: instruction, generator_1, output_1, generator_2,
                  output_2, preference, annotator; without annotator they are votes (`votes.py`)
    gamed rows    preference (0 to 1), std_delta_len, instruction_difficulty, not_gamed_baseline

`len_1` and `len_2` are the lengths in characters of the baseline's and of the generator's answer. `row`
is the position in the official annotations, and `index` the position in AlpacaEval.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jobs.scores.columns import Line, PreferencesError, read_lines
from jobs.sets.known_sets import fingerprint, known_set

NOT_NAMED = "not named"
"""Stands for a judge or a baseline whose name is unknown."""
OFFICIAL_BASELINE = "gpt4_1106_preview"
"""The leaderboard's baseline."""
OFFICIAL_GAMED = "official file"
"""The `source` of gamed rows from the leaderboard's own file."""
OFFICIAL_GAMED_SHA256 = "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d"
"""Checksum of df_gamed.csv of the dataset tatsu-lab/alpaca_eval, revision 2edc6fad, as others published
it. We never had the file itself."""
MOST_MISSING = 4
"""AlpacaEval's own annotations lack so many of the 805 rows at most (`n_total` on the leaderboard).
Their positions then lag behind the positions of the set."""
OTHER_ROWS = 805
"""The number of the first row that is none of AlpacaEval's, in a file that numbers no rows."""
JUDGEMENT = ("generator", "len_1", "len_2")
"""Columns that a table of judgements must have, besides `preference`, and `row` or `instruction`."""
ANNOTATION = ("generator_1", "output_1", "generator_2", "output_2", "instruction")
"""Fields that one of AlpacaEval's annotations must have, besides `preference`."""
Names = tuple[str, str, str]
"""The names of a generator, of its judge and of its baseline."""
DRAW = 1.5
"""The preference for neither answer. AlpacaEval's older annotations write 0 instead."""


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
    prompts: tuple[str, ...] = ()
    """The fingerprint of each row's instruction; empty if the instructions are not known."""
    are_positions: bool = False
    """Whether the rows are known to be positions of AlpacaEval, although the instructions are not
    known."""
    reasons: tuple[str, ...] = ()
    """Why figures of these verdicts are not the leaderboard's, as far as rows and answers tell."""
    are_votes: bool = False
    """Whether a person has voted on whatever people asked, and no judge on the rows of a benchmark."""

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


class _Judged(NamedTuple):
    """One judgement of a file."""

    row: int
    position: int | None
    """The position in AlpacaEval, if the file says it."""
    prompt: str
    """The fingerprint of the instruction; empty if the file has no instructions."""
    preference: float | None
    len_1: int
    len_2: int


def read_preferences(
    path: Path, *, judge: str = NOT_NAMED, baseline: str = NOT_NAMED
) -> list[Preferences]:
    """Read published judgements, by generator, judge and baseline, in the order of the file.

    Args:
        path: The file of judgements.
        judge: Name of the judge, if the file does not name it.
        baseline: Name of the baseline, if the file does not name it.

    Raises:
        PreferencesError: the file cannot be read, or a value is not allowed.
    """
    reader = _Reader(path, judge, baseline)
    for line in read_lines(path, "preference"):
        reader.add(line)
    return [
        _columns(*names, [rows[row] for row in sorted(rows)]) for names, rows in reader.found.items()
    ]


class _Reader:
    """Takes in judgements line by line."""

    def __init__(self, path: Path, judge: str, baseline: str) -> None:
        self.found: dict[Names, dict[int, _Judged]] = {}
        self._path = path
        self._judge = judge
        self._baseline = baseline
        self._prompts: dict[Names, set[str]] = {}

    def add(self, line: Line) -> None:
        """Take in a judgement.

        Raises:
            PreferencesError: a value is not allowed, or the generator has the row already.
        """
        values = line.values
        is_annotation = "output_2" in values
        prompt = fingerprint(values["instruction"]) if values.get("instruction") else ""
        columns = [*JUDGEMENT, *["row"] * (not prompt)]
        require_columns(self._path, values, ANNOTATION if is_annotation else columns)
        by = values.get("annotator") or values.get("judge") or self._judge
        if is_annotation:
            names = (line.text("generator_2"), by, values["generator_1"] or self._baseline)
            lengths = (len(values["output_1"]), len(values["output_2"]))
        else:
            names = (line.text("generator"), by, values.get("baseline") or self._baseline)
            lengths = (line.whole("len_1"), line.whole("len_2"))
        rows = self.found.setdefault(names, {})
        position = known_set("alpaca_eval").positions.get(prompt)
        index = line.whole("index") if values.get("index") and not prompt else position
        if values.get("row"):
            row = line.whole("row")
        else:  # rows of other sets come behind AlpacaEval's
            row = OTHER_ROWS + len(rows) if position is None else position
        column = "row" if values.get("row") else "instruction"
        prompts = self._prompts.setdefault(names, set())
        if row in rows or (prompt and prompt in prompts):
            raise line.error(column, f"a {column} that the generator does not have yet")
        prompts.add(prompt)
        rows[row] = _Judged(row, index, prompt, preference(line), *lengths)


def require_columns(path: Path, values: Mapping[str, str], columns: Sequence[str]) -> None:
    """Check that a line of a file has these columns.

    Raises:
        PreferencesError: the line lacks some.
    """
    if lacking := [name for name in columns if name not in values]:
        missing = ", ".join(map(repr, lacking))
        raise PreferencesError(f"{path}: no column {missing} among {list(values)}")


def preference(line: Line) -> float | None:
    """The preference that a line tells, from 1 to 2; None without a verdict.

    Raises:
        PreferencesError: the value is not allowed.
    """
    value = line.values["preference"]
    is_annotation = "output_2" in line.values
    if not value or (is_annotation and value == "nan"):
        return None
    return DRAW if is_annotation and value in ("0", "0.0") else line.real("preference", 1, 2)


def _columns(name: str, judge: str, baseline: str, judged: Sequence[_Judged]) -> Preferences:
    rows, _, prompts, preferences, len_1, len_2 = zip(*judged, strict=True)
    whole = prompts if all(prompts) else ()
    are_positions = not whole and _are_alpaca_evals(judged)
    reasons: tuple[str, ...] = ()
    if whole:
        positions = map(known_set("alpaca_eval").positions.get, whole)
        reasons = tuple(set_reasons(list(positions), len_1, baseline))
    elif not are_positions:
        reasons = ("set: the file does not tell its instructions",)
    columns = (rows, preferences, len_1, len_2)
    return Preferences(name, *columns, judge, baseline, 0, whole, are_positions, reasons)


def set_reasons(
    positions: Sequence[int | None], len_baseline: Sequence[int | None], baseline: str
) -> Iterator[str]:
    """Why figures over these rows are not the leaderboard's.

    Args:
        positions: The position of each row in AlpacaEval; None for a row of another set.
        len_baseline: The length of the baseline's answer to each row; None for a row without an answer.
        baseline: The baseline's name. Under the leaderboard's name, its answers must be those of the
            leaderboard's file, as far as their lengths tell.
    """
    if others := sum(position is None for position in positions):
        yield f"set: {others} of {len(positions)} rows are not AlpacaEval's"
    elif baseline == OFFICIAL_BASELINE:
        expected = known_set("alpaca_eval").baseline_lengths
        pairs = zip(positions, len_baseline, strict=True)
        if changed := sum(
            length is not None and position is not None and length != expected[position]
            for position, length in pairs
        ):
            yield f"baseline: {changed} answers are not as long as those of the leaderboard's file"


def _are_alpaca_evals(judged: Sequence[_Judged]) -> bool:
    """Whether the rows are those of AlpacaEval. The lengths of the leaderboard's baseline answers tell
    it: hardly two sets, or two orders of one set, have the same lengths.

    Without `index`, the positions of official annotations lag behind where rows are missing.
    """
    lengths = known_set("alpaca_eval").baseline_lengths
    places = [each.row if each.position is None else each.position for each in judged]
    if all(place < len(lengths) for place in places) and all(
        lengths[place] == each.len_1 for place, each in zip(places, judged, strict=True)
    ):
        return True
    if not 0 <= len(lengths) - len(judged) <= MOST_MISSING:
        return False
    rest = iter(lengths)
    return all(each.len_1 in rest for each in judged)


def read_gamed(path: Path, source: str | None = None) -> Gamed:
    """Read AlpacaEval's judgements of its baseline against itself; see `Gamed` for their use.

    Args:
        path: The file, with the columns of gamed rows in the docstring of this module.
        source: Name of the rows' source for reports. By default, OFFICIAL_GAMED if the file has the
            SHA-256 of the leaderboard's file, and the file's name otherwise.

    Raises:
        PreferencesError: the file cannot be read, or a value is not allowed.
    """
    rows = list(_read_gamed_rows(path))
    wins, lengths, difficulties = zip(*rows, strict=True)
    return Gamed(source or _source(path), wins, lengths, difficulties)


def _read_gamed_rows(path: Path) -> Iterator[tuple[float, float, float]]:
    columns = "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"
    for line in read_lines(path, *columns):
        if line.values["not_gamed_baseline"].lower() != "false":
            raise line.error("not_gamed_baseline", "False")
        yield line.real("preference", 0, 1), line.real(columns[1]), line.real(columns[2])


def _source(path: Path) -> str:
    is_official = hashlib.sha256(path.read_bytes()).hexdigest() == OFFICIAL_GAMED_SHA256
    return OFFICIAL_GAMED if is_official else path.name
