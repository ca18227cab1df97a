"""Scores of a run, or of published judgements: files in, tables or JSON out."""

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
    """By judge and baseline."""

    scores: tuple[tuple[Score, ...], ...]
    grades: tuple[tuple[Grades, ...], ...] = ()

    def tables(self) -> Iterator[Table | str]:
        """A table for each judge and baseline; or words, where there is no verdict."""
        yield from map(table, self.scores)
        yield from map(grade_table, self.grades)
        if not self.scores and not self.grades:
            yield "no verdicts yet (slimmoa bench judge, slimmoa bench grade)"

    def to_json(self) -> dict[str, Any]:
        return {
            "scores": [each.to_json() for some in self.scores for each in some],
            "grades": [each.to_json() for some in self.grades for each in some],
        }


def files_of(
    difficulty: Path | None, gamed: Path | None
) -> tuple[Mapping[int, float] | None, Gamed | None]:
    """The two files of length control, as far as they are given.

    Raises:
        PreferencesError: one cannot be read.
    """
    hard = None if difficulty is None else read_difficulty(difficulty)
    return hard, None if gamed is None else read_gamed(gamed)


def of_file(
    preferences: Path,
    difficulty: Path | None,
    gamed: Path | None,
    judge: str | None,
    baseline: str | None,
) -> Scored:
    """Published judgements, whose judge and baseline the user may name.

    Raises:
        PreferencesError: a file cannot be read.
    """
    hard, gamed_rows = files_of(difficulty, gamed)
    named = {"judge": judge or NOT_NAMED, "baseline": baseline or NOT_NAMED}
    found = read_preferences(preferences, **named).values()
    return Scored((tuple(score(each, hard, gamed_rows) for each in found),))


def of_run(
    folder: Path,
    difficulty: Path | None,
    gamed: Path | None,
    judge: str | None,
    baseline: str | None,
) -> Scored:
    """A run's verdicts. judge, baseline: only those.

    Raises:
        StoreError: there is no run; PreferencesError: a file cannot be read.
    """
    hard, gamed_rows = files_of(difficulty, gamed)
    with Store.open(folder, read_only=True) as store:
        kinds: dict[str, list[tuple[str, str]]] = {"pairwise": [], "grade": []}
        for by, kind, against in store.judgements():
            if judge in (None, by) and baseline in (None, against):
                kinds[kind].append((by, against))
        pairs = (scores_from_store(store, *pair, hard, gamed_rows) for pair in kinds["pairwise"])
        grades = (grades_from_store(store, by) for by, _ in kinds["grade"])
        return Scored(tuple(map(tuple, pairs)), tuple(map(tuple, grades)))
