"""Computes mean grades from verdicts, and says where they are not MT-Bench's."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from jobs.judges.grade import TURNS, shown_references
from jobs.records import Generator, Row, Verdict
from jobs.scores.score import today
from jobs.sets.known_sets import MT_BENCH_WITH_REFERENCE, known_set
from jobs.store import Store

JUDGE_PREFIX = "gpt-4:judge_prompts-"
"""How the name of MT-Bench's judge begins: GPT-4 with FastChat's `judge_prompts.jsonl`."""
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


def grades_from_store(store: Store, judge: str) -> list[Grades]:
    """Compute the mean grades of each generator that the judge graded."""
    rows = list(store.rows())
    given = judge in store.about().get("references", {})
    shared = tuple(_reasons(rows, judge, references_given=given))
    kinds = {generator.name: generator for generator in store.generators()}
    verdicts = groupby(store.verdicts(judge=judge, kind="grade"), key=lambda verdict: verdict.generator)
    return [
        _grades(generator, judge, rows, group, (*shared, *_own_reasons(rows, kinds.get(generator))))
        for generator, group in verdicts
    ]


def _reasons(rows: Sequence[Row], judge: str, *, references_given: bool) -> Iterator[str]:
    """Why no grades over these rows by this judge are MT-Bench's."""
    if not judge.startswith(JUDGE_PREFIX):
        yield f"judge: {judge}, not gpt-4 with FastChat's prompts"
    known = known_set("mt_bench")
    found = sum(known.position(row) is not None for row in rows)
    if found < len(rows):
        yield f"set: {len(rows) - found} of {len(rows)} rows are not MT-Bench's"
        return
    if found < ROWS:
        yield f"{found} of MT-Bench's {ROWS} questions"
    if not references_given:
        needs = [row for row in rows if row.category in MT_BENCH_WITH_REFERENCE]
        without = sum(not shown_references(row) for row in needs)
        lacking = f", {without} questions without any" if without else ""
        yield f"reference answers: the questions' own, not GPT-4's{lacking}"


def _own_reasons(rows: Sequence[Row], generator: Generator | None) -> Iterator[str]:
    """Why the grades of one generator are not MT-Bench's. How imported answers were drawn is
    unknown."""
    if generator is None or generator.kind == "file":
        return
    known = known_set("mt_bench")
    if any(row.temperature is None and known.position(row) is not None for row in rows):
        yield "answered at the recipe's temperature, not at MT-Bench's for each category"


def _grades(
    generator: str,
    judge: str,
    rows: Sequence[Row],
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
    turns = sum(min(len(row.turns), TURNS) for row in rows)
    n = len(every)
    more = (f"{n} graded answers of {turns}",) if n < turns else ()
    return Grades(generator, judge, today(), n, turns - n, mean, means, (*reasons, *more))
