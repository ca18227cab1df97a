"""Length-controlled win rate, as AlpacaEval 2's leaderboard computes it (`length_controlled_v1`).

A logistic regression predicts how likely the generator wins a row. It has three features: the
difference in length, the difficulty of the instruction, and a constant 1. The win rate at equal length
is the mean of the predictions without the part of the length.

The official code `alpaca_eval/metrics/glm_winrate.py` defines every detail, even the draw of random
numbers. With the leaderboard's gamed rows (see `preferences.Gamed`) this file reproduces the
leaderboard, except where the cross-validation is a close call.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from jobs.scores.columns import PreferencesError
from jobs.scores.folds import leaderboard_folds
from jobs.scores.preferences import Gamed, Preferences

FOLDS = 5
"""Folds of the cross-validation."""
STRENGTHS = np.logspace(-4, 4, 10)
"""Values of scikit-learn's C to choose from; a larger C is a weaker L1 penalty."""
GAMED_WEIGHT = 0.1
"""Weight of a gamed row against a judged row of weight 1."""
SEED = 123
"""Seed of the official code."""
CLOSEST = 1e-15
"""The log loss keeps each probability at least so far from 0 and 1."""
LEAST_WEIGHT = 1e-9
"""If no row is won (or lost), each row counts with this weight as won (or lost), because the regression
needs both outcomes."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A win rate at equal length."""

    win_rate: float
    """Win rate at equal length, percent."""
    c: float
    """The value of STRENGTHS that the cross-validation chose."""


@dataclass(frozen=True, slots=True)
class _Samples:
    """Rows for the regression."""

    features: Floats
    """Length, difficulty and constant of each row: shape (rows, 3)."""
    wins: Floats
    """How likely each row is won, 0 to 1."""
    weights: Floats
    """How much each row counts."""

    def only(self, chosen: NDArray[np.bool_]) -> "_Samples":
        return _Samples(self.features[chosen], self.wins[chosen], self.weights[chosen])


def length_controlled(
    preferences: Preferences, difficulty: Mapping[int, float], gamed: Gamed | None
) -> LengthControlled:
    """Predict the percentage of rows that the generator wins if its answers have the baseline's length.

    The prediction is for all rows of `preferences`, with or without a verdict.

    Args:
        preferences: A judge's verdicts on one generator.
        difficulty: The difficulty of each instruction, by its row.
        gamed: Rows that keep the regression from explaining too much by length; None leaves them out.

    Raises:
        PreferencesError: there are fewer judged rows than folds, or a row has no known difficulty.
    """
    judged = np.array([value is not None for value in preferences.preferences], bool)
    if (count := int(judged.sum())) < FOLDS:
        raise PreferencesError(f"length control needs {FOLDS} judged rows or more, not {count}")
    features = _features(preferences, difficulty)
    samples = _Samples(features[judged], np.array(preferences.wins()), np.ones(count))
    if gamed is not None:
        samples = _concatenate(_gamed_samples(gamed), samples)
    with warnings.catch_warnings():
        # With few rows some values of C do not converge; the cross-validation rejects them.
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
    deviation = shorter_by.std(ddof=1) or np.inf  # with equal lengths the feature is 0
    length = np.tanh(shorter_by / deviation)
    hard = np.array([difficulty[row] for row in preferences.rows])
    return np.column_stack([length, hard, np.ones(len(hard))])


def _gamed_samples(gamed: Gamed) -> _Samples:
    """The gamed rows. Their constant is 0, because it stands for the generator, and these rows compare
    the baseline with itself."""
    length = np.tanh(np.array(gamed.lengths))
    features = np.column_stack([length, np.array(gamed.difficulties), np.zeros(len(length))])
    return _Samples(features, np.array(gamed.wins), np.full(len(length), GAMED_WEIGHT))


def _concatenate(first: _Samples, second: _Samples) -> _Samples:
    return _Samples(
        np.concatenate([first.features, second.features]),
        np.concatenate([first.wins, second.wins]),
        np.concatenate([first.weights, second.weights]),
    )


def _best_strength(samples: _Samples) -> float:
    """The C with the least mean loss on rows that were left out; among equals the smallest."""
    fold = leaderboard_folds(len(samples.wins), FOLDS)
    losses = np.array([_losses(samples, fold == left_out) for left_out in range(FOLDS)])
    return float(STRENGTHS[losses.mean(axis=0).argmin()])


def _losses(samples: _Samples, left_out: NDArray[np.bool_]) -> list[float]:
    """The loss for each C.

    All fits draw from one source of random numbers, as in scikit-learn's path over C. Fits stop before
    they have fully converged, so these draws change the result.
    """
    random = np.random.RandomState(SEED)
    train, test = samples.only(~left_out), samples.only(left_out)
    return [_loss(test, _fit(train, float(c), random)) for c in STRENGTHS]


def _loss(samples: _Samples, weights: Floats) -> float:
    predicted = np.clip(_sigmoid(samples.features @ weights), CLOSEST, 1 - CLOSEST)
    won = samples.wins * np.log(predicted)
    lost = (1 - samples.wins) * np.log(1 - predicted)
    return -float((samples.weights * (won + lost)).mean())


def _fit(samples: _Samples, c: float, random: np.random.RandomState) -> Floats:
    """Fit the weights of the features. A row with probability p counts p as won and 1 - p as lost."""
    # l1_ratio=1 means L1. Before scikit-learn 1.8 this was an L2 penalty, with just a warning.
    model = LogisticRegression(
        C=c, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=random
    )
    count = len(samples.wins)
    both = [samples.weights * samples.wins, samples.weights * (1 - samples.wins)]
    # liblinear drops rows of weight 0. With one outcome alone it learns nothing and predicts a draw.
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
