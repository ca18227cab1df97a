"""Between vLLM's outputs and ours: reasoning, log-probabilities, ends of tokens. No vLLM needed."""

from collections.abc import Mapping, Sequence
from typing import Any

from actors.engine import Message


class Splitter:
    """Separates reasoning from an answer that grows, with vLLM's parser; without one all is text."""

    def __init__(self, parser: Any) -> None:
        self._parser = parser
        self._text = ""
        self._tokens: list[int] = []

    def split(self, text: str, tokens: list[int]) -> tuple[str, str]:
        """(text, reasoning) of what was written next."""
        if self._parser is None:
            return text, ""
        before, tokens_before = self._text, self._tokens
        self._text, self._tokens = before + text, tokens_before + tokens
        found = self._parser.extract_reasoning_streaming(
            before, self._text, text, tokens_before, self._tokens, tokens
        )
        return (found.content or "", found.reasoning or "") if found else ("", "")


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """For templates without a system role: system messages go in front of the next user message."""
    folded: list[Message] = []
    held: list[str] = []
    for message in messages:
        if message["role"] == "system":
            held.append(message["content"])
        elif message["role"] == "user" and held:
            folded.append({"role": "user", "content": "\n\n".join([*held, message["content"]])})
            held = []
        else:
            folded.append(message)
    return [*folded, {"role": "user", "content": "\n\n".join(held)}] if held else folded


def logprob_objects(
    positions: Sequence[Mapping[int, Any]] | None, tokens: Sequence[int], most: int | None
) -> tuple[dict[str, Any], ...]:
    """OpenAI's objects, one per token. positions: vLLM's, each with the token among its rivals; there
    may be one more than tokens."""
    if positions is None or most is None:
        return ()
    return tuple(
        {
            **_logprob(position[token]),
            "top_logprobs": [_logprob(p) for p in sorted(position.values(), key=_rank)[:most]],
        }
        for token, position in zip(tokens, positions, strict=False)
    )


def _rank(logprob: Any) -> int:
    return int(logprob.rank)


def _logprob(logprob: Any) -> dict[str, Any]:
    text = logprob.decoded_token or ""
    return {"token": text, "logprob": max(logprob.logprob, -9999.0), "bytes": list(text.encode())}


def token_ends(tokenizer: Any, text: str) -> list[int]:
    """Where the tokens of `text` end, in characters, by a tokenizer of Hugging Face's."""
    if not getattr(tokenizer, "is_fast", False):  # it cannot say where: evenly, then
        count = len(tokenizer.encode(text, add_special_tokens=False))
        return [len(text) * n // count for n in range(1, count + 1)]
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    # A character that several tokens share ends with the last of them.
    nexts = [start for start, _ in [*offsets, (len(text), 0)][1:]]
    ends: list[int] = []
    for (_, end), following in zip(offsets, nexts, strict=True):
        ends.append(max(min(end, following), ends[-1] if ends else 0))
    return ends
