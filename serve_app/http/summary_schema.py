"""The schema of the summary at the end of an answer: how the answer came about.

`moa_object.py` makes the summary from the class `Summary` of `serve_app/mixture/events.py`. A field
stands in JSON in the order in which it stands here.
"""

from typing import Literal

from configs.routes import HelperTask
from serve_app.error_schema import Described
from serve_app.http.event_schema import ProposalDoneEvent
from serve_app.http.moa_fields import (
    AtSeconds,
    Cause,
    Detail,
    FirstSeconds,
    LayerOrAggregator,
    Method,
    ModelName,
    ReferenceFrom,
    References,
    Stage,
    StageSeconds,
    TokensRemoved,
    Why,
)
from serve_app.mixture.events import OrderMode


class MissingModel(Described):
    """A model that should have contributed to the answer and did not."""

    layer: LayerOrAggregator
    model: ModelName
    cause: Cause
    detail: Detail


class TrimmedReferences(Described):
    """References that were shortened to fit into a model's context."""

    layer: LayerOrAggregator
    model: ModelName
    tokens_removed: TokensRemoved


class RetriedCall(Described):
    """A call that was lost together with its replica and was made again."""

    layer: LayerOrAggregator
    model: ModelName
    detail: Detail


class StageTime(Described):
    """How long one stage of the answer took."""

    stage: Stage
    seconds: StageSeconds
    first_s: FirstSeconds
    at_s: AtSeconds
    references: References


class RoutedRequest(Described):
    """That one model has answered in place of the mixture."""

    task: HelperTask | None
    """What the request was for: a task that chat clients give to models by themselves. Null for a
    prompt that the recipe names itself."""
    model: str
    """Name of the model to which the recipe's `routes` send such a request."""
    why: str
    """What the request was recognised by."""


class MoaSummary(Described):
    """How the answer came about. Every answer in one piece has this summary. In a stream, the last
    chunk with a choice has this summary."""

    type: Literal["summary"]
    degraded: bool
    """Whether the answer was made without something that the recipe asks for: `missing` is not empty,
    `fallback` is not null, or `cut` is true."""
    missing: list[MissingModel]
    """Models that should have contributed and did not."""
    answered_by: str
    """Name of the model that wrote the text of the answer."""
    fallback: Literal["aggregator", "reference"] | None
    """Null if the recipe's aggregator wrote the answer; `aggregator` if one of its fallbacks did;
    `reference` if a proposal is the answer as it stands."""
    cut: bool
    """Whether the deadline ended the answer early."""
    trimmed: list[TrimmedReferences]
    """Models whose references were shortened."""
    retried: list[RetriedCall]
    """Calls that were lost and made again."""
    stages: list[StageTime]
    """The stages in the order in which they ended."""
    seed: int
    """The seed that decided the order of the references: the request's, or one that was drawn. For a
    model that was asked by name: the request's, or 0."""
    order: OrderMode | None
    """What decided the order of the references (`references.order` of the recipe). `seeded`: the seed
    drew the order. `arrival`: the references stand in the order in which the proposals came; for
    proposals that came at the same time, the seed decided. Null if a model was asked by name. `stages`
    has the order itself."""
    method: Method
    why: Why = ""
    """Absent if the recipe knows no other way than `merge`."""
    chosen: ReferenceFrom | None = None
    """The proposal whose text is the answer; absent if a model wrote the answer."""
    ignored: list[str] = []  # noqa: RUF012  # pydantic copies the default
    """Names of what the request has and no model sees: parameters that list tools, parameters of other
    servers that change nothing here, and fields of messages that the server does not know
    (`messages.NAME`). Absent if there are none."""
    unheld: list[str] = []  # noqa: RUF012  # as above
    """Names of the request's constraints that the answer may not keep, because a fallback or a proposal
    took over that could not be held to them: `response_format` (also for other names of it, such as
    `guided_json`), `logit_bias`, `stop_token_ids`, `allowed_token_ids`, `bad_words`, `tools`.
    `tools` is also here if the tools had no room in the model's context and the request did not demand
    a call. Absent if there is nothing to name."""
    routed: RoutedRequest | None = None
    """Why one model has answered in place of the mixture. Absent if the mixture has answered, or if the
    request names the model."""
    proposals: list[ProposalDoneEvent] = []  # noqa: RUF012  # as above
    """The complete proposals; only in answers in one piece to requests with `moa.events`."""
