"""The schema of answers: OpenAI's objects with the fields that SlimMoA adds, and the error envelope.

`response.py` builds its answers from these models, OpenAPI shows them, and docs/api.md is generated
from them, so the three cannot disagree. A field stands in JSON in the order in which it stands here.
"""

from typing import Annotated, Literal

from openai import types
from openai.types import chat
from pydantic import ConfigDict, Field

from configs.routes import HelperTask
from serve_app.error_schema import Described
from serve_app.mixture.events import OrderMode

LayerNumber = Annotated[int, Field(description="Number of the layer, counted from 1.")]
LayerOrAggregator = Annotated[
    int,
    Field(
        description="Number of the layer, counted from 1; 0 stands for the aggregator, and for a model "
        "that is asked by name."
    ),
]
Place = Annotated[
    int,
    Field(
        description="Position of the proposal in its layer, counted from 0. It tells proposals apart "
        "where one model writes several."
    ),
]
ModelName = Annotated[str, Field(description="Name of the model in the recipe.")]
Cause = Annotated[
    str,
    Field(
        description="Why the model did not contribute, for programs: `late` (it missed a deadline), "
        "`empty` (it wrote no text), `only_reasoning` (it thought and did not answer), "
        "`content_filter` (a filter of its server stopped it, or it refused to answer), "
        "`not_needed` (the answer was there before; nothing is missing), "
        "`quorum_not_met` (its proposal is complete, but its "
        "layer, which was not the first, had too few proposals to be used), or the code of an error."
    ),
]
Method = Annotated[
    Literal["merge", "select", "vote", "agreement", "first", "stand_in", "direct"],
    Field(
        description="How the text of the answer came about. `merge`: a model wrote it from the "
        "proposals. The next are a proposal as it stands. `select`: a model picked it. `vote`: it has "
        "the answer that most samples agree on. `agreement`: enough proposals agreed before all were "
        "there. `first`: the best member was sure. `stand_in`: no model could write or pick. `direct`: "
        "the request asked for the model by name."
    ),
]
Why = Annotated[str, Field(description="Why the answer came about in this way, in words for people.")]
Detail = Annotated[str, Field(description="What happened, in words for people.")]
TokensRemoved = Annotated[int, Field(description="How many tokens of references were cut away.")]
Stage = Annotated[
    str,
    Field(description="`layer 1`, `layer 2` and so on, `aggregator`, or `direct` for one model alone."),
]
AtSeconds = Annotated[
    float,
    Field(description="When the stage began: seconds after the mixture began to work on the request."),
]
SinceLayer = Annotated[float, Field(description="Seconds since the layer began.")]
StageSeconds = Annotated[float, Field(description="Seconds that the stage took.")]
FirstSeconds = Annotated[
    float | None,
    Field(
        description="Seconds from the call of the model that wrote the answer to its first token, "
        "reasoning or text; null for a layer, and where a proposal is the answer."
    ),
]


class ReferenceFrom(Described):
    """A proposal that a model reads, by where it comes from."""

    layer: LayerNumber
    place: Place


References = Annotated[
    list[ReferenceFrom],
    Field(
        description="The proposals that the models of the stage read, in the order of their prompts. "
        "The first layer reads none. In a layer with `see`, each model reads some of them only."
    ),
]


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
    """A proposal will not be used: its model failed or was late, or its layer, which was not the first,
    had fewer proposals than the quorum."""

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
MoaObject = Annotated[MoaEvent | MoaSummary, Field(discriminator="type")]
"""The `moa` object of a chunk: an event of the mixture, or the summary at the end."""


class ModelUsage(Described):
    """What the finished calls of one model in one role used."""

    model: ModelName
    role: Literal["proposer", "aggregator", "direct"]
    """What the calls were for; `direct` if the request asked for the model by name."""
    calls: int
    """Number of calls. Calls that failed or were cancelled are not counted: an engine reports tokens
    at the end of a call."""
    prompt_tokens: int
    """Tokens that the model read."""
    completion_tokens: int
    """Tokens that the model wrote."""
    engine_s: float
    """Seconds that the engine worked, summed over the calls."""
    cached_tokens: int = 0
    """How many of `prompt_tokens` the engine had in its cache; 0 if the engine does not say this."""


class TokenSum(Described):
    """Tokens of all finished calls of an answer, to all models."""

    prompt_tokens: int
    """Tokens that the models read, references included."""
    completion_tokens: int
    """Tokens that the models wrote."""
    total_tokens: int
    """Both together."""


class CompletionUsage(types.CompletionUsage):
    """OpenAI's token counts, with those of the mixture's calls.

    As with one model, `prompt_tokens` are those of the conversation and `completion_tokens` those of
    the answer, so that a client sees how full the context is. What the answer cost is `all_calls`.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    completion_tokens: int
    """Tokens of the answer, reasoning included; 0 if the deadline cut the answer."""
    prompt_tokens: int
    """Tokens of the conversation, as the proposers of the first layer counted it, or the model that was
    asked by name: the largest of their counts."""
    total_tokens: int
    """Both together."""
    all_calls: TokenSum
    """The sums over all finished calls."""
    by_model: list[ModelUsage]
    """The same counts by model and role."""


class ChatCompletion(chat.ChatCompletion):
    """OpenAI's whole answer, with a summary of how the mixture came to it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    usage: CompletionUsage
    """Token counts of the answer, and of all calls."""
    moa: MoaSummary
    """How the answer came about."""


class ChatCompletionChunk(chat.ChatCompletionChunk):
    """A piece of a streamed answer, as OpenAI has it. Some pieces also carry news of the mixture."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    usage: CompletionUsage | None = None
    """Token counts of the answer and of all calls, in the last chunk of a stream with
    `stream_options.include_usage`; null in the earlier chunks of such a stream, and absent from other
    streams."""
    moa: MoaObject | None = None
    """News of the mixture; absent from the chunks that carry text."""


class ModelMeta(Described):
    """The context of a model where llama.cpp's server tells it."""

    n_ctx: int
    """Its context."""


class ModelCard(types.Model):
    """OpenAI's description of a model, with the context under the names that other servers give it.

    The context of the mixture is most tokens of a conversation and its answer. References, and models
    with a smaller context that the quorum needs, are taken into account.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_model_len: int
    """The context in tokens, as vLLM names it."""
    context_length: int
    """The same, as OpenRouter and others name it."""
    context_window: int
    """The same, as Groq names it."""
    max_context_length: int
    """The same, as Mistral and LM Studio name it."""
    meta: ModelMeta
    """The same, as llama.cpp names it."""
