"""A prompt that fits into a model's context, counted with that model's own tokenizer.

The answer's tokens are reserved first. The conversation is never cut. If the prompt is too long, the
references are trimmed to one common length in tokens. A reference that is shorter stays whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.engine import Message
from actors.text.tool_prompt import with_tools
from configs.errors import ContextTooLong
from configs.limit_checks import CHARACTERS_PER_TOKEN, LEAST_REFERENCE_TOKENS
from configs.schema import Recipe, References
from configs.tool_use import ToolUse
from serve_app.mixture.models import Models
from serve_app.mixture.references import with_references

LEAST_TOKENS = LEAST_REFERENCE_TOKENS
"""Tokens that a conversation must leave free for each reference. Otherwise the request is refused
before any model works on it."""
USEFUL_TOKENS = 24
"""Fewest tokens that a trimmed reference keeps; fewer are not worth reading. The number is below
LEAST_TOKENS, because a request that passed the check of LEAST_TOKENS must still fit with the references
in place, and tokens merge differently where texts meet."""
TRIM_ATTEMPTS = 4
"""How often references are trimmed and counted before the request is refused."""


@dataclass(frozen=True, slots=True)
class PromptTask:
    """What a prompt is made of: a conversation and references, for one of the recipe's models."""

    recipe: Recipe
    model: str
    messages: Sequence[Message]
    references: Sequence[str]
    reserve_tokens: int
    """Tokens kept free for the model's answer, and for its reasoning."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the model's chat template."""
    form: References | None = None
    """How the references enter the prompt; None for the recipe's way."""
    note: str = ""
    """What stands behind the references."""
    tools: ToolUse | None = None
    """Tools of which the prompt tells; None if the model gets none, or not as text."""

    @property
    def room(self) -> int:
        """Tokens of the model's context that the prompt may take."""
        return self.recipe.settings(self.model).context_tokens - self.reserve_tokens

    def prompt(self, references: Sequence[str]) -> list[Message]:
        """The conversation with these references."""
        form = self.form or self.recipe.references
        prompt = with_references(self.messages, references, form, self.note)
        if self.tools is None:
            return prompt
        return with_tools(prompt, self.tools, has_references=bool(references))

    def too_long(self, count: int, least: int) -> ContextTooLong:
        """Make the error for a prompt that is too long; the message says by how many tokens.

        Args:
            count: tokens of the prompt, with `least` included.
            least: the fewest tokens that all references together need; 0 without references.
        """
        context = self.recipe.settings(self.model).context_tokens
        parts = f"{count - least} in the messages, {self.reserve_tokens} in the completion"
        if least:
            parts += f", {least} in references"
        # In OpenAI's words: LiteLLM and agents know an overflow by them, and shorten the conversation.
        message = (
            f"This model's maximum context length is {context} tokens. However, you requested "
            f"{count + self.reserve_tokens} tokens ({parts}): {count - self.room} too many for model "
            f"{self.model!r}. Please reduce the length of the messages or completion."
        )
        # Whatever takes more is at fault: a client cannot mend a large max_tokens by shorter messages.
        param = "max_tokens" if self.reserve_tokens > count else "messages"
        return ContextTooLong(message, model=self.model, param=param)


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt that fits into the model's context."""

    messages: list[Message]
    tokens_removed: int = 0
    """Tokens that were trimmed from all references together."""


async def check_conversation(task: PromptTask, models: Models) -> None:
    """Check that the model can hold the conversation and `LEAST_TOKENS` of each reference.

    The texts of `task.references` are not known yet, so only the number of references counts.

    Raises:
        ContextTooLong: the model cannot; the message has the numbers of tokens.
    """
    frame = task.prompt([""] * len(task.references))
    least = len(task.references) * LEAST_TOKENS
    room = task.room - least
    if (
        token_bound(frame) > room
        and (count := await models.count_tokens(task.model, frame, task.template)) > room
    ):
        raise task.too_long(count + least, least)


async def fit(task: PromptTask, models: Models) -> FittedPrompt:
    """The conversation with as much of the references as the model can hold.

    Raises:
        ContextTooLong: the conversation does not fit, or does not fit together with `USEFUL_TOKENS` of
            each reference; the message has the numbers of tokens.
    """
    whole = task.prompt(task.references)
    if token_bound(whole) <= task.room:
        return FittedPrompt(whole)
    count = await models.count_tokens(task.model, whole, task.template)
    if count <= task.room:
        return FittedPrompt(whole)
    if not task.references:
        raise task.too_long(count, 0)
    ends = await models.token_ends(task.model, task.references)
    lengths = [len(e) for e in ends]
    budget = sum(lengths) - (count - task.room)
    for attempt in range(TRIM_ATTEMPTS):
        length = USEFUL_TOKENS
        if attempt < TRIM_ATTEMPTS - 1:  # the last attempt is the one most likely to fit
            length = max(USEFUL_TOKENS, even_length(lengths, budget))
        trimmed = task.prompt(
            [_cut(text, e, length) for text, e in zip(task.references, ends, strict=True)]
        )
        count = await models.count_tokens(task.model, trimmed, task.template)
        if count <= task.room:
            return FittedPrompt(trimmed, sum(max(0, n - length) for n in lengths))
        if length == USEFUL_TOKENS:
            break
        budget -= count - task.room  # tokens merge differently where a text is cut
    raise task.too_long(count, sum(min(n, USEFUL_TOKENS) for n in lengths))


def context_tokens(recipe: Recipe) -> int:
    """The context of the mixture: most tokens of a conversation and its answer, as a client counts
    them.

    1. The aggregator also reads the instructions and LEAST_TOKENS of each reference.
    2. Enough proposers for the quorum have to hold the conversation beside their own answers.

    The models' tokenizers differ, so the number is a guide, and `check_conversation` decides.
    """
    aggregator = recipe.aggregator
    instructions = len(recipe.references.prompt) // CHARACTERS_PER_TOKEN
    beside = instructions + recipe.samples[-1] * LEAST_TOKENS
    read = recipe.settings(aggregator.model).context_tokens - beside  # 1
    rooms = [
        recipe.settings(proposer.model).context_tokens - proposer.sampling.most_tokens
        for proposer in recipe.layers[0].proposers
        for _ in range(proposer.samples)
    ]
    conversation = sorted(rooms, reverse=True)[recipe.limits.quorum - 1]  # 2
    return max(0, min(read, conversation + aggregator.sampling.most_tokens))


def token_bound(messages: Sequence[Message]) -> int:
    """An upper bound of a conversation's tokens that needs no tokenizer.

    A token is at least a byte, and a chat template adds at most a default system message and a few
    tokens per message. The bound spares most requests a call to the tokenizer.
    """
    return 256 + sum(16 + len(m["content"].encode()) for m in messages)


def even_length(lengths: Sequence[int], budget: int) -> int:
    """The largest n with sum(min(length, n) for length in lengths) <= budget.

    At most the longest length is returned, and 0 if no n above 0 is small enough.
    """
    left = budget
    for done, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - done)
        if length > share:
            return max(0, share)
        left -= length
    return max(lengths, default=0)


def _cut(text: str, ends: Sequence[int], length: int) -> str:
    return text if len(ends) <= length else text[: ends[length - 1]]
