"""The findings of an ablation, as plain data.

The *base* is the mixture of the run's recipe as it is. A contrast "A minus B" is the win rate of A
minus the win rate of B.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jobs.ablation.diversity import Diversities
from jobs.ablation.effects import Contrast, Correlation
from jobs.ablation.families import Source
from jobs.scores.score import Score


@dataclass(frozen=True, slots=True)
class Gain:
    """What one proposer adds to a mixture."""

    model: str
    added: bool
    """True if the model is not a proposer of the base and was added to it; False if it was left out."""
    contrast: Contrast
    """The mixture with the model minus the mixture without it; one of the two is the base."""
    source: Source | None
    """Whether another proposer of the base is of the same family; None if the names do not tell."""
    nearest: tuple[str, float] | None
    """The base's other proposer with the most similar proposals, and the similarity, 0 to 1; None if no
    similarity is known."""
    vendi_with: float | None
    """Mean effective number of different proposals with the model; None without proposals."""
    vendi_without: float | None
    """Mean effective number of different proposals without the model; None without proposals."""


@dataclass(frozen=True, slots=True)
class AggregatorComparison:
    """How a candidate does as the aggregator of the base's proposals."""

    model: str
    over_alone: Contrast
    """The candidate's mixture minus the candidate alone."""
    over_base: Contrast | None
    """The candidate's mixture minus the base; None if the two are the same."""


@dataclass(frozen=True, slots=True)
class MemberComparison:
    """How the base compares with its members: the models in it, each alone."""

    over_best: Contrast
    """The base minus its best member. The interval covers the choice of the best member."""
    over_each: tuple[Contrast, ...]
    """The base minus each member."""
    over_self_moa: Contrast | None
    """The base minus Self-MoA, in which the best member makes as many proposals as all proposers of the
    base together; None if no valid recipe does this, or no row is judged for all members."""
    calls: Mapping[str, int]
    """Number of engine calls that one answer takes, by name of the generator."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of all parts of an ablation; a part that was not asked for is empty."""

    recipe: str
    """Name of the base."""
    judge: str
    """The judge's name in verdicts."""
    baseline: str
    """The generator that all others are judged against."""
    date: str
    """The day of the computation, YYYY-MM-DD, in UTC."""
    scores: tuple[Score, ...]
    """Scores of all variants that have verdicts."""
    quantized: tuple[Contrast, ...] = ()
    """Each quantized variant minus its unquantized counterpart."""
    gains: tuple[Gain, ...] = ()
    """What each proposer adds."""
    diversities: Diversities | None = None
    """How different the proposals are; None if no proposers were compared."""
    aggregators: tuple[AggregatorComparison, ...] = ()
    """Each candidate as the aggregator."""
    correlation: Correlation | None = None
    """Whether candidates with a higher win rate alone aggregate better; None without candidates."""
    members: MemberComparison | None = None
    """The base against its members; None if they were not compared."""
    skipped: tuple[str, ...] = ()
    """Comparisons that could not be made, and why."""

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON data."""
        return asdict(self) | {"scores": [score.to_json() for score in self.scores]}
