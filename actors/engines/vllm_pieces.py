"""Cuts a prompt that vLLM only reads (a warm-up) into pieces, so that no call waits for all of it.

vLLM keeps whole blocks of tokens, each block as soon as it is computed. So only whole blocks are worth
reading, and a piece that is read stays in the cache, even if the warm-up ends early.

On a GPU, vLLM itself cuts a prompt into steps, and a call comes between two steps. On a CPU, a step
takes a whole prompt (`vllm_arguments.py`), and nothing can end the step. There, a warm-up is a row of
calls instead. Each call reads the tokens of the call before, which are in the cache, and a few more.
"""

from collections.abc import Iterator, Sequence

PIECE_TOKENS = 128
"""Tokens of a piece, rounded down to whole blocks, but at least one block. For each piece, a CPU reads
all weights from memory once. So much shorter pieces would make the reading slower."""


class Pieces:
    """The pieces of the prompts of one model.

    It remembers which tokens were read last, so that a prompt that begins with the same tokens goes on
    behind them. If vLLM has dropped these tokens meanwhile, the first piece is longer and takes longer.
    """

    def __init__(self) -> None:
        self._read: dict[str | None, Sequence[int]] = {}
        """The tokens that were read last, for each adapter and, under None, for the model itself."""

    def forget(self) -> None:
        """Take note that vLLM's cache is empty."""
        self._read.clear()

    def of(self, tokens: Sequence[int], block_tokens: int, adapter: str | None) -> Iterator[list[int]]:
        """Yield the beginnings of a prompt that are to be read, each longer than the beginning before.

        A piece counts as read when the next piece is asked for.

        Args:
            tokens: the prompt.
            block_tokens: tokens of a block of vLLM's cache.
            adapter: the adapter that reads; None for the model itself.
        """
        size = max(1, PIECE_TOKENS // block_tokens) * block_tokens
        whole = len(tokens) // block_tokens * block_tokens
        known = same_beginning(tokens, self._read.get(adapter, ())) // block_tokens * block_tokens
        for begin in range(known, whole, size):
            piece = list(tokens[: min(begin + size, whole)])
            yield piece
            self._read[adapter] = piece


def same_beginning(some: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens two prompts have in common at their beginning."""
    pairs = zip(some, others, strict=False)
    least = min(len(some), len(others))
    return next((n for n, (one, other) in enumerate(pairs) if one != other), least)
