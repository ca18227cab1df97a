"""What the mixture asks of the recipe's models. It knows nothing of where they run."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from actors.engine import Delta, Message
from configs.schema import Sampling


class Models(Protocol):
    """The recipe's models, by name. Calls raise the RequestErrors of `configs.errors`."""

    def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncIterator[Delta]:
        """The model's answer. Closing the iterator cancels the call.

        Args:
            streamed: whether the answer is read as it grows. If not, it may come in few pieces, which
                costs less.
        """

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        """The model's answer in one piece, which costs less than `stream`."""

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int:
        """Tokens of the conversation in the model's chat template, by the model's own tokenizer."""

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        """For each text, the positions in characters where the model's tokens end."""

    async def is_alive(self, model: str) -> bool:
        """Whether a replica of the model answers a probe, which takes a few seconds at most."""
