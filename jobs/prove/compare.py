"""Two ways compared question by question, each question won by one of them or by neither. Pure.

A question is won by the way whose answer is right while the other's is wrong, or by the way that the
judge prefers in both orders. So the same figures serve checked and judged answers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from jobs.scores.paired import Split

Outcome = Literal["better", "worse", "open"]
"""`better` or `worse` if the questions show a difference, `open` if nobody can tell."""
Won = Mapping[int, int]
"""By row: 1 if the mixture won it, -1 if the other way did, 0 if neither did."""
RESAMPLES = 10_000
MOST_DRAWN = 10_000_000
"""Most rows that all resamples draw together, so that they fit into memory."""
SEED = 0
LEVEL = 0.05
MOST_NEEDED = 20_000
"""A larger number of questions is not told, because nobody asks so many."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the mixture compares with another way on the same questions."""

    questions: int
    gained: int
    """Questions that the mixture won."""
    lost: int
    """Questions that the other way won."""
    low: float
    """Lower end of the 95% interval of `difference`."""
    high: float
    """Upper end of the interval."""
    p: float
    """The probability of so uneven a split by chance: McNemar's exact test, two-sided."""

    @property
    def difference(self) -> float:
        """The share of questions that the mixture won, minus the share that the other way won."""
        return (self.gained - self.lost) / self.questions if self.questions else 0.0

    @property
    def outcome(self) -> Outcome:
        """What the questions show. Both the interval and the exact test have to say so."""
        if self.p >= LEVEL or self.low <= 0 <= self.high:
            return "open"
        return "better" if self.low > 0 else "worse"

    @property
    def smallest(self) -> float:
        """The smallest difference that so many questions can show, if the two ways differ on as many
        of them as they do here."""
        return smallest_shown(self.questions, self.gained + self.lost)

    @property
    def needed(self) -> int | None:
        """How many questions would show a difference as large as the one that was seen, if the two ways
        won the same shares of them; None if none was seen, or if MOST_NEEDED would not show it."""
        few, many = self.questions, MOST_NEEDED
        if not self.difference or few >= many or not self._shows(many):
            return None
        while few + 1 < many:
            middle = (few + many) // 2
            few, many = (few, middle) if self._shows(middle) else (middle, many)
        return many

    def _shows(self, questions: int) -> bool:
        """Whether so many questions would show it."""
        gained, lost = (count * questions // self.questions for count in (self.gained, self.lost))
        return _compared(Split(gained, lost, questions)).outcome != "open"


def compare(won: Won) -> Comparison:
    """The comparison with one other way, which was chosen before the answers were seen."""
    values = list(won.values())
    return _compared(Split(sum(v > 0 for v in values), sum(v < 0 for v in values), len(values)))


def _compared(split: Split) -> Comparison:
    found = split.difference
    return Comparison(split.questions, split.gained, split.lost, found.low, found.high, split.p)


def compare_with_best(won: Mapping[str, Won], best: str) -> Comparison:
    """The comparison with the best member, which was chosen by the same answers. The interval covers
    the choice: the best member is chosen anew in each of the resamples (paired bootstrap). The wider
    end counts on each side, so that few questions give no narrow interval.

    Args:
        won: for each member, which rows the mixture won against it.
        best: the member that was chosen.
    """
    plain = compare(won[best])
    rows = sorted(set.intersection(*(set(each) for each in won.values())))
    if len(won) < 2 or not rows:
        return plain
    # In a resample, the best member is the one against which the mixture wins least.
    values = np.array([[each[row] for row in rows] for each in won.values()])
    resamples = max(1000, min(RESAMPLES, MOST_DRAWN // len(rows)))
    drawn = np.random.default_rng(SEED).integers(len(rows), size=(resamples, len(rows)))
    least = np.min([each[drawn].mean(axis=1) for each in values], axis=0)
    low, high = (float(end) for end in np.quantile(least, [LEVEL / 2, 1 - LEVEL / 2]))
    return Comparison(
        plain.questions, plain.gained, plain.lost, min(plain.low, low), max(plain.high, high), plain.p
    )


@cache
def smallest_shown(questions: int, differing: int) -> float:
    """The smallest difference that `compare` calls one, among so many questions of which at least so
    many differ; 1 if so many questions can show none."""
    for differ in range(differing, questions + 1):
        for lost in range(differ // 2, -1, -1):
            gained = differ - lost
            if _compared(Split(gained, lost, questions)).outcome == "better":
                return (gained - lost) / questions
    return 1.0
