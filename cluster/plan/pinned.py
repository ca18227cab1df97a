"""How much of a card vLLM's weights take, and how much host RAM while the engine sleeps. Pure.

They take more than the weights have bytes, for two reasons:

1. PyTorch takes memory of a card in segments. A small tensor shares a segment with others, and a
   segment that is not full counts whole.
2. vLLM copies each segment to RAM that is pinned (vllm/device_allocator/cumem.py,
   CuMemAllocator.sleep), and PyTorch rounds each piece of pinned RAM up to a power of two (torch 2.13,
   ATen/core/CachingHostAllocator.h, allocate). It keeps the pieces when the engine wakes.

So the weights take up to 3% more of a card than they have bytes, and 17% to 96% more host RAM,
depending on the sizes of the tensors.
"""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from cluster.cards.card import MIB

SMALL_TENSOR = MIB
"""Tensors of up to this many bytes share segments of SMALL_SEGMENT (torch 2.13,
c10/core/AllocatorConfig.h, which has the next three sizes too)."""
SMALL_SEGMENT = 2 * MIB
MIDDLE_TENSOR = 10 * MIB
"""Larger tensors, of fewer than this many bytes, share segments of MIDDLE_SEGMENT."""
MIDDLE_SEGMENT = 20 * MIB
LARGE_STEP = 2 * MIB
"""All other tensors have segments of their own, rounded up to a multiple of this."""
TENSOR_STEP = 512
"""The bytes of a tensor are rounded up to a multiple of this."""


def pinned_bytes(tensors: Counter[int]) -> int:
    """Bytes of pinned RAM that hold the weights of one GPU while the engine sleeps.

    Args:
        tensors: how many tensors on the GPU have which number of bytes.
    """
    return sum(count * to_power_of_two(size) for size, count in segments(tensors).items())


def segment_bytes(tensors: Counter[int]) -> int:
    """Bytes that the tensors take on a GPU."""
    return sum(count * size for size, count in segments(tensors).items())


def on_one_gpu(tensors: Counter[int], gpus: int) -> Counter[int]:
    """The tensors on each of `gpus` GPUs, over which vLLM splits each tensor."""
    if gpus == 1:
        return tensors
    parts: Counter[int] = Counter()
    for size, count in tensors.items():
        parts[_up(size, gpus) // gpus] += count
    return parts


def segments(tensors: Counter[int]) -> Counter[int]:
    """The segments of the card's memory that hold the tensors: how many have which number of bytes."""
    found: Counter[int] = Counter()
    small = 0
    for size, count in tensors.items():
        if size <= SMALL_TENSOR:
            small += count * _up(size, TENSOR_STEP)
        elif size >= MIDDLE_TENSOR:
            found[_up(size, LARGE_STEP)] += count
    found[SMALL_SEGMENT] += -(-small // SMALL_SEGMENT)
    middle = {n: c for n, c in tensors.items() if SMALL_TENSOR < n < MIDDLE_TENSOR}
    found[MIDDLE_SEGMENT] += _middle_segments(tuple(middle.items()))
    return +found


@lru_cache(maxsize=1024)  # a search asks again for the same tensors on every card that it tries
def _middle_segments(tensors: tuple[tuple[int, int], ...]) -> int:
    """Number of segments that the tensors of middle size share, each in the first one with room.

    Args:
        tensors: pairs of a size in bytes and the number of tensors of this size.
    """
    left: Counter[int] = Counter()
    total = 0
    for size in _middle_sizes(tensors):
        room = min((free for free, count in left.items() if count and free >= size), default=None)
        if room is None:
            total += 1
            room = MIDDLE_SEGMENT
        else:
            left[room] -= 1
        left[room - size] += 1
    return total


def _middle_sizes(tensors: tuple[tuple[int, int], ...]) -> Iterator[int]:
    """The sizes of these tensors in the order in which a model of equal layers makes them."""
    rounds = max((count for _, count in tensors), default=0)
    for number in range(rounds):
        for size, count in tensors:
            # A size with more tensors than layers has several per layer.
            yield from [_up(size, TENSOR_STEP)] * (
                count * (number + 1) // rounds - count * number // rounds
            )


def to_power_of_two(size: int) -> int:
    """The least power of two that is at least `size`."""
    return 1 << (size - 1).bit_length()


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
