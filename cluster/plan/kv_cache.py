"""The bytes of vLLM's KV cache: how many blocks a sequence takes, and how large a block is. Pure.

This follows vLLM 0.33, vllm/v1/core/kv_cache_planning.py and vllm/v1/kv_cache_interface.py. vLLM
refuses to start if the cache cannot hold one sequence of the whole context, and so every rule of its
own counts:

- A block has the same bytes for every layer. So layers whose token takes fewer bytes have more tokens
  in a block, or a block with unused bytes (unify_kv_cache_spec_page_size).
- Layers that keep tokens for equally long form groups, which all have one number of layers; the last
  group of a kind is filled up with layers that do not exist (_get_kv_cache_groups_uniform_page_size).
  A block of the cache is a block for each layer of one group, and each group has blocks of its own.
- A layer with a window keeps the window and the tokens of all steps in flight
  (SlidingWindowSpec.max_admission_blocks_per_request). With async scheduling these are two steps.
- A layer with a state of fixed size keeps it in blocks of that kind. So a block has at least the bytes
  of a state, which makes the blocks of the other layers large (Platform._align_hybrid_block_size).
- One block stays empty (BlockPool.null_block).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cluster.plan.checkpoint import Attention, Checkpoint

KERNEL_BLOCKS = (16, 32, 64, 128)
"""Tokens of a block, before blocks are made equal. Most kernels want the first number
(get_preferred_block_size of vllm/v1/attention/backend.py). The last holds on a GPU for some heads of
256 values and for latent attention (vllm/v1/attention/backends/fa_utils.py and mla/cutlass_mla.py). On
a CPU, SlimMoA asks for 32 (`vllm_arguments.py`), but some models get larger blocks there
(vllm/platforms/cpu.py). So a plan for a CPU counts the last number, which always suffices."""
STATE_BLOCK_TOKENS = 64
"""Blocks of layers beside states of fixed size have a multiple of this number of tokens at most, except
for latent attention (Platform._align_hybrid_block_size)."""
STATES = 3
"""States of fixed size that a sequence has in each layer at most: the present state, the last one at
the end of a block, and one that a prefill leaves for other sequences that begin alike (MambaSpec with
mamba_cache_mode "align" and num_prefill_checkpoint_blocks of 1)."""
PADDING_LIMIT = 1.5
"""Groups get the number of layers of the largest kind if that is less than this many times the number
of the smallest kind, and else the number of the smallest kind."""


@dataclass(frozen=True, slots=True)
class KvNeeds:
    """What decides how large a KV cache has to be, besides the checkpoint."""

    context_tokens: int
    """Tokens of the longest sequence."""
    kv_tokens: int
    """Tokens that the cache holds for all sequences together; at least one whole context counts."""
    sequences: int
    """Sequences at a time."""
    in_flight_tokens: int
    """Tokens of all steps that vLLM has begun and not ended."""
    value_bytes: int
    """Bytes of one value in the cache."""
    block_tokens: int
    """Tokens of a block, before blocks are made equal."""


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Layers that keep their tokens for equally long, in blocks of equally many tokens."""

    layers: int
    page_bytes: int
    """Bytes of a block in one layer."""
    block_tokens: int
    """Tokens of a block; 0 for states of fixed size, of which a sequence has always STATES."""
    window_tokens: int = 0

    def blocks(self, tokens: int, in_flight_tokens: int) -> int:
        """Blocks that a sequence of `tokens` tokens takes in one group of these layers.

        Of no tokens, the blocks that it takes beside those of its tokens: a last one that is not full.
        """
        if not self.block_tokens:
            return STATES
        if not tokens:
            return 1
        if not self.window_tokens:
            return _up(tokens, self.block_tokens)
        kept = min(self.window_tokens - 1 + in_flight_tokens, tokens)
        return _up(kept, self.block_tokens) + 1  # the window need not begin where a block begins


def kv_pool_bytes(checkpoint: Checkpoint, needs: KvNeeds) -> int:
    """Bytes of a KV cache that has room for what `needs` says, and that vLLM accepts.

    The tokens are taken to be those of as many whole contexts as they make, and of one shorter
    sequence. Every further sequence has its own states, and its own last blocks, which are not full.
    """
    if not checkpoint.attention and not checkpoint.state_bytes:
        return 0
    block_bytes, blocks_of = _groups(checkpoint, needs)
    whole, rest = divmod(max(needs.kv_tokens, needs.context_tokens), needs.context_tokens)
    shared = max(0, needs.sequences - whole - (1 if rest else 0))
    blocks = whole * blocks_of(needs.context_tokens) + (blocks_of(rest) if rest else 0)
    return (1 + blocks + shared * blocks_of(0)) * block_bytes


def _groups(checkpoint: Checkpoint, needs: KvNeeds) -> tuple[int, Callable[[int], int]]:
    """The bytes of a block of the cache, and the function of the blocks that a sequence takes."""
    kinds = checkpoint.attention
    is_alike = len({kind.window_tokens for kind in kinds}) == 1 and not checkpoint.state_bytes
    if is_alike:
        # One group has all layers, however many bytes a token takes in each (UniformTypeKVCacheSpecs).
        total = sum(kind.layers * needs.block_tokens * _width(kind, needs) for kind in kinds)
        bucket = _Bucket(1, total, needs.block_tokens, kinds[0].window_tokens)
        return total, lambda tokens: _blocks([bucket], 1, tokens, needs)
    buckets = _merged(_unified(_buckets(checkpoint, needs)))
    counts = [bucket.layers for bucket in buckets]
    size = max(counts) if max(counts) < PADDING_LIMIT * min(counts) else min(counts)
    return size * buckets[0].page_bytes, lambda tokens: _blocks(buckets, size, tokens, needs)


def _blocks(buckets: Sequence[_Bucket], size: int, tokens: int, needs: KvNeeds) -> int:
    """Blocks that a sequence of `tokens` tokens takes in all groups of `size` layers."""
    return sum(
        _up(bucket.layers, size) * bucket.blocks(tokens, needs.in_flight_tokens) for bucket in buckets
    )


def _buckets(checkpoint: Checkpoint, needs: KvNeeds) -> list[_Bucket]:
    """The kinds of layers, with blocks that are not equal yet."""
    block, states = needs.block_tokens, []
    widths = [_width(kind, needs) for kind in checkpoint.attention]
    if checkpoint.state_bytes:
        layers = checkpoint.state_layers or checkpoint.layers
        state = _up(checkpoint.state_bytes, layers)
        states = [_Bucket(layers, state, 0)]
        if widths:
            block *= _up(state, block * max(widths))
    kinds = [
        _Bucket(kind.layers, block * width, block, kind.window_tokens)
        for kind, width in zip(checkpoint.attention, widths, strict=True)
    ]
    return [*kinds, *states]


def _unified(buckets: Sequence[_Bucket]) -> list[_Bucket]:
    """The same layers with blocks of equally many bytes: those of the largest."""
    page = max(bucket.page_bytes for bucket in buckets)
    return [
        replace(
            bucket,
            page_bytes=page,
            block_tokens=bucket.block_tokens
            * (page // bucket.page_bytes if page % bucket.page_bytes == 0 else 1),
        )
        for bucket in buckets
    ]


def _merged(buckets: Sequence[_Bucket]) -> list[_Bucket]:
    """The same layers, where those with equal blocks and windows are one kind."""
    layers: dict[_Bucket, int] = {}
    for bucket in buckets:
        key = replace(bucket, layers=0)
        layers[key] = layers.get(key, 0) + bucket.layers
    return [replace(key, layers=count) for key, count in layers.items()]


def _width(kind: Attention, needs: KvNeeds) -> int:
    """Bytes that one token takes in one of these layers."""
    return kind.token_bytes(needs.value_bytes)


def _up(count: int, step: int) -> int:
    """How many steps cover the count."""
    return -(-count // step)
