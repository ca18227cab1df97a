"""A chat completion request: bytes -> ChatRequest, or an error that names the field at fault.

Names and forms that other servers have for a parameter become ours first (`aliases.py`). Each parameter
is then treated in one of six ways:

1. A field of ChatRequest is honoured.
2. IGNORED parameters are accepted and change nothing, because nothing about an answer here depends on
   them.
3. Tools become `tool_use` (`tools.py`), a field of case 5. TOOL_LISTS of which no tool may be called
   are shown to no model, and the answer names them in `moa.ignored`.
4. Harmless parameters of other servers are left out too, and `moa.ignored` names them.
5. A field of ExtraParameters is honoured if the engine of the model that answers takes the parameter.
   `asked_sampling.py` finds that out once it is known which model answers.
6. UNSUPPORTED parameters are refused by name, unless their value asks for what happens anyway.

Any other name is refused, so that a typing error does not pass as a parameter without effect. A null is
the same as no parameter.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError

from actors.engine import Message
from configs.errors import BadRequest
from configs.extra_parameters import ExtraParameters
from configs.schema import ReasoningEffort
from serve_app.http.aliases import Translated, with_our_names
from serve_app.http.conversation import conversation
from serve_app.http.fusion import Fusion, StrictPart
from serve_app.http.json_body import bad_request, read_object, too_deep
from serve_app.http.messages import ChatMessage, ignored_fields
from serve_app.http.parameters import (
    IGNORED,
    TOOL_LISTS,
    UNSUPPORTED,
    is_ignored,
    refusal,
    require_harmless,
    unknown,
)
from serve_app.http.routed import Routed
from serve_app.http.tools import read_tools

EMPTY: dict[str, tuple[Any, ...]] = {
    "logit_bias": ({},),
    "stop_token_ids": ([],),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "structure": ({},),
}
"""Values of CONSTRAINTS that constrain nothing."""


class StreamOptions(StrictPart):
    """How to stream."""

    include_usage: bool = False
    """Send the usage in one more chunk at the end of the stream."""
    include_obfuscation: bool = False
    """Accepted; chunks are never padded."""
    continuous_usage_stats: bool = False
    """Accepted; the usage comes once, at the end."""


class MoaOptions(StrictPart):
    """Options that OpenAI's request does not have: the `moa` object of a request."""

    events: bool = False
    """Show the proposals. A stream shows the proposals as they grow, and the time of each stage, in
    chunks that have a `moa` object and no choices. An answer in one piece has the complete proposals in
    its `moa` object."""
    proposals: bool | None = None
    """Show the proposals of a stream as its reasoning, which chat clients show in a fold of its own; in
    the Responses API also those of an answer in one piece. By default as the recipe's `show_proposals`
    says. With `events`, streams of chat completions have them there instead. In the Responses API,
    `events` counts before this field."""
    routes: bool = True
    """Whether one model may answer in place of the mixture where the recipe's `routes` say so. `false`
    has the mixture answer in any case."""
    reasoning: Literal["reasoning_content", "reasoning", False] = "reasoning_content"
    """Name of the field that has the reasoning: of the model that writes the answer, and in streams the
    proposals. `false` leaves the field out."""
    fuse: Fusion | None = None
    """Only with the mixture: write the answer over these proposals, without asking proposers."""


class ChatRequest(ExtraParameters):
    """Body of POST /v1/chat/completions."""

    model: str = Field(min_length=1, max_length=256)
    """Name of the mixture, or of one of its models."""
    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    """The conversation. An assistant's message at the end is the beginning of the answer, which goes on
    behind it; proposers do not read that message."""
    stream: bool | None = False
    """Answer with server-sent events instead of one JSON object."""
    stream_options: StreamOptions | None = None
    """How to stream; allowed only with `stream`."""
    temperature: float | None = Field(None, ge=0, le=2)
    """Temperature of the aggregator, or of the model that is asked by name. Proposers keep the recipe's
    sampling, whatever the request says here and in the other sampling parameters except `seed`."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability."""
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    """Most tokens of the answer. Proposals keep the recipe's limit."""
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    """The newer name of `max_tokens`."""
    stop: str | list[str] | None = None
    """Up to 16 texts that end the answer."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """Fixes the sampling seeds of all calls, proposers' included, and the order of the references."""
    top_k: int | None = Field(None, ge=-1, le=1_000_000)
    """Sample from this number of likeliest tokens; 0 and -1 are all."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Sample from tokens that have at least this share of the likeliest token's probability."""
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    """Above 1, discourages tokens that occurred in the prompt or the answer."""
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    """Above 0, discourages tokens that occurred at all."""
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    """Above 0, discourages tokens by how often they occurred."""
    logprobs: bool | None = None
    """Return the log-probabilities of the answer's tokens; refused for the mixture."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """How many of the likeliest tokens to return at each position of the answer; needs `logprobs`."""
    reasoning_effort: ReasoningEffort | None = None
    """How much the model that answers thinks before the answer, where its chat template knows the
    argument. `none` turns reasoning off, every other value turns it on. Proposers keep the recipe's
    setting."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Arguments of the chat template of the model that answers, such as `{"enable_thinking": false}`,
    as vLLM and llama.cpp take them. They win over the recipe's and over `reasoning_effort`. Proposers
    keep the recipe's."""
    thinking_token_budget: int | None = Field(None, ge=0, le=1_000_000)
    """Most tokens of reasoning before the answer, as vLLM takes them; `max_tokens` then counts the
    answer alone."""
    continue_final_message: bool | None = None
    """Whether to continue the last message, as vLLM and llama.cpp take it. A last message of the
    assistant is always continued, and any other never; another value is refused."""
    add_generation_prompt: bool | None = None
    """The opposite of `continue_final_message`, for vLLM's clients."""
    moa: MoaOptions = MoaOptions()
    """Which of SlimMoA's additions the answer should have."""
    _ignored: tuple[str, ...] = PrivateAttr(())
    _sent: dict[str, str] = PrivateAttr(default_factory=dict)
    _conversation: list[Message] = PrivateAttr(default_factory=list)
    _in_calls: list[Message] = PrivateAttr(default_factory=list)
    _older_calls: bool = PrivateAttr(False)
    _metadata_task: str | None = PrivateAttr(None)
    _routed: Routed | None = PrivateAttr(None)

    @property
    def routed(self) -> Routed | None:
        """Who answers in place of the mixture; None if nobody does."""
        return self._routed

    def answer_by(self, routed: Routed | None) -> None:
        """Set `routed`."""
        self._routed = routed

    @property
    def answers(self) -> str:
        """Name of who answers: the mixture or a model."""
        return self.model if self._routed is None else self._routed.model

    @property
    def metadata_task(self) -> str | None:
        """What the request is for, if its `metadata` says so, as Open WebUI names it."""
        return self._metadata_task

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of what the request has and no model here sees: lists of tools, parameters of other
        servers, and fields of messages that nobody here knows."""
        return self._ignored

    def note_ignored(self, names: Iterable[str], *, first: bool = False) -> None:
        """Add to `ignored`: at its end, or at its beginning with `first`."""
        self._ignored = (*names, *self._ignored) if first else (*self._ignored, *names)

    @property
    def sent(self) -> Mapping[str, str]:
        """How the client has named parameters, by our name. A parameter that the client has sent under
        our name need not be here."""
        return self._sent

    @property
    def limit_param(self) -> str | None:
        """The parameter by which the request limits the tokens of the answer; None if it gives none."""
        names = ("max_completion_tokens", "max_tokens", "thinking_token_budget")
        given = next((name for name in names if getattr(self, name) is not None), None)
        return None if given is None else self._sent.get(given, given)

    def conversation(self) -> list[Message]:
        """The messages as engines take them."""
        return self._conversation

    @property
    def in_calls(self) -> list[Message]:
        """The messages as a model reads them that calls tools in its text; empty without tools."""
        return self._in_calls

    @property
    def older_calls(self) -> bool:
        """Whether the answer has a call of a tool in the older form (`function_call`)."""
        return self._older_calls


def parse(body: bytes) -> ChatRequest:
    """Read a request body.

    Raises:
        BadRequest: the body is no request; the message names the field, its value and what is allowed.
    """
    return parse_fields(read_object(body))


def parse_fields(given: dict[str, Any]) -> ChatRequest:
    """Read the fields of a request body.

    Raises:
        BadRequest: as `parse`.
    """
    try:
        fields = with_our_names(given)
        read_tools(fields)
        honoured = {name: value for name, value in fields.items() if _is_kept(name, value, fields)}
        # Back to JSON, because pydantic's messages speak of objects and arrays only in its JSON mode;
        # otherwise clients would read of Python's dictionaries and lists.
        request = ChatRequest.model_validate_json(json.dumps(honoured))
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":  # our own JSON is valid, but may be too deep
            raise too_deep(honoured, fields.sent) from error
        raise bad_request(error, fields.sent) from error
    except RecursionError as error:
        raise too_deep(given) from error
    in_messages = ignored_fields(request.messages)
    request._conversation = conversation(request.messages)
    if request.tool_use is not None:
        request._in_calls = conversation(request.messages, in_calls=True)
    request._older_calls = fields.older_calls
    request._sent = fields.sent
    metadata = fields.get("metadata")
    task = metadata.get("task") if isinstance(metadata, dict) else None
    request._metadata_task = task if isinstance(task, str) else None
    _check_combinations(request)
    lists = sorted(name for name in TOOL_LISTS if fields.get(name))
    others = sorted(fields.sent.get(name, name) for name in fields if is_ignored(name))
    request._ignored = (*lists, *fields.left_out, *others, *in_messages)
    return request


def _is_kept(name: str, value: Any, fields: Translated) -> bool:
    """Whether to keep a parameter, because it may be honoured (cases 1 and 5 of the file's docstring).
    If not, it is left out without an error: in cases 2 to 4, and in case 6 if its value asks for what
    happens anyway.

    Raises:
        BadRequest: the parameter is unknown, or its value in case 6 asks for a feature that SlimMoA
            does not have.
    """
    if name in ExtraParameters.model_fields:  # 5
        return name not in EMPTY or value not in ({}, [])
    if name in ChatRequest.model_fields:  # 1
        return True
    if name in IGNORED or is_ignored(name):  # 2, 4
        return False
    if name in TOOL_LISTS:  # 3
        return False
    if name in UNSUPPORTED:  # 6
        require_harmless(name, value, fields.sent.get(name, name))
        return False
    raise unknown(fields.sent.get(name, name), frozenset(ChatRequest.model_fields))


def _check_combinations(request: ChatRequest) -> None:
    """Refuse a request that is wrong although each of its fields is valid by itself."""
    continues = request.conversation()[-1]["role"] == "assistant"
    asked = {"continue_final_message": continues, "add_generation_prompt": not continues}
    for name, value in asked.items():
        if getattr(request, name) not in (None, value):
            last = "the assistant's, so it is" if continues else "not the assistant's, so it is not"
            why = f"can only be {json.dumps(value)} here: the last message is {last} continued"
            raise refusal(name, f"{why}; leave it out")
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise BadRequest("stream_options needs stream to be true", param="stream_options")
    limits = (request.max_tokens, request.max_completion_tokens)
    if None not in limits and limits[0] != limits[1]:
        message = f"max_tokens is {limits[0]} and max_completion_tokens {limits[1]}; send one"
        raise BadRequest(message, param="max_tokens")
