"""Which rows fall into which fold of the cross-validation, exactly as on AlpacaEval 2's leaderboard.

The official code leaves this to scikit-learn's GroupKFold, which sorts groups of equal size with an
unstable sort. So the folds depend on the processor: NumPy sorts in another way where AVX-512 is
available. Other folds may make the cross-validation choose another strength of the penalty, which
changes a win rate by up to 0.05 points. Most of the leaderboard's figures come out exactly with the
order of NumPy's portable quicksort. This file therefore repeats that quicksort, on every processor.
"""

import numpy as np
from numpy.typing import NDArray

FEW = 16
"""NumPy's quicksort sorts up to this many values by insertion, which leaves equal values in place."""


def leaderboard_folds(count: int, folds: int) -> NDArray[np.int_]:
    """The fold of each of `count` rows, from 0.

    The rows are dealt out to the folds in the reverse of the order in which quicksort leaves them.
    """
    fold = np.empty(count, int)
    fold[_order_after_quicksort(count)[::-1]] = np.arange(count) % folds
    return fold


def _order_after_quicksort(count: int) -> list[int]:
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
