"""The conclusion of a report: did the mixture beat its best member?"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.ablation.effects import Estimate, Wins, against_best
from jobs.records import Verdict
from jobs.report.formats import interval
from jobs.scores.preferences import Preferences
from jobs.scores.score import NORMAL_95, Score

Outcome = Literal["better", "worse", "open", "unknown"]
NOT_COMPARED = "None of its members was judged, so this does not say whether it beats the best of them."
COVERS_CHOICE = "The best member is chosen anew in each resample, so the interval covers the choice."


@dataclass(frozen=True, slots=True)
class Conclusion:
    """Whether the mixture beat its best member, in words."""

    outcome: Outcome
    """`better` or `worse` if the interval of the difference excludes zero; `open` if it contains zero;
    `unknown` if the verdicts do not suffice for a comparison."""
    sentence: str
    """The conclusion in one sentence."""
    basis: str
    """Which verdicts the conclusion rests on."""


def from_pairs(
    mixture: str,
    members: Sequence[str],
    judged: Mapping[str, Preferences],
    scores: Mapping[str, Score],
    rows: int,
) -> Conclusion | None:
    """The conclusion from one judge's verdicts against one baseline.

    If the baseline is a member, it counts as winning half of each row against itself.

    Args:
        mixture: The mixture's name.
        members: Names of the generators that are one of the mixture's models alone.
        judged: The verdicts on the mixture and its members, by generator.
        scores: Scores by generator.
        rows: Number of rows of the set.

    Returns:
        The conclusion, or None if the mixture has no verdict.
    """
    if (score := scores.get(mixture)) is None or score.win_rate is None:
        return None
    if score.baseline in members:
        judged = {**judged, score.baseline: _draws(judged[mixture], score.baseline)}
    basis = f"Judge {score.judge}, baseline {score.baseline}."
    compared = [name for name in members if name in judged and judged[name].wins()]
    if not compared:
        return Conclusion("unknown", f"{_against_baseline(score)} {NOT_COMPARED}", basis)
    found = against_best(Wins((judged[name] for name in (mixture, *compared)), rows), mixture, compared)
    if found.win_rate is None or found.other_win_rate is None:
        return Conclusion("unknown", f"No row is judged for {mixture} and all its members.", basis)
    basis += f" {mixture} wins {found.win_rate:.1f}%, {found.minus} {found.other_win_rate:.1f}%"
    basis += f"{_controlled(scores, mixture, found.minus)}."
    if len(compared) > 1:
        basis += f" {COVERS_CHOICE}"
    return _conclusion(mixture, found.minus, found.difference, "points of win rate", found.n, basis)


def from_grades(mixture: str, members: Sequence[str], grades: Iterable[Verdict]) -> Conclusion | None:
    """The conclusion from one judge's grades.

    The interval assumes that the mean of the paired differences over rows is normally distributed. The
    interval does not cover the choice of the best member.

    Args:
        mixture: The mixture's name.
        members: Names of the generators that are one of the mixture's models alone.
        grades: The judge's grades.

    Returns:
        The conclusion, or None if the mixture has no grade.
    """
    means, judge = _means(grades, (mixture, *members))
    if mixture not in means:
        return None
    basis = f"Judge {judge}, grades from 1 to 10, mean of a row's turns."
    others = [name for name in members if name in means]
    rows = sorted(set(means[mixture]).intersection(*(means[name] for name in others)))
    if not others or len(rows) < 2:
        mean = statistics.fmean(means[mixture].values())
        text = f"{mixture} has a mean grade of {mean:.2f} ({len(means[mixture])} rows). {NOT_COMPARED}"
        return Conclusion("unknown", text, basis)
    best = max(others, key=lambda name: statistics.fmean(means[name][row] for row in rows))
    differences = [means[mixture][row] - means[best][row] for row in rows]
    value = statistics.fmean(differences)
    margin = NORMAL_95 * statistics.stdev(differences) / len(rows) ** 0.5
    estimate = Estimate(value, value - margin, value + margin)
    return _conclusion(mixture, best, estimate, "points of grade", len(rows), basis)


def _draws(like: Preferences, baseline: str) -> Preferences:
    """Draws of the baseline with itself, on the rows of other verdicts."""
    count = len(like.rows)
    lengths = like.len_baseline
    return Preferences(baseline, like.rows, (1.5,) * count, lengths, lengths, like.judge, baseline)


def _means(
    grades: Iterable[Verdict], generators: Sequence[str]
) -> tuple[dict[str, dict[int, float]], str]:
    """The mean grade of each row by generator, and the name of the judge."""
    found: dict[str, dict[int, list[float]]] = {}
    judge = ""
    for each in grades:
        judge = each.judge
        if each.value is not None and each.generator in generators:
            found.setdefault(each.generator, {}).setdefault(each.row, []).append(each.value)
    return {
        name: {row: statistics.fmean(values) for row, values in by_row.items()}
        for name, by_row in found.items()
    }, judge


def _conclusion(
    mixture: str, best: str, difference: Estimate, unit: str, n: int, basis: str
) -> Conclusion:
    value, low, high = difference.value, difference.low, difference.high
    if value is None or low is None or high is None:
        return Conclusion("unknown", f"Too few rows are judged to compare {mixture} and {best}.", basis)
    by, best = f"{abs(value):.2f} {unit}", f"its best member, {best},"
    sure = f"95% interval {interval(difference)}, {n:,} rows"
    if low > 0:
        return Conclusion("better", f"Yes: {mixture} beats {best} by {by} ({sure}).", basis)
    if high < 0:
        return Conclusion("worse", f"No: {mixture} falls short of {best} by {by} ({sure}).", basis)
    where = "above" if value >= 0 else "below"
    text = f"Not shown: {mixture} is {by} {where} {best} and the interval holds zero ({sure})."
    return Conclusion("open", text, basis)


def _against_baseline(score: Score) -> str:
    """The win rate of a generator as a sentence."""
    text = f"{score.generator} wins {score.win_rate:.1f}% against {score.baseline}"
    if score.win_rate is None or score.standard_error is None:
        return f"{text} ({score.n:,} rows)."
    margin = NORMAL_95 * score.standard_error
    low, high = max(0.0, score.win_rate - margin), min(100.0, score.win_rate + margin)
    return f"{text} (95% interval {low:.1f} to {high:.1f}, {score.n:,} rows)."


def _controlled(scores: Mapping[str, Score], *names: str) -> str:
    """The length-controlled win rates of these generators; an empty text unless all have one."""
    found = [scores[name].lc if name in scores else None for name in names]
    both = [f"{lc:.1f}%" for lc in found if lc is not None]
    return f"; at equal length {' and '.join(both)}" if len(both) == len(names) else ""
