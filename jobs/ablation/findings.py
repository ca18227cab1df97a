"""The findings of an ablation, as plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jobs.ablation.diversity import Diversities
from jobs.ablation.effects import Contrast, Correlation
from jobs.ablation.families import Source
from jobs.scores.score import Score


@dataclass(frozen=True, slots=True)
class Gain:
    """What a proposer adds to a mixture."""

    model: str
    added: bool
    """True if the model is not a proposer of the base and was added to it; False if it was left out."""
    contrast: Contrast
    """The mixture with the model minus the mixture without it; one of the two is the base."""
    source: Source | None
    """Whether another proposer of the base is of the same family; None if the names do not tell."""
    nearest: tuple[str, float] | None
    """The other proposer with the most similar proposals, and the similarity, 0 to 1."""
    vendi_with: float | None
    """Effective number of different proposals with the model."""
    vendi_without: float | None
    """Effective number of different proposals without the model."""


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
    """How the mixture compares with its members, the models in it."""

    over_best: Contrast
    """The mixture minus its best member. The interval covers the choice of the best one."""
    over_each: tuple[Contrast, ...]
    """The mixture minus each member."""
    over_self_moa: Contrast | None
    """The mixture minus Self-MoA, which asks the best member as often as the mixture asks all; None if
    there is no valid recipe for this."""
    calls: Mapping[str, int]
    """Engine calls that one answer takes, by generator."""


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
    """Scores of all generators that took part."""
    quantized: tuple[Contrast, ...] = ()
    """Quantized minus unquantized."""
    gains: tuple[Gain, ...] = ()
    """What each proposer adds."""
    diversities: Diversities | None = None
    """How different the proposals are."""
    aggregators: tuple[AggregatorComparison, ...] = ()
    """Each candidate as the aggregator."""
    correlation: Correlation | None = None
    """Whether candidates with a higher win rate alone make better mixtures."""
    members: MemberComparison | None = None
    """The mixture against its members."""
    skipped: tuple[str, ...] = ()
    """Comparisons that could not be made, and why."""

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON data."""
        return asdict(self) | {"scores": [score.to_json() for score in self.scores]}
