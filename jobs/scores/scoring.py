"""Scores a run or a file of published judgements, as tables or JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.scores.preferences import (
    NOT_NAMED,
    Gamed,
    read_difficulty,
    read_gamed,
    read_preferences,
)
from jobs.scores.score import Grades, Score, grades_from_store, score, scores_from_store
from jobs.scores.table import grade_table, table
from jobs.store import Store


@dataclass(frozen=True, slots=True)
class Scored:
    """All scores of a run or a file."""

    scores: tuple[tuple[Score, ...], ...]
    """One tuple for each judge and baseline."""
    grades: tuple[tuple[Grades, ...], ...] = ()
    """One tuple for each judge."""

    def tables(self) -> Iterator[Table | str]:
        """Yield a table for each judge and baseline, or a sentence if there is no verdict."""
        yield from map(table, self.scores)
        yield from map(grade_table, self.grades)
        if not self.scores and not self.grades:
            yield "no verdicts yet (slimmoa bench judge, slimmoa bench grade)"

    def to_json(self) -> dict[str, Any]:
        return {
            "scores": [each.to_json() for some in self.scores for each in some],
            "grades": [each.to_json() for some in self.grades for each in some],
        }


def read_length_control_files(
    difficulty: Path | None, gamed: Path | None
) -> tuple[Mapping[int, float] | None, Gamed | None]:
    """Read the difficulties and the gamed rows for length control; None for a file that was not given.

    Raises:
        PreferencesError: a file cannot be read.
    """
    hard = None if difficulty is None else read_difficulty(difficulty)
    return hard, None if gamed is None else read_gamed(gamed)


def score_file(
    preferences: Path,
    difficulty: Path | None,
    gamed: Path | None,
    judge: str | None,
    baseline: str | None,
) -> Scored:
    """Score a file of published judgements.

    Args:
        preferences: The file of judgements.
        difficulty: The file of difficulties, for length control.
        gamed: The file of gamed rows, for length control.
        judge: What to call the judge, which the file does not name.
        baseline: What to call the baseline, which the file does not name.

    Raises:
        PreferencesError: a file cannot be read, or a row has no difficulty.
    """
    hard, gamed_rows = read_length_control_files(difficulty, gamed)
    named = {"judge": judge or NOT_NAMED, "baseline": baseline or NOT_NAMED}
    found = read_preferences(preferences, **named).values()
    return Scored((tuple(score(each, hard, gamed_rows) for each in found),))


def score_run(
    folder: Path,
    difficulty: Path | None,
    gamed: Path | None,
    judge: str | None,
    baseline: str | None,
) -> Scored:
    """Score the verdicts of a run.

    Args:
        folder: The folder of the run.
        difficulty: The file of difficulties, for length control.
        gamed: The file of gamed rows, for length control.
        judge: Only the verdicts of this judge; None takes all.
        baseline: Only the verdicts against this baseline, so no grades; None takes all.

    Raises:
        StoreError: the folder holds no run.
        PreferencesError: a file cannot be read; a verdict has a value, but one of the judged answers is
            missing; or a row has no difficulty.
    """
    hard, gamed_rows = read_length_control_files(difficulty, gamed)
    with Store.open(folder, read_only=True) as store:
        kinds: dict[str, list[tuple[str, str]]] = {"pairwise": [], "grade": []}
        for by, kind, against in store.judgements():
            if judge in (None, by) and baseline in (None, against):
                kinds[kind].append((by, against))
        pairs = (scores_from_store(store, *pair, hard, gamed_rows) for pair in kinds["pairwise"])
        grades = (grades_from_store(store, by) for by, _ in kinds["grade"])
        return Scored(tuple(map(tuple, pairs)), tuple(map(tuple, grades)))
