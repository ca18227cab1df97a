"""The answer that a reader of a report looks for: did the mixture beat its best member?"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.ablation.effects import Estimate, Wins, against_best
from jobs.records import Verdict
from jobs.scores.preferences import Preferences
from jobs.scores.score import Score

Outcome = Literal["better", "worse", "open", "unknown"]
NORMAL_95 = 1.96
NOT_COMPARED = "None of its members was judged, so this does not say whether it beats the best of them."
CHOSEN_ANEW = "The best member is chosen anew in each resample, so the interval covers the choice."


@dataclass(frozen=True, slots=True)
class Conclusion:
    """outcome: `open` where the interval holds zero, `unknown` where nothing was compared; sentence:
    the answer; basis: what it rests on."""

    outcome: Outcome
    sentence: str
    basis: str


def from_pairs(
    mixture: str,
    members: Sequence[str],
    judged: Mapping[str, Preferences],
    scores: Mapping[str, Score],
    rows: int,
) -> Conclusion | None:
    """What one judge's verdicts against one baseline say; None if the mixture has none.

    judged, scores: by generator; rows: of the set. A baseline that is a member draws with itself.
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
        basis += f" {CHOSEN_ANEW}"
    return _conclusion(mixture, found.minus, found.difference, "points of win rate", found.n, basis)


def from_grades(mixture: str, members: Sequence[str], grades: Iterable[Verdict]) -> Conclusion | None:
    """What one judge's grades say; None if the mixture has none. The interval is the normal one of
    the paired difference over rows, and does not cover the choice of the best member."""
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
    count = len(like.rows)
    lengths = like.len_baseline
    return Preferences(baseline, like.rows, (1.5,) * count, lengths, lengths, like.judge, baseline)


def _means(
    grades: Iterable[Verdict], generators: Sequence[str]
) -> tuple[dict[str, dict[int, float]], str]:
    """Each generator's mean grade by row, and the judge."""
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
    sure = f"95% interval {_signed(low)} to {_signed(high)}, {n:,} rows"
    if low > 0:
        return Conclusion("better", f"Yes: {mixture} beats {best} by {by} ({sure}).", basis)
    if high < 0:
        return Conclusion("worse", f"No: {mixture} falls short of {best} by {by} ({sure}).", basis)
    where = "above" if value >= 0 else "below"
    text = f"Not shown: {mixture} is {by} {where} {best} and the interval holds zero ({sure})."
    return Conclusion("open", text, basis)


def _against_baseline(score: Score) -> str:
    text = f"{score.generator} wins {score.win_rate:.1f}% against {score.baseline}"
    if score.win_rate is None or score.standard_error is None:
        return f"{text} ({score.n:,} rows)."
    margin = NORMAL_95 * score.standard_error
    low, high = max(0.0, score.win_rate - margin), min(100.0, score.win_rate + margin)
    return f"{text} (95% interval {low:.1f} to {high:.1f}, {score.n:,} rows)."


def _controlled(scores: Mapping[str, Score], *names: str) -> str:
    found = [scores[name].lc if name in scores else None for name in names]
    both = [f"{lc:.1f}%" for lc in found if lc is not None]
    return f"; at equal length {' and '.join(both)}" if len(both) == len(names) else ""


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
