"""PyTorch's allocator in a pool that gives no segment back, in bytes alone. Pure.

It follows torch 2.13, c10/cuda/CUDACachingAllocator.cpp (get_free_block, should_split, free_block),
with the setting that vLLM makes while it loads weights with sleep mode (vllm/v1/worker/gpu_worker.py,
load_model: max_split_size_mb 20).
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from itertools import count

from cluster.cards.card import MIB
from cluster.plan.pinned import (
    LARGE_STEP,
    MIDDLE_SEGMENT,
    MIDDLE_TENSOR,
    SMALL_TENSOR,
    TENSOR_STEP,
)

SPLIT = 20 * MIB
"""Blocks of at least this size are not split, and not given to smaller tensors, nor to tensors that are
smaller by this much."""


@dataclass(eq=False)
class Block:
    """A part of a segment, and its neighbours there."""

    size: int
    number: int
    """The blocks are numbered, so that equal sizes have an order."""
    is_free: bool = False
    before: "Block | None" = None
    after: "Block | None" = None

    @property
    def key(self) -> tuple[int, int]:
        """What free blocks are sorted by."""
        return self.size, self.number


@dataclass
class TorchPool:
    """The segments of a pool. Tensors of at most SMALL_TENSOR bytes are counted by their sum."""

    total: int = 0
    """Bytes of all segments."""
    _keys: list[tuple[int, int]] = field(default_factory=list)
    _free: dict[int, Block] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=count)

    def take(self, size: int) -> Block | None:
        """A block for a tensor of `size` bytes; None for a small one, whose bytes never come back."""
        size = -(-size // TENSOR_STEP) * TENSOR_STEP
        if size <= SMALL_TENSOR:
            self.total += size
            return None
        block = self._find(size)
        if block is None:
            rounded = -(-size // LARGE_STEP) * LARGE_STEP
            block = Block(MIDDLE_SEGMENT if size < MIDDLE_TENSOR else rounded, next(self._numbers))
            self.total += block.size
        block.is_free = False
        if size < SPLIT and block.size - size > SMALL_TENSOR:
            self._split(block, size)
        return block

    def _find(self, size: int) -> Block | None:
        """The smallest free block that the tensor may have."""
        position = bisect_left(self._keys, (size, 0))
        if position == len(self._keys):
            return None
        least, number = self._keys[position]
        if least >= (SPLIT if size < SPLIT else size + SPLIT):
            return None
        del self._keys[position]
        return self._free.pop(number)

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.size - size, next(self._numbers), before=block, after=block.after)
        if block.after:
            block.after.before = rest
        block.size, block.after = size, rest
        self._add(rest)

    def _add(self, block: Block) -> None:
        block.is_free = True
        insort(self._keys, block.key)
        self._free[block.number] = block

    def give(self, block: Block | None) -> None:
        """Free a block, and join it with the free neighbours in its segment."""
        if block is None:
            return
        before, after = block.before, block.after
        if before and before.is_free:
            self._remove(before)
            block.size += before.size
            block.before = before.before
            if block.before:
                block.before.after = block
        if after and after.is_free:
            self._remove(after)
            block.size += after.size
            block.after = after.after
            if block.after:
                block.after.before = block
        self._add(block)

    def _remove(self, block: Block) -> None:
        del self._keys[bisect_left(self._keys, block.key)]
        del self._free[block.number]
