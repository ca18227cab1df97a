"""A prompt within a model's context, counted with that model's own tokenizer.

Output is reserved first, the conversation is never cut, and references are trimmed evenly: all to one
length in tokens, the shorter ones left whole.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.engine import Delta, Message
from configs.errors import ContextTooLong
from configs.schema import Recipe, Sampling
from serve_app.mixture.references import with_references

# What a request must leave for each reference. A trimmed one may end up somewhat shorter, since tokens
# merge differently where texts meet: shorter than USEFUL_TOKENS it is not worth reading.
LEAST_TOKENS = 32
USEFUL_TOKENS = 24
TRIM_ATTEMPTS = 4


class Tokenizers(Protocol):
    """Counts with each model's own tokenizer, by the model's name."""

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int:
        """Tokens of the conversation in the model's chat template."""

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        """Per text, where each of its tokens ends, in characters."""


class Models(Tokenizers, Protocol):
    """How the mixture reaches the recipe's models, by name. It knows nothing of where they run."""

    def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncIterator[Delta]:
        """The model's answer; closing the iterator cancels the call. live: it is read as it grows;
        otherwise it may come in few pieces, which costs less on the way."""

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        """The model's answer in one piece, which costs less on the way."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits, and how many tokens of references it cost."""

    messages: list[Message]
    tokens_removed: int = 0


async def check_conversation(
    models: Tokenizers,
    recipe: Recipe,
    model: str,
    messages: Sequence[Message],
    reserve_tokens: int,
    references: int = 0,
) -> None:
    """Whether `model` can hold the conversation, its answer and so many references at their least.

    Raises:
        ContextTooLong: with the sums.
    """
    frame = with_references(messages, [""] * references, recipe.references)
    least = references * LEAST_TOKENS
    room = recipe.models[model].context_tokens - reserve_tokens - least
    if most_tokens(frame) > room and (count := await models.count_tokens(model, frame)) > room:
        raise _too_long(recipe, model, count + least, reserve_tokens, least)


async def fit(
    models: Tokenizers,
    recipe: Recipe,
    model: str,
    messages: Sequence[Message],
    references: Sequence[str],
    reserve_tokens: int,
) -> Fitted:
    """The conversation with as much of the references as `model` can hold.

    Raises:
        ContextTooLong: with the sums; even the shortest useful references do not fit, or, without
            references, the conversation itself.
    """
    room = recipe.models[model].context_tokens - reserve_tokens
    whole = with_references(messages, references, recipe.references)
    if most_tokens(whole) <= room or (count := await models.count_tokens(model, whole)) <= room:
        return Fitted(whole)
    if not references:
        raise _too_long(recipe, model, count, reserve_tokens, 0)
    ends = await models.token_ends(model, references)
    lengths = [len(e) for e in ends]
    budget = sum(lengths) - (count - room)
    for attempt in range(TRIM_ATTEMPTS):
        length = USEFUL_TOKENS
        if attempt < TRIM_ATTEMPTS - 1:  # the last attempt is the one most likely to fit
            length = max(USEFUL_TOKENS, even_length(lengths, budget))
        cut = [_cut(text, e, length) for text, e in zip(references, ends, strict=True)]
        trimmed = with_references(messages, cut, recipe.references)
        count = await models.count_tokens(model, trimmed)
        if count <= room:
            return Fitted(trimmed, sum(max(0, n - length) for n in lengths))
        if length == USEFUL_TOKENS:
            break
        budget -= count - room  # tokens merge differently where a text is cut
    least = sum(min(n, USEFUL_TOKENS) for n in lengths)
    raise _too_long(recipe, model, count, reserve_tokens, least)


def most_tokens(messages: Sequence[Message]) -> int:
    """An upper bound that needs no tokenizer: a token is at least a byte, and chat templates add at
    most a default system message and a few tokens per message. Spares a call for most requests."""
    return 256 + sum(16 + len(m["content"].encode()) for m in messages)


def even_length(lengths: Sequence[int], budget: int) -> int:
    """The largest n with sum(min(length, n)) <= budget; 0 if there is none."""
    left = budget
    for done, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - done)
        if length > share:
            return max(0, share)
        left -= length
    return max(lengths, default=0)


def _cut(text: str, ends: Sequence[int], length: int) -> str:
    return text if len(ends) <= length else text[: ends[length - 1]]


def _too_long(
    recipe: Recipe, model: str, count: int, reserve_tokens: int, least: int
) -> ContextTooLong:
    context = recipe.models[model].context_tokens
    what = f"the conversation with {least} tokens of references" if least else "the conversation"
    message = (
        f"{what} takes {count} tokens and model {model!r} holds {context}, of which {reserve_tokens} "
        f"are kept for the answer (max_tokens): {count + reserve_tokens - context} too many"
    )
    return ContextTooLong(message, model=model, param="messages")
