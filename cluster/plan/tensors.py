"""The weights of a checkpoint as vLLM holds them on a card: merged, stacked and repacked. Pure.

vLLM keeps the projections of queries, keys and values of a layer as one tensor, gate and up of a
feed-forward network as another, and stacks the experts of a layer (QKVParallelLinear,
MergedColumnParallelLinear and FusedMoE in vllm/model_executor/layers). How large single tensors are
decides how much host RAM they take while the engine sleeps: see `pinned.py`.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from cluster.plan.checkpoint import Checkpoint

TABLE = 2.0
"""Bytes per weight of embeddings and output layer. Quantized checkpoints keep them in 16 bits."""
WHOLE_BITS = (8, 4)
"""Bits of a quantized weight without its scales: the largest of these that its average bits allow."""
UNQUANTIZED_BITS = 12
"""From so many bits per weight on, on average, weights are taken not to be quantized."""
LARGEST_ZERO_POINT = 1 / 8
"""Zero points take fewer bytes per weight than this."""
PLAIN_BITS = 16
"""Bits of a weight that is not quantized, in most checkpoints."""
SCALE_BITS = 16 + 4
"""Bits of the scale and the zero point of a group of weights, as AWQ stores them."""
GROUPS = (128, 64, 32)
"""Weights in a group."""
NEAR = 0.02
"""Bits per weight are taken for what they nearly are. Norms and biases are counted among them."""
ZERO_POINT_GROWTH = 4
"""How many times its stored bytes a zero point takes for Machete, the kernel for 4-bit weights on
Hopper (capability 9.0): 16 bits in place of 4
(vllm/model_executor/kernels/linear/mixed_precision/machete.py, process_weights_after_loading). Experts
have other kernels."""

PADDED_TENSORS = 8
"""Tensors that have at least this part of the largest tensor's bytes are taken for those that vLLM
pads, where it pads any: gate and up of all experts of a layer, and their second matrix of half that
size."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """One merged matrix of each of several layers."""

    layers: int
    """How many layers have such a matrix."""
    parts: tuple[int, ...]
    """Numbers of weights of the matrices that are merged into it. With experts, those of one expert."""
    experts: int = 1
    """How many experts are stacked in it."""

    @property
    def parameters(self) -> int:
        """Number of weights of the matrix of one layer, with all of its experts."""
        return sum(self.parts) * self.experts


def matrices(checkpoint: Checkpoint) -> tuple[Matrix, ...]:
    """The merged matrices of a checkpoint, by its shape."""
    hidden, query, ffn = checkpoint.hidden, checkpoint.query_width, checkpoint.ffn
    found = []
    for kind in checkpoint.attention:
        keys = hidden * (kind.kv_width // 2)
        found.append(Matrix(kind.layers, (hidden * query, keys, hidden * kind.kv_width - keys)))
    others = checkpoint.layers - sum(kind.layers for kind in checkpoint.attention)
    if others > 0:
        found.append(Matrix(others, (hidden * query,)))
    return (
        *found,
        Matrix(checkpoint.layers, (hidden * query,)),
        Matrix(checkpoint.layers, (hidden * ffn, hidden * ffn), checkpoint.experts),
        Matrix(checkpoint.layers, (hidden * ffn,), checkpoint.experts),
    )


def counted_matrices(checkpoint: Checkpoint) -> tuple[Matrix, ...]:
    """The matrices by the shape, in as many layers as the checkpoint has weights for.

    Some models have experts or attention in a part of their layers only, or other matrices besides.
    """
    found = matrices(checkpoint)
    if not checkpoint.dense_parameters:
        return found
    has_experts = checkpoint.experts > 1
    counted = {False: checkpoint.dense_parameters, True: checkpoint.expert_parameters}
    by_shape = {
        kind: sum(each.layers * each.parameters for each in found if (each.experts > 1) is kind)
        for kind in (False, has_experts)
    }
    return tuple(
        replace(each, layers=max(1, round(each.layers * counted[kind] / max(1, by_shape[kind]))))
        for each in found
        if counted[kind := each.experts > 1]
    )


@lru_cache(maxsize=128)
def held_tensors(checkpoint: Checkpoint, wide_zero_points: bool = False) -> Counter[int]:
    """The tensors that vLLM holds on a card: how many have which number of bytes. Not to be changed.

    Args:
        checkpoint: the weights; if only their shape is known, their tensors are worked out from it.
        wide_zero_points: whether the kernel keeps zero points in 16 bits, as Machete does.
    """
    left = Counter(checkpoint.tensor_bytes)
    found = matrices(checkpoint) if left else counted_matrices(checkpoint)
    widths = _stored_widths(left, found) if left else _widths_by_shape(checkpoint)
    held: Counter[int] = Counter()
    for matrix in found:
        present = [
            width for width in widths if not checkpoint.tensor_bytes or _has(left, matrix, width)
        ]
        for width in present:
            left -= _parts(matrix, width)
            is_zero_point = width < LARGEST_ZERO_POINT and width * ZERO_POINT_GROWTH in present
            is_wide = wide_zero_points and is_zero_point and matrix.experts == 1
            growth = ZERO_POINT_GROWTH if is_wide else 1
            held[round(matrix.parameters * width * growth)] += matrix.layers
    if not checkpoint.tensor_bytes:
        left[round(TABLE * checkpoint.vocab * checkpoint.hidden)] = 2 if checkpoint.lookup_bytes else 1
        rest = checkpoint.weight_bytes - sum(size * count for size, count in (held + left).items())
        left[max(0, rest) // checkpoint.layers] += checkpoint.layers  # norms and biases
    held += left  # what is left is held as it is stored
    return _padded(held, checkpoint.padding_bytes)


def _stored_widths(stored: Counter[int], found: Sequence[Matrix]) -> list[float]:
    """The bytes per weight in which the files have weights, scales and zero points, the most first.

    Each is a power of two. One that only one kind of merged matrices would have is taken for chance, if
    there are any that several kinds have.
    """
    merged = [matrix for matrix in found if len(matrix.parts) > 1 and all(matrix.parts)]
    times: Counter[float] = Counter()
    for matrix in merged:
        candidates = {size / matrix.parts[0] for size in stored}
        times.update(c for c in candidates if math.frexp(c)[0] == 1 / 2 and _has(stored, matrix, c))
    common = [width for width, count in times.items() if count > 1]
    return sorted(common or times, reverse=True)


def _has(stored: Counter[int], matrix: Matrix, width: float) -> bool:
    """Whether all parts of the matrix are stored with so many bytes per weight."""
    return all(size > 0 and stored[size] >= count for size, count in _parts(matrix, width).items())


def _parts(matrix: Matrix, width: float) -> Counter[int]:
    """The tensors that are merged into the matrices, with so many bytes per weight."""
    parts: Counter[int] = Counter()
    for part in matrix.parts:
        parts[round(part * width)] += matrix.layers * matrix.experts
    return parts


def matrix_bits(checkpoint: Checkpoint) -> float:
    """Stored bits of a weight on average, of those that quantized checkpoints quantize: no
    embeddings."""
    tables = 2 if checkpoint.lookup_bytes else 1
    weights = sum(each.layers * each.parameters for each in counted_matrices(checkpoint))
    rest = checkpoint.weight_bytes - TABLE * tables * checkpoint.vocab * checkpoint.hidden
    return 8 * max(0.0, rest) / weights


def _widths_by_shape(checkpoint: Checkpoint) -> list[float]:
    """The bytes per weight of weights, scales and zero points, as the sum of all bytes tells them."""
    bits = matrix_bits(checkpoint)
    if abs(bits - PLAIN_BITS) < NEAR * PLAIN_BITS:
        return [PLAIN_BITS / 8]
    whole = next((each for each in WHOLE_BITS if each <= bits), bits)
    if bits >= UNQUANTIZED_BITS:
        whole = bits
    group = next(
        (g for g in GROUPS if abs(bits - whole - SCALE_BITS / g) < NEAR * SCALE_BITS / g), None
    )
    beside = SCALE_BITS / group if group else bits - whole
    zero_point = min(beside, SCALE_BITS / GROUPS[-1]) / (1 + ZERO_POINT_GROWTH)
    scale = ZERO_POINT_GROWTH * zero_point
    widths = (whole, scale, zero_point, beside - scale - zero_point)
    return [width / 8 for width in widths if width > 0]


def _padded(held: Counter[int], padding_bytes: int) -> Counter[int]:
    """The tensors with `padding_bytes` more, which the largest tensors take: those of the experts."""
    if not padding_bytes:
        return held
    least = max(held) / PADDED_TENSORS
    whole = sum(size * count for size, count in held.items() if size >= least)
    growth = 1 + padding_bytes / whole
    padded: Counter[int] = Counter()
    for size, count in held.items():
        padded[math.ceil(size * growth) if size >= least else size] += count
    return padded
