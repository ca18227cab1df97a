"""What ablations find, as plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jobs.ablation.diversity import Diversities
from jobs.ablation.effects import Contrast, Correlation
from jobs.ablation.families import Source
from jobs.scores.score import Score


@dataclass(frozen=True, slots=True)
class Gain:
    """What a proposer adds: the mixture with it minus the one without it, whichever is the base.

    added: it is not in the base. source: whether another proposer of the base is of the same family,
    by the names of the weights; None if they do not tell. nearest: the one of them whose proposals are
    most similar to its own, and how similar, 0 to 1; vendi_with, vendi_without: effective number of
    different proposals.
    """

    model: str
    added: bool
    contrast: Contrast
    source: Source | None
    nearest: tuple[str, float] | None
    vendi_with: float | None
    vendi_without: float | None


@dataclass(frozen=True, slots=True)
class Aggregating:
    """A candidate as the aggregator of the base's proposals.

    over_alone: its mixture minus itself alone; over_base: its mixture minus the base, None where it
    is the base.
    """

    model: str
    over_alone: Contrast
    over_base: Contrast | None


@dataclass(frozen=True, slots=True)
class Members:
    """The mixture against the models in it.

    over_best: minus the best of them, which the same rows decide: the interval covers that choice.
    over_each: minus each of them. over_self_moa: minus as many calls to the best one, None if there is
    no such recipe. calls: of one answer, by generator.
    """

    over_best: Contrast
    over_each: tuple[Contrast, ...]
    over_self_moa: Contrast | None
    calls: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Findings:
    """Of all parts; what was not asked for is empty.

    recipe: name of the base; scores: of all generators that took part; quantized: quantized minus
    unquantized; skipped: what could not be compared, and why.
    """

    recipe: str
    judge: str
    baseline: str
    date: str
    scores: tuple[Score, ...]
    quantized: tuple[Contrast, ...] = ()
    gains: tuple[Gain, ...] = ()
    diversities: Diversities | None = None
    aggregators: tuple[Aggregating, ...] = ()
    correlation: Correlation | None = None
    members: Members | None = None
    skipped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON data."""
        return asdict(self) | {"scores": [score.to_json() for score in self.scores]}
