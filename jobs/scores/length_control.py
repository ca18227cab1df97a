"""Length-controlled win rate, as AlpacaEval 2's leaderboard computes it (`length_controlled_v1`).

A logistic regression explains how likely each row is won by three features: the difference in length,
the instruction's difficulty, and a constant 1. With the length's part set to zero, the mean of what it
predicts is the win rate at equal length. What it must do is defined by the official code,
`alpaca_eval/metrics/glm_winrate.py`, down to the draw of random numbers: with its gamed rows it
reproduces the leaderboard except where cross-validation is a close call.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from jobs.scores.preferences import Gamed, Preferences, PreferencesError

FOLDS = 5
STRENGTHS = np.logspace(-4, 4, 10)  # scikit-learn's C: the larger, the weaker the L1 penalty
GAMED_WEIGHT = 0.1
SEED = 123
CLOSEST = 1e-15  # of a probability to 0 or 1, in the log loss
LEAST_WEIGHT = 1e-9  # of a row, where all rows have the other outcome
FEW = 16  # up to here NumPy's quicksort sorts by insertion

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """win_rate: percent; c: the C that cross-validation chose."""

    win_rate: float
    c: float


@dataclass(frozen=True, slots=True)
class _Samples:
    """features: length, difficulty and constant of each row; wins: 0 to 1; weights."""

    features: Floats
    wins: Floats
    weights: Floats

    def only(self, chosen: NDArray[np.bool_]) -> "_Samples":
        return _Samples(self.features[chosen], self.wins[chosen], self.weights[chosen])


def length_controlled(
    preferences: Preferences, difficulty: Mapping[int, float], gamed: Gamed | None
) -> LengthControlled:
    """Percent of rows won at equal length, as predicted for all rows, those without a verdict too.

    Raises:
        PreferencesError: fewer judged rows than folds, or a row without a known difficulty.
    """
    judged = np.array([value is not None for value in preferences.preferences], bool)
    if (count := int(judged.sum())) < FOLDS:
        raise PreferencesError(f"length control needs {FOLDS} judged rows or more, not {count}")
    features = _features(preferences, difficulty)
    samples = _Samples(features[judged], np.array(preferences.wins()), np.ones(count))
    if gamed is not None:
        samples = _joined(_gamed(gamed), samples)
    with warnings.catch_warnings():
        # With few rows some C do not converge; cross-validation is what judges them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        c = _best_strength(samples)
        weights = _fit(samples, c, np.random.RandomState(SEED))
    at_equal_length = _sigmoid(features[:, 1:] @ weights[1:])
    return LengthControlled(100 * float(at_equal_length.mean()), c)


def _features(preferences: Preferences, difficulty: Mapping[int, float]) -> Floats:
    if unknown := [row for row in preferences.rows if row not in difficulty]:
        first, last = min(difficulty, default="-"), max(difficulty, default="-")
        raise PreferencesError(
            f"no instruction difficulty for row {unknown[0]} of {preferences.generator!r}; "
            f"there are {len(difficulty)}, of rows {first} to {last}"
        )
    shorter_by = np.array(preferences.len_baseline, float) - np.array(preferences.len_generator, float)
    deviation = shorter_by.std(ddof=1) or np.inf  # equal lengths explain nothing
    length = np.tanh(shorter_by / deviation)
    hard = np.array([difficulty[row] for row in preferences.rows])
    return np.column_stack([length, hard, np.ones(len(hard))])


def _gamed(gamed: Gamed) -> _Samples:
    """Without the constant: it is the model's own, and these are the baseline against itself."""
    length = np.tanh(np.array(gamed.lengths))
    features = np.column_stack([length, np.array(gamed.difficulties), np.zeros(len(length))])
    return _Samples(features, np.array(gamed.wins), np.full(len(length), GAMED_WEIGHT))


def _joined(first: _Samples, second: _Samples) -> _Samples:
    return _Samples(
        np.concatenate([first.features, second.features]),
        np.concatenate([first.wins, second.wins]),
        np.concatenate([first.weights, second.weights]),
    )


def _best_strength(samples: _Samples) -> float:
    """The C with the least mean loss on rows that were left out; the smallest of equals."""
    fold = _folds(len(samples.wins))
    losses = np.array([_losses(samples, fold == left_out) for left_out in range(FOLDS)])
    return float(STRENGTHS[losses.mean(axis=0).argmin()])


def _losses(samples: _Samples, left_out: NDArray[np.bool_]) -> list[float]:
    """The loss for each C. One source of random numbers serves all of them, as scikit-learn's path
    over C has it: fits stop before they have wholly converged, so the draw shows in the result."""
    random = np.random.RandomState(SEED)
    train, test = samples.only(~left_out), samples.only(left_out)
    return [_loss(test, _fit(train, float(c), random)) for c in STRENGTHS]


def _loss(samples: _Samples, weights: Floats) -> float:
    predicted = np.clip(_sigmoid(samples.features @ weights), CLOSEST, 1 - CLOSEST)
    won = samples.wins * np.log(predicted)
    lost = (1 - samples.wins) * np.log(1 - predicted)
    return -float((samples.weights * (won + lost)).mean())


def _fit(samples: _Samples, c: float, random: np.random.RandomState) -> Floats:
    """Weights of the features. A row won with probability p counts p as won and 1 - p as lost."""
    # L1. Before scikit-learn 1.8 this would be an L2 penalty, with no more than a warning.
    model = LogisticRegression(
        C=c, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=random
    )
    count = len(samples.wins)
    both = [samples.weights * samples.wins, samples.weights * (1 - samples.wins)]
    # liblinear drops what weighs nothing; of one outcome alone it learns nothing and predicts a draw.
    weighed = [some if some.any() else some + LEAST_WEIGHT for some in both]
    model.fit(
        np.concatenate([samples.features, samples.features]),
        np.repeat([1, 0], count),
        sample_weight=np.concatenate(weighed),
    )
    weights: Floats = model.coef_[0]
    return weights


def _sigmoid(values: Floats) -> Floats:
    result: Floats = np.exp(-np.logaddexp(0, -values))
    return result


def _folds(count: int) -> NDArray[np.int_]:
    """Each row's fold, dealt out from last to first in the order of `_sorted_equals`.

    The official code leaves this to GroupKFold, which sorts groups of equal size by an unstable sort:
    which rows fall together, and with it a close call over C, depends on the processor (NumPy sorts
    otherwise where AVX-512 is). Most of the leaderboard's figures come out exactly with the order of
    NumPy's portable quicksort, so that one is taken, on every processor.
    """
    fold = np.empty(count, int)
    fold[_sorted_equals(count)[::-1]] = np.arange(count) % FOLDS
    return fold


def _sorted_equals(count: int) -> list[int]:
    """Where NumPy's portable quicksort leaves `count` equal values."""
    order = list(range(count))

    def sort(low: int, high: int) -> None:
        if high - low < FEW:
            return
        middle = (low + high) // 2
        order[middle], order[high - 1] = order[high - 1], order[middle]
        left, right = low + 1, high - 2
        while left < right:
            order[left], order[right] = order[right], order[left]
            left, right = left + 1, right - 1
        order[left], order[high - 1] = order[high - 1], order[left]
        sort(low, left - 1)
        sort(left + 1, high)

    sort(0, count - 1)
    return order
