"""The schema of the events by which a stream tells how its answer comes about: `moa.events`.

Each class describes an event of `serve_app/mixture/events.py` as clients receive the event.
`moa_object.py` makes these objects. A field stands in JSON in the order in which it stands here.
"""

from typing import Literal

from serve_app.error_schema import Described
from serve_app.http.moa_fields import (
    AtSeconds,
    Cause,
    Detail,
    FirstSeconds,
    LayerNumber,
    LayerOrAggregator,
    Method,
    ModelName,
    Place,
    ReferenceFrom,
    References,
    SinceLayer,
    Stage,
    StageSeconds,
    TokensRemoved,
    Why,
)


class StageStartedEvent(Described):
    """A stage of the answer begins."""

    type: Literal["stage.started"]
    stage: Stage
    models: list[ModelName]
    """The model of each proposal of a layer, by its place. For the last stage: the models that may
    write the answer or pick it, in the order in which they are tried."""
    references: References
    at_s: AtSeconds


class ProposalThinksEvent(Described):
    """A model has begun to think: it writes the reasoning before its proposal, and the proposal has no
    text yet. The event has no text of the reasoning. If another replica begins the proposal anew, there
    may be another such event.
    """

    type: Literal["proposal.thinks"]
    layer: LayerNumber
    place: Place
    model: ModelName


class ProposalDeltaEvent(Described):
    """A proposal grew.

    If the replica that writes a proposal is lost, another replica writes the proposal anew. Events then
    carry only text beyond the text that was sent before, and no text if the new proposal begins
    differently. In both cases `proposal.done` has the valid text.
    """

    type: Literal["proposal.delta"]
    layer: LayerNumber
    place: Place
    model: ModelName
    text: str
    """The text to append."""


class ProposalDoneEvent(Described):
    """A proposal is complete."""

    type: Literal["proposal.done"]
    layer: LayerNumber
    place: Place
    model: ModelName
    text: str
    """The whole proposal without its reasoning."""
    seconds: SinceLayer
    first_s: float | None
    """Seconds from the start of the layer to the proposal's first token, reasoning or text; null if the
    request did not ask for the proposals as they grow."""
    engine_s: float
    """Seconds that the model worked on the proposal. The rest of `seconds` is waiting."""
    completion_tokens: int
    """Tokens that the model wrote, reasoning included."""
    confidence: float | None = None
    """Mean log-probability of the tokens that the model wrote; absent if it was not asked for."""


class ProposalDroppedEvent(Described):
    """A proposal will not be used. Its model failed or was late, or a later layer than the first had
    fewer proposals than the quorum."""

    type: Literal["proposal.dropped"]
    place: Place
    layer: LayerNumber
    model: ModelName
    cause: Cause
    detail: Detail
    seconds: SinceLayer


class AggregatorFailedEvent(Described):
    """A model failed to write the answer. The recipe's next fallback, or a proposal, takes over."""

    type: Literal["aggregator.failed"]
    layer: int
    """Always 0, which stands for the aggregator."""
    model: ModelName
    cause: str
    """The code of the error with which the model failed, for programs."""
    detail: Detail


class DecidedEvent(Described):
    """It is decided how the answer comes about. Only mixtures whose recipe knows other ways than
    `merge` have this event."""

    type: Literal["decided"]
    method: Method
    why: Why
    chosen: ReferenceFrom | None
    """The proposal that is the answer as it stands; null if a model writes the answer."""


class TrimmedEvent(Described):
    """References were shortened so that a prompt fits into a model's context."""

    type: Literal["trimmed"]
    layer: LayerOrAggregator
    model: ModelName
    tokens_removed: TokensRemoved


class RetriedEvent(Described):
    """A call was lost together with its replica and is made again on another replica."""

    type: Literal["retried"]
    layer: LayerOrAggregator
    model: ModelName
    detail: Detail


class StageDoneEvent(Described):
    """A stage ended: a layer, or the writing of the answer."""

    type: Literal["stage.done"]
    stage: Stage
    seconds: StageSeconds
    first_s: FirstSeconds


MoaEvent = (
    StageStartedEvent
    | ProposalThinksEvent
    | ProposalDeltaEvent
    | ProposalDoneEvent
    | ProposalDroppedEvent
    | AggregatorFailedEvent
    | DecidedEvent
    | TrimmedEvent
    | RetriedEvent
    | StageDoneEvent
)
"""What a chunk reports while the answer is on its way, if the request sets `moa.events`."""
