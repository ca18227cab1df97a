"""Scores a run or a file of published judgements, as tables or JSON."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.scores.columns import PreferencesError
from jobs.scores.difficulty import Difficulties, read_difficulties
from jobs.scores.grades import Grades, grades_from_store
from jobs.scores.preferences import NOT_NAMED, Gamed, Preferences, read_gamed, read_preferences
from jobs.scores.score import Score, score
from jobs.scores.stored import scores_from_store
from jobs.scores.table import grade_table, table
from jobs.scores.votes import are_votes, read_votes
from jobs.store import Store

VERDICT_NAME = re.compile(r"(?P<model>.+):(?P<label>[^:]*)-[0-9a-f]{8}")
"""The name of a judge in verdicts; see `judges.prompt.name_with_hash`."""


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
) -> tuple[Difficulties | None, Gamed | None]:
    """Read the difficulties and the gamed rows for length control; None for a file that was not given.

    Raises:
        PreferencesError: a file cannot be read.
    """
    hard = None if difficulty is None else read_difficulties(difficulty)
    return hard, None if gamed is None else read_gamed(gamed)


def score_file(
    preferences: Path,
    difficulty: Path | None,
    gamed: Path | None,
    judge: str | None,
    baseline: str | None,
) -> Scored:
    """Score a file of published judgements, or of blind votes.

    Args:
        preferences: The file of judgements or votes.
        difficulty: The file of difficulties, for length control.
        gamed: The file of gamed rows, for length control.
        judge: What to call the judge if the file does not name it; otherwise, only this judge's.
        baseline: What to call the baseline if the file does not name it; otherwise, only those against
            this baseline.

    Raises:
        PreferencesError: a file cannot be read, the file has no judgements of the judge or against the
            baseline, or a row has no difficulty.
    """
    hard, gamed_rows = read_length_control_files(difficulty, gamed)
    named = {"judge": judge or NOT_NAMED, "baseline": baseline or NOT_NAMED}
    groups: dict[tuple[str, str], list[Preferences]] = defaultdict(list)
    if are_votes(preferences):
        found = read_votes(preferences, **named)
    else:
        found = read_preferences(preferences, **named)
    for each in found:
        groups[each.judge, each.baseline].append(each)
    chosen = [pair for pair in groups if _is_judge(judge, pair[0]) and _is_name(baseline, pair[1])]
    if not chosen:
        raise PreferencesError(_why_none(str(preferences), judge, baseline, groups))
    return Scored(
        tuple(
            tuple(
                score(each, None if hard is None else hard.of(each), gamed_rows)
                for each in groups[pair]
            )
            for pair in chosen
        )
    )


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
        judge: Only the verdicts of this judge, by its name in verdicts or by its model's name; None
            takes all.
        baseline: Only the verdicts against this baseline, so no grades; None takes all.

    Raises:
        StoreError: the folder holds no run.
        PreferencesError: a file cannot be read; the run has no verdicts of the judge or against the
            baseline; a verdict has a value, but one of the judged answers is missing; or a row has no
            difficulty.
    """
    hard, gamed_rows = read_length_control_files(difficulty, gamed)
    with Store.open(folder, read_only=True) as store:
        kinds: dict[str, list[tuple[str, str]]] = {"pairwise": [], "grade": []}
        judgements = store.judgements()
        for by, kind, against in judgements:
            if _is_judge(judge, by) and _is_name(baseline, against):
                kinds[kind].append((by, against))
        if (judge or baseline) and not any(kinds.values()):
            known = {(by, against) for by, _, against in judgements}
            raise PreferencesError(_why_none(str(folder), judge, baseline, known))
        pairs = (scores_from_store(store, *pair, hard, gamed_rows) for pair in kinds["pairwise"])
        grades = (grades_from_store(store, by) for by, _ in kinds["grade"])
        return Scored(tuple(map(tuple, pairs)), tuple(map(tuple, grades)))


def _is_judge(wanted: str | None, judge: str) -> bool:
    """Whether a judge is the one that is wanted: by its name in verdicts (`MODEL:PROMPT-HASH`), by the
    name without the hash, or by the model's name alone."""
    if wanted is None or (parts := VERDICT_NAME.fullmatch(judge)) is None:
        return wanted in (None, judge)
    return wanted in (judge, parts["model"], f"{parts['model']}:{parts['label']}")


def _is_name(wanted: str | None, name: str) -> bool:
    return wanted in (None, name)


def _why_none(
    where: str, judge: str | None, baseline: str | None, known: Collection[tuple[str, str]]
) -> str:
    """Why there is nothing to score, with the names that there are."""
    asked = [f"--judge {judge!r}"] * bool(judge) + [f"--baseline {baseline!r}"] * bool(baseline)
    judges, baselines = (sorted({pair[n] for pair in known} - {""}) for n in (0, 1))
    return (
        f"{where} has no verdicts for {' and '.join(asked)}; judges: {_list(judges)}; baselines: "
        f"{_list(baselines)}"
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
