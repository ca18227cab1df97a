"""Two ways to answer the same questions, compared question by question. Pure.

A question is answered rightly or not. Only the questions on which the two differ say which is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

Z = 1.959964
"""Standard deviations around the mean that hold 95% of a normal distribution."""
USUAL_DIFFERING = 0.2
"""Share of the questions on which two ways usually differ, where nothing else is known."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """The numbers in percent."""
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


def share(right: Sequence[bool]) -> Interval:
    """The share of right answers, with Wilson's interval (1927), which holds for few questions too."""
    count = len(right)
    if not count:
        return Interval(0.0, 0.0, 1.0)
    mean = sum(right) / count
    below = 1 + Z**2 / count
    middle = (mean + Z**2 / (2 * count)) / below
    half = Z * math.sqrt(mean * (1 - mean) / count + Z**2 / (4 * count**2)) / below
    return Interval(mean, max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True, slots=True)
class Split:
    """How the questions split between two ways that answered the same questions."""

    gained: int
    """Number of questions that only the first way answered rightly."""
    lost: int
    """Number of questions that only the other way answered rightly."""
    questions: int
    """Number of all questions."""

    @classmethod
    def of(cls, one: Sequence[bool], other: Sequence[bool]) -> Self:
        """The split by which questions each way answered rightly."""
        pairs = list(zip(one, other, strict=True))
        gained = sum(a and not b for a, b in pairs)
        return cls(gained, sum(b and not a for a, b in pairs), len(pairs))

    @property
    def difference(self) -> Interval:
        """How much larger the first way's share of right answers is.

        The interval is the normal one of paired proportions, with half a question added on each side
        of those that differ, so that it has a width where none differ (Agresti and Min, 2005).
        """
        if not self.questions:
            return Interval(0.0, -1.0, 1.0)
        up, down, all_of = self.gained + 0.5, self.lost + 0.5, self.questions + 2
        middle = (up - down) / all_of
        half = Z * math.sqrt(up + down - (up - down) ** 2 / all_of) / all_of
        return Interval((self.gained - self.lost) / self.questions, middle - half, middle + half)

    @property
    def p(self) -> float:
        """The probability of so uneven a split of the questions that differ, or of a more uneven one,
        if both ways are equally good: McNemar's exact test, two-sided."""
        differ = self.gained + self.lost
        # Each binomial coefficient follows from the one before: `math.comb` would begin anew each time.
        ways = tail = 1
        for k in range(min(self.gained, self.lost)):
            ways = ways * (differ - k) // (k + 1)
            tail += ways
        return float(min(1.0, 2 * tail / 2**differ))


def smallest_difference(questions: int, differing: float = USUAL_DIFFERING) -> float:
    """The smallest difference that so many questions can show at 95%.

    Args:
        questions: their number; at least 1.
        differing: the share of them on which the two ways differ.
    """
    return min(1.0, Z * math.sqrt(max(differing, 1 / questions) / questions))


def auroc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """The probability that a right answer has a higher score than a wrong one, a tie counting half;
    None if all answers are right or all are wrong."""
    good = [score for score, is_right in zip(scores, right, strict=True) if is_right]
    bad = [score for score, is_right in zip(scores, right, strict=True) if not is_right]
    if not good or not bad:
        return None
    wins = sum((a > b) + 0.5 * (a == b) for a in good for b in bad)
    return wins / (len(good) * len(bad))
