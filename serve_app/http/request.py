"""A chat completion request: bytes -> ChatRequest, or an error that names the field at fault.

Each parameter of OpenAI's API is treated in one of four ways:

1. A field of ChatRequest is honoured.
2. IGNORED parameters are accepted and change nothing, because nothing about an answer here depends on
   them.
3. TOOL_LISTS are accepted and shown to no model. The answer names them in `moa.ignored`.
4. UNSUPPORTED parameters are refused by name, unless their value asks for what happens anyway.

Any other name is refused, so that a typing error does not pass as a parameter without effect.
"""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from actors.engine import Message
from configs.base import template_problem
from configs.errors import BadRequest
from configs.schema import ReasoningEffort, Sampling
from serve_app.http.messages import ChatMessage, conversation, ignored_fields

IGNORED = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Parameters that say who asks and what for, or how to route, store or speed up a request."""
TOOL_LISTS = frozenset({"functions", "tools"})
"""Parameters that list tools which a model may call. The models here never call a tool. Open WebUI
sends its tools with every question, so a refusal would make all questions from Open WebUI fail."""
EFFORT_ARGUMENTS = frozenset({"enable_thinking", "thinking", "reasoning_effort"})
"""Arguments of chat templates that `reasoning_effort` sets."""
UNION_TAGS = frozenset({"str", "bool", "int", "float"})
"""How pydantic names alternatives of a union in an error's path."""
LONGEST_PARAM = 100
"""Most characters of `param` in an error, because a client may send a parameter name of any length."""
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Parameters of features that SlimMoA does not have, with the values that do not need the feature."""


class _Strict(BaseModel):
    """Base of all parts of a request.

    As in OpenAI's API, a value of another type is refused rather than converted: the text "0.5" is no
    temperature.
    """

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, strict=True, use_attribute_docstrings=True
    )


class StreamOptions(_Strict):
    """How to stream."""

    include_usage: bool = False
    """Send the usage in one more chunk at the end of the stream."""
    include_obfuscation: bool = False
    """Accepted; chunks are never padded."""


class MoaOptions(_Strict):
    """Options that OpenAI's request does not have: the `moa` object of a request."""

    events: bool = False
    """Show the proposals. A stream shows the proposals as they grow, and the time of each stage, in
    chunks that have a `moa` object and no choices. An answer in one piece has the complete proposals in
    its `moa` object."""


class ChatRequest(_Strict):
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
    _conversation: list[Message] = PrivateAttr(default_factory=list)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of what the request has and no model here sees: lists of tools, and fields of messages
        that nobody here knows."""
        return self._ignored

    @property
    def limit_param(self) -> str | None:
        """The parameter by which the request limits the tokens of the answer; None if it gives none."""
        names = ("max_completion_tokens", "max_tokens", "thinking_token_budget")
        return next((name for name in names if getattr(self, name) is not None), None)

    def conversation(self) -> list[Message]:
        """The messages as engines take them."""
        return self._conversation

    def sampling(self, base: Sampling) -> Sampling:
        """`base`, changed by the sampling parameters of this request.

        Raises:
            BadRequest: a parameter is outside of what a recipe allows.
        """
        requested: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "stop": (self.stop,) if isinstance(self.stop, str) else self.stop,
            "seed": self.seed,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "top_logprobs": (self.top_logprobs or 0) if self.logprobs else None,
            "reasoning_effort": self.reasoning_effort,
            "thinking_tokens": self.thinking_token_budget,
        }
        requested["template"] = self._template(base.template)
        merged = base.model_dump() | {k: v for k, v in requested.items() if v is not None}
        try:
            return Sampling.model_validate(merged)
        except ValidationError as error:
            raise _bad_request(error) from error

    def _template(self, base: dict[str, Any]) -> dict[str, Any]:
        """`base`, changed by the arguments of the chat template that the request gives.

        Raises:
            BadRequest: an argument is not allowed.
        """
        if self.reasoning_effort is not None:  # it is younger than what the recipe says
            base = {name: value for name, value in base.items() if name not in EFFORT_ARGUMENTS}
        given = self.chat_template_kwargs or {}
        if (problem := template_problem(given)) is not None:
            raise BadRequest(f"chat_template_kwargs: {problem}", param="chat_template_kwargs")
        return base | given


def parse(body: bytes) -> ChatRequest:
    """Read a request body.

    Raises:
        BadRequest: the body is no request; the message names the field, its value and what is allowed.
    """
    return parse_fields(read_object(body))


def parse_fields(fields: dict[str, Any]) -> ChatRequest:
    """Read the fields of a request body.

    Raises:
        BadRequest: as `parse`.
    """
    try:
        honoured = {name: value for name, value in fields.items() if _keep_or_refuse(name, value)}
        # Back to JSON, because pydantic's messages speak of objects and arrays only in its JSON mode;
        # otherwise clients would read of Python's dictionaries and lists.
        request = ChatRequest.model_validate_json(json.dumps(honoured))
    except ValidationError as error:
        raise _bad_request(error) from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    in_messages = ignored_fields(request.messages)
    request._conversation = conversation(request.messages)
    _check_combinations(request)
    request._ignored = (*sorted(name for name in TOOL_LISTS if fields.get(name)), *in_messages)
    return request


def _keep_or_refuse(name: str, value: Any) -> bool:
    """Whether to keep a parameter, because it is honoured (case 1 of the file's docstring). If not, it
    is left out without an error: in cases 2 and 3, and in case 4 if its value asks for what happens
    anyway.

    Raises:
        BadRequest: the parameter is unknown, its value in case 3 is not an array, or its value in case
            4 asks for a feature that SlimMoA does not have.
    """
    if name in ChatRequest.model_fields:  # 1
        return True
    if name in IGNORED:  # 2
        return False
    if name in TOOL_LISTS:  # 3
        if not isinstance(value, list):
            raise _refusal(name, "has to be an array")
        return False
    if name in UNSUPPORTED:  # 4
        allowed = [json.dumps(harmless) for harmless in UNSUPPORTED[name]]
        if json.dumps(value) not in allowed:  # compared as JSON, where true is not 1
            ways = " or ".join(["leave it out", *(f"send {harmless}" for harmless in allowed)])
            raise _refusal(name, f"is not supported here; {ways}")
        return False
    raise _refusal(name, "is not a parameter that this server knows")


def _refusal(name: str, why: str) -> BadRequest:
    return BadRequest(f"{name!r:.80} {why}", param=name[:LONGEST_PARAM])


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body holds, without the names whose value is null.

    Raises:
        BadRequest: the body is no JSON object.
    """
    try:
        text = body.decode()
        data = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_nulls)
        # A lone surrogate is valid in JSON, but cannot be encoded when the text is sent on.
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not valid UTF-8: byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise BadRequest("the body has a lone surrogate (\\ud800 to \\udfff) in a text") from error
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    if not isinstance(data, dict):
        raise BadRequest("the body has to be a JSON object")
    return data


def _without_nulls(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without its nulls: as in OpenAI's API, null means that a field is absent.

    A repeated name is refused, because proxies and servers differ in which of its values they take.

    Raises:
        ValueError: a name is repeated.
    """
    names = {name for name, _ in pairs}
    if len(names) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return {name: value for name, value in pairs if value is not None}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _bad_request(error: ValidationError) -> BadRequest:
    # For a union, pydantic reports an error of every alternative. The deepest error fits best.
    worst = max(error.errors(include_url=False), key=lambda problem: len(problem["loc"]))
    steps = [step for step in worst["loc"] if not _is_union_tag(step)]
    where = ".".join(map(str, steps))[:LONGEST_PARAM]
    value = "" if worst["type"] == "missing" else f", not {worst['input']!r:.80}"
    return BadRequest(f"{where or 'body'}: {worst['msg']}{value}", param=where or None)


def _is_union_tag(step: str | int) -> bool:
    """Whether a step of an error's path names an alternative of a union rather than a field."""
    return isinstance(step, str) and (step in UNION_TAGS or "[" in step)


def _check_combinations(request: ChatRequest) -> None:
    """Refuse a request that is wrong although each of its fields is valid by itself."""
    continues = request.conversation()[-1]["role"] == "assistant"
    asked = {"continue_final_message": continues, "add_generation_prompt": not continues}
    for name, value in asked.items():
        if getattr(request, name) not in (None, value):
            last = "the assistant's, so it is" if continues else "not the assistant's, so it is not"
            why = f"can only be {json.dumps(value)} here: the last message is {last} continued"
            raise _refusal(name, f"{why}; leave it out")
    if request.top_logprobs is not None and not request.logprobs:
        raise BadRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise BadRequest("stream_options needs stream to be true", param="stream_options")
    limits = (request.max_tokens, request.max_completion_tokens)
    if None not in limits and limits[0] != limits[1]:
        message = f"max_tokens is {limits[0]} and max_completion_tokens {limits[1]}; send one"
        raise BadRequest(message, param="max_tokens")
