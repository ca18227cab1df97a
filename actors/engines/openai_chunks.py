"""Reads the chunks of OpenAI-compatible servers.

The format: https://platform.openai.com/docs/api-reference/chat-streaming. Nearly all chunks are read by
msgspec, straight into the classes here. A chunk that deviates is read once more, by `json` and by hand:
whatever can be understood of the chunk counts.
"""

import json
import math
from typing import Any

import msgspec

from actors.engines.half_characters import decoded, has_halves
from actors.engines.openai_errors import ErrorData, Fault, fault_of, fault_of_text

MOST_COUNT = 100_000_000
"""The highest number of tokens of a call that is believed."""
LOWEST_LOGPROB = -9999.0
"""The log-probability that OpenAI's API gives for what has none."""
REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_text")
"""The names that servers give a model's reasoning; the first that has text counts."""
THOUGHTS = frozenset({"thinking", "reasoning", "reasoning_text", "thought", "summary_text"})
"""Types of parts of a content that are reasoning."""


class Text(msgspec.Struct):
    """A piece of the answer, or all of it."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    reasoning_text: str | None = None
    refusal: str | None = None
    """The words with which the model refuses to answer, in place of content."""
    tool_calls: Any = None
    """Pieces of calls of tools: a list of objects."""
    function_call: Any = None
    """The older form: a piece of the only call."""


class Logprobs(msgspec.Struct):
    """Log-probabilities of a piece's tokens, in OpenAI's format."""

    content: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct):
    """A piece of the answer (`delta`), or the whole answer (`message`)."""

    delta: Text | None = None
    message: Text | None = None
    """From a server that does not stream, or in place of `delta`."""
    text: str | None = None
    """In place of `delta`, from servers that mix up two of OpenAI's formats."""
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    error: Any = None
    """The error of a provider behind the server, as OpenRouter passes it on."""


class Usage(msgspec.Struct):
    """How many tokens the call has read and written so far; None for a count that was not sent."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Any = None
    """An object in which OpenAI's servers tell `cached_tokens`."""

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that the server had in its cache; 0 if it does not tell."""
        details = self.prompt_tokens_details
        return (read_count(details.get("cached_tokens")) or 0) if isinstance(details, dict) else 0


class Extension(msgspec.Struct):
    """What Groq sends of its own."""

    usage: Usage | None = None


class Chunk(msgspec.Struct):
    """A streamed chunk, or the whole answer of a server that does not stream."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None
    """The server's error: an object in OpenAI's format, or a text."""
    x_groq: Extension | None = None

    @property
    def counts(self) -> Usage | None:
        """The token counts, wherever they stand; None if there are none."""
        return self.usage or (self.x_groq.usage if self.x_groq else None)


class DeviantChunk(Chunk):
    """A chunk that msgspec could not read. Its texts may have halves of characters."""


NO_TEXT = Text()
NO_CHUNK = Chunk()
"""What an event says that is no chunk, such as a ping."""
_decoder = msgspec.json.Decoder(Chunk, strict=False)


def read_chunk(data: bytes) -> Chunk:
    """Read the data of an event.

    Raises:
        Fault: the event reports an error.
        ValueError: the event is broken.
    """
    if type(data) is ErrorData:
        raise _fault_of_event(data)
    try:
        chunk = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):  # DecodeError: also of a wrong type, or of bad UTF-8
        return _read_deviant(data)
    if chunk.error or (chunk.choices is None and chunk.usage is None):
        _raise_fault(_parsed(data))
    return chunk


def _read_deviant(data: bytes) -> Chunk:
    """Read an event of which msgspec cannot make a chunk.

    1. The event is no JSON and does not look like it, or is `null`, a number or a text: no chunk.
    2. A list of one object counts as the object.
    3. Of an object, each field counts whose value can be understood.
    """
    data = data.strip().removeprefix(b"\xef\xbb\xbf")
    if data[:1] not in (b"{", b"["):  # 1
        return NO_CHUNK
    parsed = _parsed(data)
    if isinstance(parsed, list):  # 2
        parsed = parsed[0] if len(parsed) == 1 else {}
    _raise_fault(parsed)
    if not isinstance(parsed, dict):
        return NO_CHUNK
    choices = parsed.get("choices")
    choices = [choices] if isinstance(choices, dict) else choices
    usage = _usage(parsed.get("usage"))
    if isinstance(group := parsed.get("x_groq"), dict):
        usage = usage or _usage(group.get("usage"))
    found = [_choice(c) for c in choices if isinstance(c, dict)] if isinstance(choices, list) else []
    return DeviantChunk(choices=found, usage=usage)


def _choice(choice: dict[str, Any]) -> Choice:
    delta, message, finish = choice.get("delta"), choice.get("message"), choice.get("finish_reason")
    if isinstance(finish, dict):
        finish = finish.get("type") or finish.get("reason")
    logprobs = choice.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    tokens = [token for token in tokens if isinstance(token, dict)] if isinstance(tokens, list) else []
    text = choice.get("text")
    return Choice(
        delta=None if delta is None else _text(delta),
        message=None if message is None else _text(message),
        text=text if isinstance(text, str) else None,
        finish_reason=finish if isinstance(finish, str) else None,
        logprobs=Logprobs(tokens) if tokens else None,
        error=choice.get("error"),
    )


def _text(said: Any) -> Text:
    if not isinstance(said, dict):
        return Text(content=_flat(said)[0])
    content, thought = _flat(said.get("content"))
    named = [_flat(said.get(name)) for name in REASONING]
    reasoning = next((text + more for text, more in named if text or more), "")
    refusal = said.get("refusal")
    return Text(
        content=content,
        reasoning=reasoning + thought,
        refusal=refusal if isinstance(refusal, str) else None,
        tool_calls=said.get("tool_calls"),
        function_call=said.get("function_call"),
    )


def _flat(content: Any, depth: int = 0) -> tuple[str, str]:
    """The text and the reasoning in a content: a text, a part or a list of parts."""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, int | float) and not isinstance(content, bool):
        return json.dumps(content), ""  # from servers that write "3" as 3
    if isinstance(content, list) and depth < 8:
        parts = [_flat(part, depth + 1) for part in content]
        return "".join(text for text, _ in parts), "".join(thought for _, thought in parts)
    if isinstance(content, dict) and depth < 8:
        names = ("text", "content", "thinking", "reasoning", "refusal", "value", "parts", "summary")
        held = next((content[name] for name in names if content.get(name)), None)
        text, thought = _flat(held, depth + 1)
        return ("", text + thought) if str(content.get("type")) in THOUGHTS else (text, thought)
    return "", ""


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    return Usage(
        read_count(usage.get("prompt_tokens")),
        read_count(usage.get("completion_tokens")),
        usage.get("prompt_tokens_details"),
    )


def read_count(count: Any) -> int | None:
    """A number of tokens; None for what cannot be one. A count may stand in a text."""
    if isinstance(count, str):
        try:
            count = float(count)
        except ValueError:
            return None
    if isinstance(count, bool) or not isinstance(count, int | float):
        return None
    if not 0 <= count <= MOST_COUNT or count != int(count):  # NaN is in no range
        return None
    return int(count)


def read_logprobs(tokens: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """OpenAI's objects of log-probabilities, with a finite number in each. What has no token is left
    out."""
    read = (_logprob(token) for token in tokens)
    return tuple(token for token in read if token is not None)


def _logprob(token: Any) -> dict[str, Any] | None:
    if not isinstance(token, dict) or not isinstance(token.get("token"), str):
        return None
    read = token | {"logprob": _finite(token.get("logprob"))}
    if has_halves(read["token"]):
        read["token"] = "\ufffd"
    if "bytes" in token:
        raw = token["bytes"]
        is_list = isinstance(raw, list) and all(isinstance(b, int) and 0 <= b < 256 for b in raw)
        read["bytes"] = raw if is_list else None
    if "top_logprobs" in token:
        others = token["top_logprobs"] if isinstance(token["top_logprobs"], list) else []
        read["top_logprobs"] = [other for each in others if (other := _logprob(each)) is not None]
    return read


def _finite(logprob: Any) -> float:
    """A log-probability, which is at most 0; LOWEST_LOGPROB for what is none."""
    if isinstance(logprob, bool) or not isinstance(logprob, int | float) or not math.isfinite(logprob):
        return LOWEST_LOGPROB
    return min(max(float(logprob), LOWEST_LOGPROB), 0.0)


def _fault_of_event(data: bytes) -> Fault:
    try:
        parsed = _parsed(data)
    except ValueError:
        return fault_of_text(data)
    return fault_of(parsed, is_error=True) or fault_of_text(data)


def _raise_fault(parsed: Any) -> None:
    if (fault := fault_of(parsed)) is not None:
        raise fault


def _parsed(data: bytes) -> Any:
    """The JSON, with what Python's servers write beyond the standard: NaN and Infinity, and raw control
    characters in texts."""
    try:
        return json.loads(decoded(data), strict=False)
    except RecursionError as error:
        raise ValueError("too many levels") from error
