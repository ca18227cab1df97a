"""A chat completion request: bytes -> ChatRequest, or an error that names the field at fault.

Parameters that OpenAI's clients send are honoured, ignored where they change nothing about the answer
(IGNORED), declined where they offer what a model may leave (OFFERS), or refused by name.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from actors.engine import Message
from configs.errors import BadRequest
from configs.schema import Sampling

# Who asked, what for, how to route, keep or speed it up: nothing of that changes an answer here.
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
# Tools that a model may call or leave, and the models here always leave. Open WebUI offers its own with
# every question, so refusing them would refuse it; the answer says that they were ignored.
OFFERS = frozenset({"functions", "tools"})
LONGEST_PARAM = 100
# Features that we do not have, and the values that ask for exactly what we do.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none", "auto"),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "verbosity": ("medium",),
    "web_search_options": (),
}


class _Strict(BaseModel):
    # Strict in what a boolean, number or text is, as OpenAI's API is: "0.5" is no temperature.
    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, strict=True, use_attribute_docstrings=True
    )


class TextPart(_Strict):
    """Part of a message's content."""

    type: Literal["text"]
    """Only text: models here read nothing else."""
    text: str
    """The text."""


class ChatMessage(_Strict):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    """Who speaks; `developer` is read as `system`."""
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    """What is said; text parts are joined."""
    name: str | None = None
    """Accepted and not shown to the models."""
    reasoning_content: str | None = None
    """Accepted, as clients send back what they were answered, and not shown to the models."""

    def plain(self) -> Message:
        """With its text in one piece."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return Message(role=role, content=self.content)
        return Message(role=role, content="".join(part.text for part in self.content))


class StreamOptions(_Strict):
    """How to stream."""

    include_usage: bool = False
    """Send the usage in a last chunk of its own."""
    include_obfuscation: bool = False
    """Accepted; nothing is padded."""


class MoaOptions(_Strict):
    """What SlimMoA adds to the API."""

    events: bool = False
    """Stream the proposals as they grow, and the timings of each stage, as chunks without choices that
    carry a `moa` object; a whole answer gets the proposals in its `moa` object."""


class ChatRequest(_Strict):
    """Body of POST /v1/chat/completions."""

    model: str = Field(min_length=1, max_length=256)
    """The mixture's name, or one of its models'."""
    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    """The conversation; its last turn is the user's."""
    stream: bool | None = False
    """Server-sent events instead of one answer."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""
    temperature: float | None = Field(None, ge=0, le=2)
    """Of the aggregator or the model asked directly; proposers keep the recipe's sampling."""
    top_p: float | None = Field(None, gt=0, le=1)
    """As temperature."""
    max_tokens: int | None = Field(None, ge=1, le=1_000_000)
    """Most tokens of the answer; proposals keep the recipe's limit."""
    max_completion_tokens: int | None = Field(None, ge=1, le=1_000_000)
    """The newer name of max_tokens."""
    stop: str | list[str] | None = None
    """Up to 16 texts that end the answer."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """Fixes the seeds of all calls and the order of references."""
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    """As temperature."""
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    """As temperature."""
    logprobs: bool | None = None
    """Log-probabilities of the answer's tokens; only of a model asked directly."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """So many of the likeliest alternatives; needs logprobs."""
    moa: MoaOptions = MoaOptions()
    """What SlimMoA adds."""
    _ignored: tuple[str, ...] = PrivateAttr(())

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the offers (OFFERS) that the request made and that no model here saw."""
        return self._ignored

    def conversation(self) -> list[Message]:
        """The messages as engines take them."""
        return [message.plain() for message in self.messages]

    def sampling(self, base: Sampling) -> Sampling:
        """`base` with what this request says."""
        said = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "stop": (self.stop,) if isinstance(self.stop, str) else self.stop,
            "seed": self.seed,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "top_logprobs": (self.top_logprobs or 0) if self.logprobs else None,
        }
        kept = base.model_dump() | {k: v for k, v in said.items() if v is not None}
        try:
            return Sampling.model_validate(kept)
        except ValidationError as error:
            raise _bad(error) from error


def parse(body: bytes) -> ChatRequest:
    """Read a request body.

    Raises:
        BadRequest: naming the field, its value and what is allowed.
    """
    try:
        said = _json(body)
        asked = {name: value for name, value in said.items() if _is_honoured(name, value)}
        # In its JSON mode pydantic speaks of objects and arrays, not of Python's types.
        request = ChatRequest.model_validate_json(json.dumps(asked))
    except ValidationError as error:
        raise _bad(error) from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    _check(request)
    request._ignored = tuple(sorted(name for name in OFFERS if said.get(name)))
    return request


def _is_honoured(name: str, value: Any) -> bool:
    if name in UNSUPPORTED:
        allowed = [json.dumps(harmless) for harmless in UNSUPPORTED[name]]
        if json.dumps(value) not in allowed:  # as JSON, where true is not 1
            ways = " or ".join(["leave it out", *(f"send {harmless}" for harmless in allowed)])
            raise _not_here(name, f"is not supported here; {ways}")
        return False
    if name in OFFERS:
        if not isinstance(value, list):
            raise _not_here(name, "has to be an array")
        return False
    if name in ChatRequest.model_fields:
        return True
    if name not in IGNORED:
        raise _not_here(name, "is not a parameter that this server knows")
    return False


def _json(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode()
        data = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_object)
        json.dumps(data, ensure_ascii=False).encode()  # a lone surrogate is text that nobody can send
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not valid UTF-8: byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise BadRequest("the body has a lone surrogate (\\ud800 to \\udfff) in a text") from error
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise BadRequest("the body has to be a JSON object")
    return data


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """null is the same as nothing, as in OpenAI's API; a name that stands twice is ambiguous."""
    given = {name for name, _ in pairs}
    if len(given) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return {name: value for name, value in pairs if value is not None}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _not_here(name: str, why: str) -> BadRequest:
    return BadRequest(f"{name!r:.80} {why}", param=name[:LONGEST_PARAM])


def _bad(error: ValidationError) -> BadRequest:
    # Of a union pydantic reports every alternative; the one that got furthest is the one meant.
    worst = max(error.errors(include_url=False), key=lambda problem: len(problem["loc"]))
    steps = [step for step in worst["loc"] if not _is_union_tag(step)]
    where = ".".join(map(str, steps))[:LONGEST_PARAM]
    value = "" if worst["type"] == "missing" else f", not {worst['input']!r:.80}"
    return BadRequest(f"{where or 'body'}: {worst['msg']}{value}", param=where or None)


def _is_union_tag(step: str | int) -> bool:
    return isinstance(step, str) and (step == "str" or "[" in step)


def _check(request: ChatRequest) -> None:
    if request.messages[-1].role != "user":
        role = request.messages[-1].role
        raise BadRequest(
            f"the last message has to be the user's, not the {role}'s",
            param=f"messages.{len(request.messages) - 1}.role",
        )
    if not any(message["content"].strip() for message in request.conversation()):
        raise BadRequest("all messages are empty", param="messages")
    if request.top_logprobs is not None and not request.logprobs:
        raise BadRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    if request.stream_options is not None and not request.stream:
        raise BadRequest("stream_options needs stream to be true", param="stream_options")
    limits = (request.max_tokens, request.max_completion_tokens)
    if None not in limits and limits[0] != limits[1]:
        message = f"max_tokens is {limits[0]} and max_completion_tokens {limits[1]}; send one"
        raise BadRequest(message, param="max_tokens")
