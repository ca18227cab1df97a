"""What happens while a mixture answers, as plain data.

The events of an answer come in this order:

1. `Started`.
2. For each layer: `StageStarted`, then `ProposalThinks`, `ProposalDelta`, `ProposalDone` and
   `ProposalDropped` of its samples, then `StageDone`. If a proposal of the layer becomes the answer
   early, `Decided` says so before the `StageDone`, and no further layer follows.
3. For the aggregator: `StageStarted`, then `AnswerDelta` and `Answered`, then `StageDone`. A model that
   answers alone has the same events without `StageStarted`. So if the model fails at once, no event
   stands between `Started` and the error.
4. `AnswerDone`, with the summary.

Within 2 and 3 there may be: `Trimmed` where references were cut, `Retried` where a call was lost with
its replica, `Spent` where a finished call gave nothing usable, `Missing` where an aggregator failed,
`Judged` where a model has compared proposals. Within 3, before the text, there is `Decided` if the
recipe knows other ways to an answer than to merge.

A sample is one proposal that a layer asks a model for. `layer` is a layer's number, from 1; 0 stands
for the aggregator, and for the model that answers alone. `place` is the number of a sample in its
layer, from 0. Times are in seconds.
"""

from dataclasses import dataclass
from typing import Literal

from actors.engine import Delta, FinishReason

FILTERED = "was stopped by its server's filter, or refused to answer"
"""What is said of a model whose answer ended with `content_filter`."""
Role = Literal["proposer", "aggregator", "direct"]
"""What a model does in an answer; `direct` if the model answers alone."""
AnswerMethod = Literal["merge", "select", "vote", "agreement", "first", "stand_in", "direct"]
"""How the text of an answer came about. `merge`: an aggregator wrote it from the proposals. `direct`:
the request asked for the model by name. With the other methods, the answer is a proposal as it stands.
`select`: an aggregator picked the proposal. `vote`: the proposal has the answer that most samples agree
on. `agreement`: enough proposals agreed before all were there. `first`: the best member was sure.
`stand_in`: no model could write or pick."""
OrderMode = Literal["seeded", "arrival"]
"""What decides the order of the references. `seeded`: the answer's seed draws the order. `arrival`: the
references stand in the order in which the proposals came."""
NOT_NEEDED = "not_needed"
"""Cause of a proposal that was not waited for, because the answer was there before."""


@dataclass(frozen=True, slots=True)
class Started:
    """The request can be served, and work begins."""

    seed: int
    """The seed that decides the order of the references."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A proposal that a model reads, by where it comes from."""

    layer: int
    place: int


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins: a layer, or the writing of the answer."""

    stage: str
    """As in `StageDone`."""
    models: tuple[str, ...]
    """The model of each sample of a layer, by place. For the last stage, the models that may write the
    answer or pick it, in the order in which they are tried."""
    references: tuple[Reference, ...]
    """The proposals that the models of the stage read, in the order of their prompts. In a layer with
    `see`, each of its models reads some of them only."""
    at_s: float
    """When the stage began: seconds after the mixture began to work on the request."""


@dataclass(frozen=True, slots=True)
class Call:
    """What one finished engine call used.

    Calls that failed or were cancelled have no `Call`: engines report tokens at the end of a call.
    """

    model: str
    role: Role
    prompt_tokens: int
    """Tokens that the model read."""
    completion_tokens: int
    """Tokens that the model wrote, reasoning included."""
    engine_s: float
    """Seconds that the engine worked on the call."""
    finish_reason: FinishReason = "stop"
    seed: int | None = None
    """The sampling seed of the call; None if the call had no seed."""
    queue_s: float = 0.0
    """Seconds that the call waited at its replica before `engine_s` began: for the model's turn, and
    for room in its engine."""
    first_s: float | None = None
    """Seconds of `engine_s` up to the first token, reasoning or text; None if there was none."""
    cached_tokens: int = 0
    """How many of `prompt_tokens` the engine took from its cache; 0 if the engine does not tell."""

    @classmethod
    def from_delta(cls, model: str, role: Role, whole: Delta, seed: int | None) -> "Call":
        """The call whose deltas, joined, are `whole`."""
        return cls(
            model=model,
            role=role,
            prompt_tokens=whole.prompt_tokens,
            completion_tokens=whole.completion_tokens,
            engine_s=whole.engine_s,
            finish_reason=whole.finish_reason or "stop",
            seed=seed,
            queue_s=whole.queue_s,
            first_s=whole.first_s or None,
            cached_tokens=whole.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class ProposalThinks:
    """A model has begun to write the reasoning before its proposal, and the proposal has no text yet.

    Each attempt at the proposal has at most one such event. There is none if proposals are not
    streamed, or if an earlier attempt has given text. The event has no text of the reasoning.
    """

    layer: int
    place: int
    model: str


@dataclass(frozen=True, slots=True)
class ProposalDelta:
    """A proposal grows by `text`.

    If the replica that writes a proposal is lost, another replica writes the proposal anew. Then only
    text beyond the text that was sent before gives events. If the new proposal begins differently, no
    text gives events. In both cases `ProposalDone` has the whole text.
    """

    layer: int
    place: int
    model: str
    text: str


@dataclass(frozen=True, slots=True)
class ProposalDone:
    """A proposal is complete."""

    layer: int
    place: int
    model: str
    text: str
    """The proposal without its reasoning."""
    seconds: float
    """Time that the proposal took since its layer began, waiting for the model included."""
    call: Call
    first_s: float | None = None
    """Time from the start of the layer to the first token, reasoning or text; None if the proposal was
    not streamed."""
    confidence: float | None = None
    """Mean log-probability of the tokens that the model wrote; None if the engine was not asked for
    log-probabilities, or told none."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A model that should have contributed to the answer and did not."""

    layer: int
    model: str
    cause: str
    """`late` (not in time), `empty` (no text), `only_reasoning` (no answer after the reasoning),
    `content_filter` (a filter or the model itself refused), or the code of an error. `quorum_not_met`:
    the model did its part, but its layer, which was not the first, had fewer proposals than the
    quorum. `not_needed` (NOT_NEEDED), which is only said of proposals."""
    detail: str
    """The cause in a sentence for people."""


@dataclass(frozen=True, slots=True)
class Retried:
    """A call was lost with its replica and is made again on another replica."""

    layer: int
    model: str
    detail: str
    """The message of the error with which the lost call ended."""


@dataclass(frozen=True, slots=True)
class ProposalDropped:
    """A sample does not contribute. `ProposalDone` may have come before: see case 8 in `layer.py`."""

    place: int
    missing: Missing
    seconds: float = 0.0
    """Time since the layer began."""


@dataclass(frozen=True, slots=True)
class Spent:
    """A call finished and gave nothing usable. The call still counts in the usage."""

    call: Call


@dataclass(frozen=True, slots=True)
class Judged:
    """A short call finished in which a model compared proposals."""

    call: Call


@dataclass(frozen=True, slots=True)
class Decided:
    """It is decided how the answer comes about."""

    method: AnswerMethod
    why: str
    """The reason in a sentence for people. The sentence has no text of a prompt or an answer."""
    chosen: Reference | None = None
    """The proposal that is the answer as it stands; None if a model writes the answer."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """References were cut to fit into a model's context."""

    layer: int
    model: str
    tokens_removed: int


@dataclass(frozen=True, slots=True)
class StageDone:
    """A stage ended: a layer, or the writing of the answer."""

    stage: str
    """`layer 1`, `layer 2` and so on, `aggregator`, or `direct` for a model that answers alone."""
    seconds: float
    """Time that the stage took."""
    first_s: float | None = None
    """`Answered.first_s`; None for a layer."""
    at_s: float = 0.0
    """`StageStarted.at_s`."""
    references: tuple[Reference, ...] = ()
    """`StageStarted.references`."""


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """The answer grows."""

    delta: Delta


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer is complete; `model` wrote it."""

    model: str
    finish_reason: FinishReason
    fallback: Literal["aggregator", "reference"] | None = None
    """`aggregator`: a fallback aggregator wrote the answer. `reference`: the answer is a proposal."""
    cut: bool = False
    """Whether the deadline ended the answer early."""
    first_s: float | None = None
    """Time that the model took to its first token, reasoning or text; None if the answer is a proposal
    or the model wrote nothing."""
    call: Call | None = None
    """The call that wrote the answer; None if the answer is a proposal, or if the deadline cut the
    answer."""
    at_s: float = 0.0
    """When the model began, in seconds after its stage began: above 0 for a fallback."""
    tokens: int = 0
    """Tokens that the model wrote for the answer, reasoning included; 0 if the deadline cut the
    answer."""
    unheld: tuple[str, ...] = ()
    """Constraints of the request (`configs.extra_parameters.CONSTRAINTS`) that the answer may not keep,
    because a fallback or a proposal was not held to them, or the tools had no room in the model's
    context."""
    method: AnswerMethod = "merge"
    """How the text came about."""
    why: str = ""
    """`Decided.why`; empty if the recipe knows no other way than to merge."""
    chosen: Reference | None = None
    """The proposal whose text is the answer; None if a model wrote the answer."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How an answer came about."""

    seed: int
    """The seed that decided the order of the references."""
    answered: Answered
    missing: tuple[Missing, ...]
    trimmed: tuple[Trimmed, ...]
    retried: tuple[Retried, ...]
    stages: tuple[StageDone, ...]
    calls: tuple[Call, ...]
    """All finished calls, those that gave nothing usable included."""
    conversation_tokens: int = 0
    """Tokens of the conversation without references, as the models of the first stage counted it: the
    largest of their numbers, because tokenizers differ. 0 if no call of that stage finished."""
    order: OrderMode | None = None
    """What decided the order of the references; None if one model alone was asked."""

    @property
    def degraded(self) -> bool:
        """Whether the answer was made without something that the recipe asks for."""
        return bool(self.missing or self.answered.fallback or self.answered.cut)


@dataclass(frozen=True, slots=True)
class AnswerDone:
    """The last event of an answer."""

    summary: Summary


Event = (
    Started
    | StageStarted
    | ProposalThinks
    | ProposalDelta
    | ProposalDone
    | ProposalDropped
    | Spent
    | Judged
    | Decided
    | Retried
    | Missing
    | Trimmed
    | StageDone
    | AnswerDelta
    | Answered
    | AnswerDone
)
