"""OpenAI's chat format, the part that is sent and read by `openai_http`. No transport here."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import BaseModel

from actors.engine import Delta, FinishReason, Message
from configs.schema import OpenAIHttpModel, Sampling

TEMPLATE_TOKENS = 8  # a chat template's own tokens around one message, at most, in known templates
# How a too long conversation is refused: OpenAI's code, llama.cpp's type, vLLM's and SGLang's text.
TOO_LONG = (
    "context_length_exceeded",
    "exceed_context_size",
    "maximum context length",
    "context length (",
)


class Text(BaseModel):
    """A piece of the answer."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Logprobs(BaseModel):
    """Of the tokens of this piece."""

    content: list[dict[str, Any]] | None = None


class Choice(BaseModel):
    """The answer, or a piece of it."""

    delta: Text | None = None
    message: Text | None = None  # of a server that does not stream
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Usage(BaseModel):
    """Token counts of the call so far."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Chunk(BaseModel):
    """What is read of a streamed chunk, or of a whole answer."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


@dataclass(slots=True)
class Answer:
    """One answer as it comes in. ended: the server said that it is complete."""

    text: str = ""
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    ended: bool = False

    def add(self, chunk: Chunk) -> Delta:
        """What the chunk adds. Token counts wait for the end: some servers repeat growing ones."""
        self.usage = chunk.usage or self.usage
        choice = (chunk.choices or [Choice()])[0]
        part = choice.delta or choice.message or Text()
        reason: FinishReason | None = None
        if choice.finish_reason is not None:
            reason = "length" if choice.finish_reason == "length" else "stop"
            self.finish_reason, self.ended = reason, True
        delta = Delta(
            text=part.content or "",
            reasoning=part.reasoning_content or part.reasoning or "",
            finish_reason=reason,
            logprobs=tuple((choice.logprobs or Logprobs()).content or ()),
        )
        self.text += delta.reasoning + delta.text
        return delta

    def end(self, prompt_estimate: int, completion_estimate: int) -> Delta:
        """What remains to be said at the end; the estimates are for servers that do not count."""
        usage = self.usage or Usage()
        return Delta(
            finish_reason=None if self.finish_reason else "stop",
            prompt_tokens=usage.prompt_tokens or prompt_estimate,
            completion_tokens=completion_estimate
            if usage.completion_tokens is None
            else usage.completion_tokens,
        )


def request(model: OpenAIHttpModel, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
    """The body of a call."""
    body: dict[str, Any] = {
        "model": model.model,
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        model.output_limit: sampling.max_tokens,
    }
    for name in ("presence_penalty", "frequency_penalty"):
        if penalty := getattr(sampling, name):  # some servers refuse even the defaults
            body[name] = penalty
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    return body


def error_text(error: Any) -> str:
    """The message of an error in OpenAI's shape, or whatever stands in its place."""
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def says_too_long(text: str) -> bool:
    """Whether a refusal means that the conversation does not fit the context."""
    return any(mark in text.lower() for mark in TOO_LONG)


def retry_after_s(header: str) -> float:
    """Seconds that a Retry-After header asks for, as a number or a date; 0 if it says nothing."""
    try:
        return float(header)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(header).timestamp() - time.time()
    except ValueError:
        return 0


def estimated_ends(text: str, characters_per_token: float) -> list[int]:
    """Where tokens may end, the tokenizer being unknown.

    Every character beyond ASCII counts as a token: many scripts need that much.
    """
    ends: list[int] = []
    filled = 0.0
    for n, character in enumerate(text, 1):
        filled += 1 if character.isascii() else characters_per_token
        if complete := int(filled // characters_per_token):
            # Of several tokens in one character, only the last leaves it whole.
            ends += [n - 1] * (complete - 1) + [n]
            filled -= complete * characters_per_token
    return ends if ends[-1:] == [len(text)] or not text else [*ends, len(text)]
