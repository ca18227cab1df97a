"""What happens while a mixture answers, in order, as plain data.

`Started`, then for each layer `ProposalDelta`, `ProposalDone`, `ProposalDropped` and `StageDone`, then
`AnswerDelta`, `Answered` and one more `StageDone`, then `AnswerDone`; `Trimmed` where references were
cut, `Retried` where a replica was lost, `Missing` where an aggregator failed, `Spent` where a call gave
nothing. Layers count from 1, places from 0.
"""

from dataclasses import dataclass
from typing import Literal

from actors.engine import Delta, FinishReason

Role = Literal["proposer", "aggregator", "direct"]


@dataclass(frozen=True, slots=True)
class Started:
    """The request can be served; work begins. seed: decides the order of references."""

    seed: int


@dataclass(frozen=True, slots=True)
class Call:
    """What one finished engine call used, and how its text ended. role: proposer, aggregator or direct;
    seed: its sampling's.

    Calls that failed or were cancelled are not counted: engines report tokens at the end of a call.
    """

    model: str
    role: Role
    prompt_tokens: int
    completion_tokens: int
    engine_s: float
    finish_reason: FinishReason = "stop"
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class ProposalDelta:
    """A proposal grows by `text`. One that is written anew, because its replica was lost, grows where
    it goes beyond what was shown, and not at all if it begins otherwise: ProposalDone has the text."""

    layer: int
    place: int
    model: str
    text: str


@dataclass(frozen=True, slots=True)
class ProposalDone:
    """A proposal is complete. text: without its reasoning; seconds: that it took, waiting included."""

    layer: int
    place: int
    model: str
    text: str
    seconds: float
    call: Call


@dataclass(frozen=True, slots=True)
class Missing:
    """A model that should have contributed and did not.

    layer: 0 for the aggregator. cause: `late`, `empty`, or the code of an error; `quorum_not_met` if
    the model did its part and its layer, not the first, had too few proposals to be used.
    """

    layer: int
    model: str
    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class Retried:
    """A call was lost with its replica and is made again on another. layer: 0 for the aggregator."""

    layer: int
    model: str
    detail: str


@dataclass(frozen=True, slots=True)
class ProposalDropped:
    """A proposer does not contribute."""

    place: int
    missing: Missing


@dataclass(frozen=True, slots=True)
class Spent:
    """A call that finished and gave nothing that could be used; it counts in the usage all the same."""

    call: Call


@dataclass(frozen=True, slots=True)
class Trimmed:
    """References were cut to fit into a model's context. layer: 0 for the aggregator."""

    layer: int
    model: str
    tokens_removed: int


@dataclass(frozen=True, slots=True)
class StageDone:
    """A layer or the aggregator is through. first_s: until the answer's first token, none for a layer;
    both in seconds."""

    stage: str
    seconds: float
    first_s: float | None = None


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """The answer grows."""

    delta: Delta


@dataclass(frozen=True, slots=True)
class Answered:
    """Whose text the answer is.

    fallback: `aggregator` if another than the recipe's first wrote it, `reference` if it is a proposal
    as it stands. cut: the deadline ended it early. first_s: seconds that its model took to its first
    token, reasoning or text. call: none for a reference, and where the deadline cut it.
    """

    model: str
    finish_reason: FinishReason
    fallback: Literal["aggregator", "reference"] | None = None
    cut: bool = False
    first_s: float | None = None
    call: Call | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """How an answer came about. seed: decided the order of references."""

    seed: int
    answered: Answered
    missing: tuple[Missing, ...]
    trimmed: tuple[Trimmed, ...]
    retried: tuple[Retried, ...]
    stages: tuple[StageDone, ...]
    calls: tuple[Call, ...]

    @property
    def degraded(self) -> bool:
        """Whether the answer was made without something that the recipe asks for."""
        return bool(self.missing or self.answered.fallback or self.answered.cut)


@dataclass(frozen=True, slots=True)
class AnswerDone:
    """The end."""

    summary: Summary


Event = (
    Started
    | ProposalDelta
    | ProposalDone
    | ProposalDropped
    | Spent
    | Retried
    | Missing
    | Trimmed
    | StageDone
    | AnswerDelta
    | Answered
    | AnswerDone
)
