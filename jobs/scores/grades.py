"""Computes mean grades from verdicts, and says where they are not MT-Bench's."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, NamedTuple

from jobs.judges.grade import TURNS, shown_references
from jobs.records import Generator, Row, Verdict
from jobs.scores.score import today
from jobs.sets.known_sets import MT_BENCH_WITH_REFERENCE, known_set
from jobs.store import Store

JUDGE_PREFIX = "gpt-4:judge_prompts-"
"""How the name of MT-Bench's judge begins: GPT-4 with FastChat's `judge_prompts.jsonl`."""
REFERENCES = "gpt-4.jsonl"
"""Name of MT-Bench's file of reference answers."""
ROWS = 80
"""Questions of MT-Bench."""
NOT_COMPARABLE = "not comparable with MT-Bench's figures"


@dataclass(frozen=True, slots=True)
class Grades:
    """A generator's mean grades, from 1 to 10."""

    generator: str
    judge: str
    date: str
    """The day of the computation, YYYY-MM-DD, in UTC."""
    n: int
    """Number of graded answers."""
    missing: int
    """Number of turns that can be graded and whose grade is missing or unusable; no mean counts these
    turns."""
    mean: float | None
    """Mean grade of all graded answers; None without graded answers."""
    turns: Mapping[int, tuple[int, float]]
    """By turn, from 0: the number of graded answers and their mean grade."""
    reasons: tuple[str, ...] = ()
    """Why the grades are not comparable with MT-Bench's figures; empty if they are."""

    @property
    def note(self) -> str:
        """A text that says why the grades are not comparable; empty if they are comparable."""
        return f"{NOT_COMPARABLE} ({'; '.join(self.reasons)})" if self.reasons else ""

    def to_json(self) -> dict[str, Any]:
        turns = [{"turn": turn, "n": n, "mean": mean} for turn, (n, mean) in self.turns.items()]
        return asdict(self) | {"turns": turns, "comparable": not self.reasons, "note": self.note}


class _Asked(NamedTuple):
    """What counts of a row, without its texts."""

    number: int
    """Index of the row."""
    category: str
    turns: int
    is_known: bool
    """Whether the row is one of MT-Bench's questions."""
    has_references: bool
    """Whether the set has reference answers that the judge sees."""
    has_temperature: bool
    """Whether the row is answered at a temperature of its own."""


def _to_asked(row: Row) -> _Asked:
    is_known = known_set("mt_bench").position(row) is not None
    has_references, has_temperature = bool(shown_references(row)), row.temperature is not None
    return _Asked(row.index, row.category, len(row.turns), is_known, has_references, has_temperature)


def grades_from_store(store: Store, judge: str) -> list[Grades]:
    """Compute the mean grades of each generator that the judge graded."""
    rows = list(map(_to_asked, store.rows()))
    shared = tuple(_reasons(rows, judge, store.about().get("references", {}).get(judge)))
    kinds = {generator.name: generator for generator in store.generators()}
    verdicts = groupby(store.verdicts(judge=judge, kind="grade"), key=lambda verdict: verdict.generator)
    return [
        _grades(generator, judge, rows, group, (*shared, *_own_reasons(rows, kinds.get(generator))))
        for generator, group in verdicts
    ]


def _reasons(rows: Sequence[_Asked], judge: str, given: Mapping[str, Any] | None) -> Iterator[str]:
    """Why no grades over these rows by this judge are MT-Bench's.

    Args:
        rows: The rows of the run.
        judge: The judge's name in verdicts.
        given: The file of reference answers that the judge saw, and the rows that it has answers to;
            None if the judge saw those of the set.
    """
    if not judge.startswith(JUDGE_PREFIX):
        yield f"judge: {judge}, not gpt-4 with FastChat's prompts"
    found = sum(row.is_known for row in rows)
    if found < len(rows):
        yield f"set: {len(rows) - found} of {len(rows)} rows are not MT-Bench's"
        return
    if found < ROWS:
        yield f"{found} of MT-Bench's {ROWS} questions"
    needs = [row for row in rows if row.category in MT_BENCH_WITH_REFERENCE]
    if given is None:
        without = sum(not row.has_references for row in needs)
        whose = "the questions' own, not GPT-4's"
    else:
        answered = set(given["rows"])
        without = sum(row.number not in answered for row in needs)
        whose = "" if given["file"] == REFERENCES else f"those of {given['file']}, not of {REFERENCES}"
    lacking = f"{without} questions without any" if without else ""
    if said := ", ".join(filter(None, (whose, lacking))):
        yield f"reference answers: {said}"


def _own_reasons(rows: Sequence[_Asked], generator: Generator | None) -> Iterator[str]:
    """Why the grades of one generator are not MT-Bench's. How imported answers were drawn is
    unknown."""
    if generator is None or generator.kind == "file":
        return
    if any(row.is_known and not row.has_temperature for row in rows):
        yield "answered at the recipe's temperature, not at MT-Bench's for each category"


def _grades(
    generator: str,
    judge: str,
    rows: Sequence[_Asked],
    verdicts: Iterable[Verdict],
    reasons: tuple[str, ...],
) -> Grades:
    by_turn: dict[int, list[float]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.value is not None:
            by_turn[verdict.turn].append(verdict.value)
    every = [value for values in by_turn.values() for value in values]
    means = {turn: (len(by_turn[turn]), statistics.fmean(by_turn[turn])) for turn in sorted(by_turn)}
    mean = statistics.fmean(every) if every else None
    turns = sum(min(row.turns, TURNS) for row in rows)
    n = len(every)
    more = (f"{n} graded answers of {turns}",) if n < turns else ()
    return Grades(generator, judge, today(), n, turns - n, mean, means, (*reasons, *more))
