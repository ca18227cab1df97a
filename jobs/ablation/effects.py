"""Measures differences between generators from verdicts on the same rows, with bootstrap intervals.

The bootstrap resamples rows. So an interval shows how a figure would vary over other rows of the same
kind. The interval does not cover other answers to the same rows, nor other judges. Each interval is
computed independently of the others: if there is no difference in twenty comparisons, the interval of
about one of them still excludes zero.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, rankdata

from jobs.scores.preferences import Preferences

MOST_BCA_ROWS = 10_000
"""With more rows there are no BCa intervals: their cost grows with the square of the number of rows."""
RESAMPLES = 9999
"""Resamples of a bootstrap; the default of SciPy."""
CONFIDENCE = 0.95
"""Confidence level of all intervals."""
SEED = 20_240_601
"""Seed of the resampling, so that the same verdicts give the same intervals."""
BATCH_VALUES = 500_000
"""How many values of each generator the bootstrap draws at once: 4 MB, which limits the memory."""
FEWEST_CANDIDATES = 3
"""A correlation needs so many candidates at least; two points always lie on a line."""
FLAT = 1e-9
"""Win rates that vary by less than this, in percent points, differ only by rounding errors."""

Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]
"""Computes one figure from several columns along an axis, as SciPy's bootstrap calls it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95% interval; a field is None if the rows are too few or too equal for it."""

    value: float | None = None
    low: float | None = None
    """Lower end of the interval."""
    high: float | None = None
    """Upper end of the interval."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """How much higher the win rate of one generator is than that of another."""

    what: str
    """Name of the first generator."""
    minus: str
    """Name of the second generator, whose win rate is subtracted."""
    n: int
    """Number of rows that are judged for both generators; all figures are over these rows."""
    missing: int
    """Number of the other rows of the set."""
    win_rate: float | None
    """Win rate of `what` against the baseline, percent; None if `n` is 0."""
    other_win_rate: float | None
    """Win rate of `minus` against the baseline, percent; None if `n` is 0."""
    difference: Estimate
    """The win rate of `what` minus the win rate of `minus`, in percent points."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Whether models with a higher win rate alone also give mixtures a higher win rate.

    Noise in both win rates draws the correlations towards zero.
    """

    candidates: int
    """Number of models."""
    n: int
    """Number of rows that are judged for all models, alone and in their mixtures."""
    missing: int
    """Number of the other rows of the set."""
    pearson: Estimate
    spearman: Estimate


class Wins:
    """How much of each row each generator wins, 0 to 100 percent. The baseline counts as a generator
    that wins 50 percent of each row that is judged against it."""

    def __init__(self, preferences: Iterable[Preferences], rows: int) -> None:
        """The wins in the verdicts of one judge.

        Args:
            preferences: The verdicts, one `Preferences` for each generator.
            rows: Number of rows of the set, judged or not.
        """
        self.rows = rows
        self._by_generator: dict[str, dict[int, float]] = {}
        even: dict[str, dict[int, float]] = {}
        for p in preferences:
            judged = zip(p.rows, p.preferences, strict=True)
            wins = {row: 100 * (value - 1) for row, value in judged if value is not None}
            self._by_generator[p.generator] = wins
            even.setdefault(p.baseline, {}).update(dict.fromkeys(wins, 50.0))
        self._by_generator = even | self._by_generator

    def columns(self, generators: Sequence[str]) -> Floats:
        """Percent won of each row that is judged for all these generators, in row order.

        Returns:
            An array of shape (generators, rows).
        """
        found = [self._by_generator.get(name, {}) for name in generators]
        rows = sorted(set.intersection(*(set(each) for each in found))) if found else []
        wins = np.array([[each[row] for row in rows] for each in found], float)
        return wins.reshape(len(found), len(rows))


def contrast(wins: Wins, what: str, minus: str) -> Contrast:
    """Compare `what` with `minus` by a paired bootstrap, which draws the same rows for both."""
    columns = wins.columns([what, minus])
    return _contrast(wins, what, minus, columns, _interval(columns[:1] - columns[1:], np.mean))


def against_best(wins: Wins, what: str, among: Sequence[str]) -> Contrast:
    """Compare `what` with the best of the generators `among`, on the rows that are judged for all.

    The same rows decide which generator is the best. This makes the best one look better than it is,
    and the difference smaller. Therefore each resample chooses its own best generator, and the interval
    covers the choice. Without any such row, the first of `among` counts as the best, and `n` is 0.
    """
    columns = wins.columns([what, *among])
    means = columns[1:].mean(axis=-1) if columns.size else np.zeros(len(among))
    best = int(means.argmax())
    interval = _interval(columns, _above_best)
    return _contrast(wins, what, among[best], columns[[0, best + 1]], interval)


def correlation(wins: Wins, pairs: Mapping[str, tuple[str, str]]) -> Correlation:
    """Correlate the win rates of candidates alone with the win rates of their mixtures.

    With fewer than three candidates, or if their win rates do not vary, the estimates have no value.
    The interval is the percentile interval. Noise draws all correlations towards zero. BCa would
    correct for that, but its interval excludes a true zero in three of ten cases (simulated with 400
    rows and 6 to 10 candidates).

    Args:
        wins: The verdicts.
        pairs: By candidate, the names of two generators: the candidate alone, and its mixture.
    """
    columns = wins.columns([pair[side] for side in (0, 1) for pair in pairs.values()])
    n = columns.shape[1]
    enough = n > 0 and len(pairs) >= FEWEST_CANDIDATES
    found = [
        _correlate(columns, measure) if enough else Estimate() for measure in (_pearson, _spearman)
    ]
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


def _correlate(columns: Floats, measure: Callable[[Floats, Floats], Floats]) -> Estimate:
    """The correlation of the first half of the columns with the second half."""
    half = len(columns) // 2

    def statistic(*drawn: Floats, axis: int = -1) -> Floats:
        means = np.stack([column.mean(axis=axis) for column in drawn])
        return measure(means[:half], means[half:])

    value = float(statistic(*columns))
    if math.isnan(value):
        return Estimate()
    return Estimate(value, *(_interval(columns, statistic, "percentile") or ()))


def _above_best(what: Floats, *others: Floats, axis: int = -1) -> Floats:
    """The mean of `what` minus the highest mean of the others."""
    best = np.max([other.mean(axis=axis) for other in others], axis=0)
    above: Floats = what.mean(axis=axis) - best
    return above


def _pearson(x: Floats, y: Floats) -> Floats:
    """Pearson's correlation along the first axis; NaN where x or y does not vary."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    varies = (np.abs(x).max(axis=0) > FLAT) & (np.abs(y).max(axis=0) > FLAT)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (x * y).sum(axis=0) / np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))
    return np.where(varies, r, np.nan)


def _spearman(x: Floats, y: Floats) -> Floats:
    """Spearman's rank correlation along the first axis; NaN where x or y does not vary."""
    return _pearson(rankdata(x, axis=0), rankdata(y, axis=0))


def _interval(
    columns: Floats, statistic: Statistic, method: Literal["BCa", "percentile"] = "BCa"
) -> tuple[float, float] | None:
    """A bootstrap interval over rows; BCa is bias-corrected and accelerated (Efron, 1987).

    1. With fewer than two rows there is no interval.
    2. With more than MOST_BCA_ROWS rows the interval is the percentile interval. With so many rows the
       two intervals hardly differ.
    3. Where the interval is not defined, for example because all resamples give the same figure, the
       result is the percentile interval of the resamples that have a figure.
    """
    rows = columns.shape[1]
    if rows < 2:  # 1
        return None
    if rows > MOST_BCA_ROWS:  # 2
        method = "percentile"
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # SciPy warns where the interval is not defined
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
    if not (math.isfinite(low) and math.isfinite(high)):  # 3
        drawn = found.bootstrap_distribution[np.isfinite(found.bootstrap_distribution)]
        low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
