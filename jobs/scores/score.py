"""Computes win rates and length-controlled win rates from verdicts.

Each figure carries what it depends on (judge, baseline, date, number of rows, gamed rows, chosen C).
A score that is not comparable with AlpacaEval 2's leaderboard says why.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

from jobs.scores.preferences import OFFICIAL_BASELINE, OFFICIAL_GAMED, Gamed, Preferences

OFFICIAL_JUDGES = ("gpt-4-1106-preview", "weighted_alpaca_eval_gpt4_turbo")
"""Names of the leaderboard's judge: the model, and AlpacaEval's settings for the model. A judge with
another prompt has another name."""
OFFICIAL_ROWS = 805
"""Rows of AlpacaEval 2."""
NORMAL_95 = 1.96
"""Standard errors on each side of a mean that give its 95% interval under a normal distribution."""
NOT_COMPARABLE = "not comparable with the leaderboard"


@dataclass(frozen=True, slots=True)
class Score:
    """A generator's win rates."""

    generator: str
    judge: str
    baseline: str
    date: str
    """The day of the computation, YYYY-MM-DD, in UTC."""
    n: int
    """Number of rows with a usable verdict."""
    missing: int
    """Number of rows whose verdict is missing or unusable; the win rate does not count these rows."""
    win_rate: float | None
    """Mean preference for the generator over the judged rows, percent; None without judged rows."""
    standard_error: float | None
    """Standard error of the win rate, in percent points; None with fewer than two judged rows."""
    lc: float | None
    """Length-controlled win rate, percent; None if it was not computed. Rows with an unusable verdict
    count too: their outcome is predicted."""
    chosen_c: float | None
    """The strength of the penalty (scikit-learn's C) that length control chose; None without `lc`."""
    gamed_source: str
    """Where the gamed rows come from; `none` without gamed rows."""
    mean_length: float | None
    """Mean length of the generator's answers, in characters, over the rows with a verdict, even an
    unusable verdict; None without such rows."""
    reasons: tuple[str, ...]
    """Why the score is not comparable with the leaderboard; empty if it is."""
    interval: tuple[float, float] | None = None
    """The 95% interval of the win rate by Wilson's formula, percent, for votes; otherwise None. Votes
    are few, and the standard error says too little then."""

    @property
    def comparable(self) -> bool:
        """Whether the score may be compared with the leaderboard's figures."""
        return not self.reasons

    @property
    def note(self) -> str:
        """A text that says why the score is not comparable; empty if the score is comparable."""
        return not_comparable(self.reasons)

    def to_json(self) -> dict[str, Any]:
        found = asdict(self) | {"comparable": self.comparable, "note": self.note}
        return {name: value for name, value in found.items() if name != "interval" or value}


def score(
    preferences: Preferences, difficulty: Mapping[int, float] | None, gamed: Gamed | None
) -> Score:
    """Compute the win rates of one generator.

    Args:
        preferences: A judge's verdicts on the generator.
        difficulty: The difficulty of each instruction, by its row. Without this, or with too few judged
            rows, there is no length-controlled win rate. Votes need no difficulty: all of their
            instructions count as equally difficult.
        gamed: The gamed rows for length control; see `preferences.Gamed`.

    Raises:
        PreferencesError: a row has no difficulty.
    """
    wins = preferences.wins()
    lc, chosen_c = None, None
    plain: list[str] = []
    if difficulty is None and preferences.are_votes and _has_lengths(preferences):
        difficulty = dict.fromkeys(preferences.rows, 0.0)
        plain = ["LC without the difficulty of instructions"]
    if difficulty is not None:
        lc, chosen_c = _length_controlled(preferences, difficulty, gamed)
    return Score(
        generator=preferences.generator,
        judge=preferences.judge,
        baseline=preferences.baseline,
        date=today(),
        n=len(wins),
        missing=len(preferences.preferences) - len(wins) + preferences.unjudged,
        win_rate=100 * statistics.fmean(wins) if wins else None,
        standard_error=100 * statistics.stdev(wins) / len(wins) ** 0.5 if len(wins) > 1 else None,
        lc=lc,
        chosen_c=chosen_c,
        gamed_source=gamed.source if gamed else "none",
        mean_length=statistics.fmean(preferences.len_generator) if preferences.rows else None,
        reasons=(
            *_reasons(preferences, len(wins), gamed, has_lc=lc is not None),
            *(plain if lc is not None else ()),
        ),
        interval=wilson(statistics.fmean(wins), len(wins)) if preferences.are_votes and wins else None,
    )


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95% interval of a share, percent (Wilson, 1927).

    Args:
        share: the share of wins, 0 to 1; a tie counts half.
        n: the number of comparisons, at least 1.
    """
    z = NORMAL_95
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    margin = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    return 100 * max(0.0, middle - margin), 100 * min(1.0, middle + margin)


def _has_lengths(preferences: Preferences) -> bool:
    """Whether length control can tell length from quality: the differences in length differ, and
    scikit-learn, an extra of the package, is there."""
    pairs = zip(preferences.len_baseline, preferences.len_generator, strict=True)
    return len({one - two for one, two in pairs}) > 1 and find_spec("sklearn") is not None


def _length_controlled(
    preferences: Preferences, difficulty: Mapping[int, float], gamed: Gamed | None
) -> tuple[float, float] | tuple[None, None]:
    from jobs.scores.length_control import FOLDS, length_controlled  # heavy

    if len(preferences.wins()) < FOLDS:
        return None, None
    found = length_controlled(preferences, difficulty, gamed)
    return found.win_rate, found.c


def _reasons(preferences: Preferences, n: int, gamed: Gamed | None, *, has_lc: bool) -> Iterator[str]:
    if preferences.judge not in OFFICIAL_JUDGES:
        yield f"judge: {preferences.judge}, not {OFFICIAL_JUDGES[0]}"
    if preferences.baseline != OFFICIAL_BASELINE:
        yield f"baseline: {preferences.baseline}, not {OFFICIAL_BASELINE}"
    yield from preferences.reasons
    if n != OFFICIAL_ROWS:
        yield f"{n} judged rows, not {OFFICIAL_ROWS}"
    if has_lc and gamed is None:
        # Measured over 57 models of the leaderboard: 1.4 points off on average, 13.7 at most.
        yield "LC without gamed rows, up to 14 points off"
    elif has_lc and gamed and gamed.source != OFFICIAL_GAMED:
        yield f"gamed rows: {gamed.source}, not the official file"


def not_comparable(reasons: Sequence[str]) -> str:
    """Say that figures are not comparable, with the reasons; an empty text if there is no reason."""
    return f"{NOT_COMPARABLE} ({'; '.join(reasons)})" if reasons else ""


def today() -> str:
    """The day, YYYY-MM-DD, in UTC."""
    return datetime.now(UTC).date().isoformat()
