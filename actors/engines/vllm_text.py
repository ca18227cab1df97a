"""Turns vLLM's data into ours: log-probabilities, ends of tokens. Imports no vLLM."""

from collections.abc import Mapping, Sequence
from typing import Any


def logprob_objects(
    positions: Sequence[Mapping[int, Any]] | None, tokens: Sequence[int], most: int | None
) -> tuple[dict[str, Any], ...]:
    """Log-probabilities as OpenAI's objects, one per token.

    Args:
        positions: vLLM's log-probabilities: per position, the written token and its alternatives by
            token id. There may be one position more than there are tokens.
        tokens: The written tokens.
        most: How many alternatives to return per token; None returns nothing.
    """
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
    """Where each token of `text` ends, in characters; an estimate if the tokenizer tells no offsets."""
    offsets = _offsets(tokenizer, text)
    if offsets is None:  # spread the tokens evenly
        count = len(tokenizer.encode(text, add_special_tokens=False))
        return [len(text) * n // count for n in range(1, count + 1)]
    # A character that several tokens share ends with the last of them.
    nexts = [start for start, _ in [*offsets, (len(text), 0)][1:]]
    ends: list[int] = []
    for (_, end), following in zip(offsets, nexts, strict=True):
        ends.append(max(min(end, following), ends[-1] if ends else 0))
    return ends


def _offsets(tokenizer: Any, text: str) -> list[tuple[int, int]] | None:
    """Start and end of each token in characters; None if the tokenizer cannot tell them.

    A slow tokenizer of Hugging Face has no offsets. vLLM's tokenizer for Mistral's own files calls
    itself fast and knows no `return_offsets_mapping` (vllm/tokenizers/mistral.py).
    """
    if not getattr(tokenizer, "is_fast", False):
        return None
    try:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    except TypeError:
        return None
    offsets: list[tuple[int, int]] = encoded["offset_mapping"]
    return offsets
