"""What `openai_http` sends and reads of OpenAI's chat completions format. This file does no I/O.

The format: https://platform.openai.com/docs/api-reference/chat-streaming. Fields that some servers
leave out, or send as null, are optional here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from math import ceil
from typing import Any

import msgspec
from pydantic_core import from_json

from actors.engine import Delta, FinishReason, Message
from actors.text.thinking import Splitter
from configs.schema import OpenAIHttpModel, Sampling

TEMPLATE_TOKENS = 8
"""Tokens that a chat template adds around one message: the most among the templates that we know."""
CONTEXT_ERROR_MARKS = (
    "context_length_exceeded",  # OpenAI's code
    "exceed_context_size",  # llama.cpp's type
    "maximum context length",  # vLLM's text
    "context length (",  # SGLang's text
)
"""Texts by which a server's error shows that the conversation does not fit the context."""


class Text(msgspec.Struct):
    """A piece of the answer, or all of it. Servers use one of two names for the reasoning."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Logprobs(msgspec.Struct):
    """Log-probabilities of a piece's tokens, in OpenAI's format."""

    content: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct):
    """A piece of the answer (`delta`), or the whole answer (`message`)."""

    delta: Text | None = None
    message: Text | None = None
    """From a server that does not stream."""
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Usage(msgspec.Struct):
    """How many tokens the call has read and written so far; None for a count that was not sent."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Chunk(msgspec.Struct):
    """A streamed chunk, or the whole answer of a server that does not stream."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None
    """The server's error: an object in OpenAI's format, or a text."""


NO_TEXT = Text()
NOTHING = Delta()
"""What a chunk adds that says nothing."""
_decoder = msgspec.json.Decoder(Chunk, strict=False)


def read_chunk(data: bytes) -> Chunk:
    """Read a chunk. A number may also stand in a text or have the fraction 0.

    Raises:
        ValueError: the data is no chunk.
    """
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        # Python's servers write NaN and Infinity, which are no JSON, for log-probabilities.
        return msgspec.convert(from_json(data), Chunk, strict=False)


@dataclass(slots=True)
class StreamedAnswer:
    """What has arrived of one answer."""

    texts: list[str] = field(default_factory=list)
    """Reasoning and text in the order of their arrival. The engine estimates token counts from it."""
    usage: Usage | None = None
    """The server's latest token counts; None if it has sent none."""
    finish_reason: FinishReason | None = None
    ended: bool = False
    """Whether the server has marked the answer as complete."""
    splitter: Splitter = field(default_factory=lambda: Splitter(()))
    """Tells reasoning from text where the server has not done so."""

    def add(self, chunk: Chunk) -> Delta:
        """Add a chunk, and return what the chunk adds to the answer, without token counts.

        Some servers send a growing count with each chunk. So only the last count matters, and
        `final_delta` returns it.
        """
        if chunk.usage is not None:
            self.usage = chunk.usage
        if not chunk.choices:
            return NOTHING
        choice = chunk.choices[0]
        part = choice.delta or choice.message or NO_TEXT
        text = part.content or ""
        reasoning = part.reasoning_content or part.reasoning or ""
        if reasoning:
            self.texts.append(reasoning)
        if text:
            self.texts.append(text)
            text, thought = self.splitter.feed(text)
            reasoning += thought
        reason: FinishReason | None = None
        if choice.finish_reason is not None:
            reason = "length" if choice.finish_reason == "length" else "stop"
            self.finish_reason, self.ended = reason, True
            rest, thought = self.splitter.end()
            text, reasoning = text + rest, reasoning + thought
        logprobs = tuple(choice.logprobs.content or ()) if choice.logprobs else ()
        return Delta(text, reasoning, reason, logprobs=logprobs)

    def final_delta(self, estimate_prompt: Callable[[], int], characters_per_token: float) -> Delta:
        """The last delta of the answer: token counts, and a finish reason if the server sent none.

        Counts that the server did not send are estimated, and so is a prompt count of 0.

        Args:
            estimate_prompt: returns an estimate of the prompt's tokens.
            characters_per_token: how the answer's tokens are estimated: see `estimated_ends`.
        """
        text, reasoning = self.splitter.end()
        usage = self.usage or Usage()
        written = usage.completion_tokens
        if written is None:
            written = len(estimated_ends("".join(self.texts), characters_per_token))
        return Delta(
            text=text,
            reasoning=reasoning,
            finish_reason=None if self.finish_reason else "stop",
            prompt_tokens=usage.prompt_tokens or estimate_prompt(),
            completion_tokens=written,
        )


def request_body(
    model: OpenAIHttpModel, messages: Sequence[Message], sampling: Sampling
) -> dict[str, Any]:
    """The JSON body of a call to the server."""
    body: dict[str, Any] = {
        "model": model.model,
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body |= sampling_fields(model, sampling)
    if template := model.template | sampling.template:
        body["chat_template_kwargs"] = template
    if sampling.reasoning_effort is not None:
        body["reasoning_effort"] = sampling.reasoning_effort
    if model.thinking_limit is not None and sampling.thinking_tokens is not None:
        body[model.thinking_limit] = sampling.thinking_tokens
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
    return body


def sampling_fields(model: OpenAIHttpModel, sampling: Sampling) -> dict[str, Any]:
    """The fields of the body by which tokens are drawn. A value that neither recipe nor request says is
    left out: some servers refuse the field, and all have defaults of their own."""
    body: dict[str, Any] = {}
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"):
        if (value := getattr(sampling, name)) is not None:
            body[name] = value
    for name in ("presence_penalty", "frequency_penalty"):
        if penalty := getattr(sampling, name):  # some servers refuse the fields, even with 0
            body[name] = penalty
    if sampling.max_tokens is not None:
        body[model.output_limit] = sampling.most_tokens
    return body


def error_text(error: Any) -> str:
    """The message of an error in OpenAI's format; the whole error as text in any other format."""
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def is_context_error(text: str) -> bool:
    """Whether a server's error means that the conversation does not fit the context."""
    return any(mark in text.lower() for mark in CONTEXT_ERROR_MARKS)


def retry_after_s(header: str) -> float:
    """The delay, in seconds, that a Retry-After header asks for with a number or a date.

    The delay is 0 for a header without either, and negative for a date in the past.
    """
    try:
        return float(header)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(header).timestamp() - time.time()
    except ValueError:
        return 0


def prompt_ends(messages: Sequence[Message], characters_per_token: float) -> list[int]:
    """Estimate where the tokens of a conversation end, those of its chat template included."""
    text = "".join([message["content"] for message in messages])
    template = [len(text)] * (TEMPLATE_TOKENS * (len(messages) + 1))
    return estimated_ends(text, characters_per_token) + template


def estimated_ends(text: str, characters_per_token: float) -> list[int]:
    """Estimate where the tokens of a text end, in characters, without knowing the tokenizer.

    A token holds `characters_per_token` ASCII characters. Every other character counts as a whole
    token, because many scripts need a token per character.
    """
    ends: list[int] = []
    filled = 0.0
    if characters_per_token >= 1 and text.isascii():  # nearly all texts: saves the loop
        whole = int(len(text) / characters_per_token)
        ends = [min(ceil(n * characters_per_token), len(text)) for n in range(1, whole + 1)]
    else:
        for n, character in enumerate(text, 1):
            filled += 1 if character.isascii() else characters_per_token
            if complete := int(filled // characters_per_token):
                # A character of several tokens is complete only with its last token, so a cut at one of
                # the earlier tokens must leave the character out.
                ends += [n - 1] * (complete - 1) + [n]
                filled -= complete * characters_per_token
    return ends if ends[-1:] == [len(text)] or not text else [*ends, len(text)]
