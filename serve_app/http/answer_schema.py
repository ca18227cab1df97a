"""The schema of answers: OpenAI's objects, with the token counts of all calls and the `moa` object.

`response.py` builds its answers from these models, OpenAPI shows them, and docs/api.md is generated
from them, so the three cannot disagree. A field stands in JSON in the order in which it stands here.
What the `moa` object has is in `event_schema.py` and `summary_schema.py`.
"""

from typing import Annotated, Literal

from openai import types
from openai.types import chat
from pydantic import ConfigDict, Field

from serve_app.error_schema import Described
from serve_app.http.event_schema import MoaEvent
from serve_app.http.moa_fields import ModelName
from serve_app.http.summary_schema import MoaSummary

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
