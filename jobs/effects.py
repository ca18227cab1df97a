"""Differences between generators, from verdicts on the same rows, with bootstrap intervals.

Rows are what is drawn at random, so an interval says how a figure would vary over other rows of the
same kind. It knows nothing of other samplings of the same rows, nor of other judges, and each one
stands for itself: of twenty differences that are nothing, one interval will not hold the zero.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, rankdata

from jobs.preferences import Preferences

MOST_BCA_ROWS = 10_000
RESAMPLES = 9999
CONFIDENCE = 0.95
SEED = 20_240_601
BATCH_VALUES = 500_000  # drawn at once: 4 MB for each generator
FEWEST_CANDIDATES = 3  # two points always lie on a line
FLAT = 1e-9  # percent points: what varies less has only rounding errors

Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95% interval; None where the rows do not give one."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Contrast:
    """How much higher the win rate of one generator is than another's, in percent points.

    n: rows judged for both, on which all figures are; missing: other rows of the set; win_rate,
    other_win_rate: percent, of `what` and of `minus`.
    """

    what: str
    minus: str
    n: int
    missing: int
    win_rate: float | None
    other_win_rate: float | None
    difference: Estimate


@dataclass(frozen=True, slots=True)
class Correlation:
    """How far the models that are better alone make better mixtures.

    candidates: how many models; n: rows judged for all of them, alone and in mixtures; missing: other
    rows of the set. Noise in both win rates draws the figures towards zero.
    """

    candidates: int
    n: int
    missing: int
    pearson: Estimate
    spearman: Estimate


class Wins:
    """How likely each generator wins each row; of the baseline itself, every row is even. rows: how
    many the set has."""

    def __init__(self, preferences: Iterable[Preferences], rows: int) -> None:
        self.rows = rows
        self._of: dict[str, dict[int, float]] = {}
        even: dict[str, dict[int, float]] = {}
        for p in preferences:
            judged = zip(p.rows, p.preferences, strict=True)
            wins = {row: 100 * (value - 1) for row, value in judged if value is not None}
            self._of[p.generator] = wins
            even.setdefault(p.baseline, {}).update(dict.fromkeys(wins, 50.0))
        self._of = even | self._of

    def columns(self, generators: Sequence[str]) -> Floats:
        """Percent, shape (generators, rows judged for all of them), in row order."""
        found = [self._of.get(name, {}) for name in generators]
        rows = sorted(set.intersection(*(set(each) for each in found))) if found else []
        wins = np.array([[each[row] for row in rows] for each in found], float)
        return wins.reshape(len(found), len(rows))


def contrast(wins: Wins, what: str, minus: str) -> Contrast:
    """`what` minus `minus`, by a paired bootstrap: both are drawn on the same rows."""
    columns = wins.columns([what, minus])
    return _contrast(wins, what, minus, columns, _interval(columns[:1] - columns[1:], np.mean))


def against_best(wins: Wins, what: str, among: Sequence[str]) -> Contrast:
    """`what` minus the best of others, on the rows judged for all of them.

    Who is best is decided by the same rows, which flatters the best and makes the difference too
    small. So the best is chosen anew in each resample, and the interval covers the choice.
    """
    columns = wins.columns([what, *among])
    means = columns[1:].mean(axis=-1) if columns.size else np.zeros(len(among))
    best = int(means.argmax())
    interval = _interval(columns, _above_best)
    return _contrast(wins, what, among[best], columns[[0, best + 1]], interval)


def correlation(wins: Wins, pairs: Mapping[str, tuple[str, str]]) -> Correlation:
    """Over candidates, the win rate alone against the win rate of the mixture.

    pairs: the two generators of each candidate, alone and in its mixture. Without three candidates, or
    without variation among them, there is no correlation. The interval is the percentile one: noise
    draws all correlations towards zero, and BCa, which would correct for that, misses a true zero in
    three cases of ten (simulated: 400 rows, 6 to 10 candidates).
    """
    columns = wins.columns([pair[side] for side in (0, 1) for pair in pairs.values()])
    n = columns.shape[1]
    enough = n > 0 and len(pairs) >= FEWEST_CANDIDATES
    found = [_correlated(columns, of) if enough else Estimate() for of in (_pearson, _spearman)]
    return Correlation(len(pairs), n, wins.rows - n, *found)


def _contrast(
    wins: Wins, what: str, minus: str, columns: Floats, interval: tuple[float, float] | None
) -> Contrast:
    n = columns.shape[1]
    if n == 0:
        return Contrast(what, minus, 0, wins.rows, None, None, Estimate())
    first, second = (float(mean) for mean in columns.mean(axis=-1))
    difference = Estimate(first - second, *(interval or ()))
    return Contrast(what, minus, n, wins.rows - n, first, second, difference)


def _correlated(columns: Floats, of: Callable[[Floats, Floats], Floats]) -> Estimate:
    half = len(columns) // 2

    def statistic(*drawn: Floats, axis: int = -1) -> Floats:
        means = np.stack([column.mean(axis=axis) for column in drawn])
        return of(means[:half], means[half:])

    value = float(statistic(*columns))
    if math.isnan(value):
        return Estimate()
    return Estimate(value, *(_interval(columns, statistic, "percentile") or ()))


def _above_best(what: Floats, *others: Floats, axis: int = -1) -> Floats:
    best = np.max([other.mean(axis=axis) for other in others], axis=0)
    above: Floats = what.mean(axis=axis) - best
    return above


def _pearson(x: Floats, y: Floats) -> Floats:
    """Along the first axis; not a number where one of them does not vary."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    varies = (np.abs(x).max(axis=0) > FLAT) & (np.abs(y).max(axis=0) > FLAT)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (x * y).sum(axis=0) / np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))
    return np.where(varies, r, np.nan)


def _spearman(x: Floats, y: Floats) -> Floats:
    return _pearson(rankdata(x, axis=0), rankdata(y, axis=0))


def _interval(
    columns: Floats, statistic: Statistic, method: Literal["BCa", "percentile"] = "BCa"
) -> tuple[float, float] | None:
    """A bootstrap interval over rows (Efron, 1987, for BCa: bias-corrected and accelerated).

    1. Fewer than two rows have none.
    2. Over many rows, where the two hardly differ, it is the percentile interval: BCa's cost grows with
       the square of the rows.
    3. Where it is not defined, as where every resample gives the same, it is the percentile interval
       of the resamples that have a value.
    """
    rows = columns.shape[1]
    if rows < 2:
        return None
    if rows > MOST_BCA_ROWS:
        method = "percentile"
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # that it is not defined: see 3
        found = bootstrap(
            tuple(columns),
            statistic,
            n_resamples=RESAMPLES,
            batch=max(1, BATCH_VALUES // rows),
            vectorized=True,
            paired=True,
            axis=-1,
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(SEED),
        )
    low, high = found.confidence_interval
    if not (math.isfinite(low) and math.isfinite(high)):
        drawn = found.bootstrap_distribution[np.isfinite(found.bootstrap_distribution)]
        low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
