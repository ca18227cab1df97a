"""What vLLM takes of a GPU at most while it loads weights. Pure.

With sleep mode vLLM loads into a pool of memory of its own, which gives no segment back before all is
loaded (vllm/v1/worker/gpu_worker.py, load_model; vllm#48680, vllm#34877). Its kernels want other
layouts than those of the files, so vLLM rewrites the weights matrix by matrix. The pool keeps what that
takes, and some of it fits no later tensor. How much depends on all sizes, so the steps are played
through here. The KV cache does not exist yet.
"""

from functools import lru_cache

from cluster.plan.checkpoint import Checkpoint
from cluster.plan.pinned import on_one_gpu, segment_bytes
from cluster.plan.tensors import (
    UNQUANTIZED_BITS,
    ZERO_POINT_GROWTH,
    Matrix,
    counted_matrices,
    held_tensors,
    matrix_bits,
)
from cluster.plan.torch_pool import Block, TorchPool

UNPACKED = 4
"""Bytes in which AWQ's conversion holds each weight: an integer of 32 bits
(vllm/model_executor/layers/quantization/auto_awq.py, _convert_awq_to_standard_format)."""
PACKED = 0.5
"""Bytes of a weight of 4 bits."""
GROUP = 128
"""Weights that share a scale of 16 bits and a zero point of 4 bits."""
MOST_AWQ_BITS = 6
"""Bits per weight of a matrix in AWQ at most, with scales and zero points, and with some slack."""
COPIES = 2
"""How many copies of a layer's quantized weights other methods take meanwhile."""


def loading_bytes(
    checkpoint: Checkpoint, gpus: int = 1, machete: bool = False, quantized_at_load: bool = False
) -> int:
    """Bytes that the weights take at most on one GPU while vLLM loads them.

    Args:
        checkpoint: the weights. If their method is not known, it is taken to be AWQ, which takes most.
        gpus: over how many GPUs vLLM splits each matrix.
        machete: whether the kernel is Machete, which makes one more copy and keeps larger zero points.
        quantized_at_load: whether vLLM quantizes weights of 16 bits.
    """
    held = segment_bytes(on_one_gpu(held_tensors(checkpoint, machete), gpus))
    bits = matrix_bits(checkpoint)
    if bits >= UNQUANTIZED_BITS and not quantized_at_load:
        return held
    is_awq = checkpoint.quantization is None or "awq" in checkpoint.quantization
    if not is_awq or bits > MOST_AWQ_BITS:
        return held + int(COPIES * checkpoint.weight_bytes / checkpoint.layers / gpus)
    found = counted_matrices(checkpoint)
    width = PACKED + (2 + PACKED) / GROUP
    stored = int(width * sum(each.layers * each.parameters for each in found))
    # What is no matrix is held as it is stored: embeddings, the output layer, norms.
    return _awq_peak(found, gpus, machete) + max(0, checkpoint.weight_bytes - stored) // gpus


@lru_cache(maxsize=256)
def _awq_peak(found: tuple[Matrix, ...], gpus: int, machete: bool) -> int:
    """Bytes of the pool after all matrices were loaded and repacked, on one GPU."""
    pool = TorchPool()
    layers = max(each.layers for each in found)
    loaded = []
    for layer in range(layers):
        for matrix in found:
            if matrix.layers > layer:
                weights = -(-matrix.parameters // gpus)
                sizes = (weights * PACKED, 2 * weights / GROUP, PACKED * weights / GROUP)
                loaded.append((weights, matrix.experts > 1, [pool.take(int(size)) for size in sizes]))
    for weights, has_experts, (packed, scales, zeros) in loaded:
        if has_experts:
            _take_instead(pool, int(weights * PACKED), packed)
            continue
        _repack(pool, weights, packed, machete)
        pool.give(pool.take(UNPACKED * weights // GROUP))
        growth = ZERO_POINT_GROWTH if machete else 1
        _take_instead(pool, int(growth * PACKED * weights / GROUP), zeros)
        _take_instead(pool, 2 * weights // GROUP, scales)
    return pool.total


def _take_instead(pool: TorchPool, size: int, old: Block | None) -> None:
    pool.take(size)
    pool.give(old)


def _repack(pool: TorchPool, weights: int, packed: Block | None, machete: bool) -> None:
    """Unpack a matrix to integers, put them in order, pack them again, and then for the kernel."""
    unpacked, masked = pool.take(UNPACKED * weights), pool.take(UNPACKED * weights)
    pool.give(unpacked)
    ordered = pool.take(UNPACKED * weights)
    pool.give(masked)
    shifted, standard = pool.take(UNPACKED * weights), pool.take(int(weights * PACKED))
    pool.give(shifted)
    pool.give(ordered)
    pool.give(packed)
    copy = pool.take(int(weights * PACKED)) if machete else None
    pool.take(int(weights * PACKED))
    pool.give(copy)
    pool.give(standard)
