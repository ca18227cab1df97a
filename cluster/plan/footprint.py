"""How much memory one engine needs, in bytes: for weights, KV cache and runtime. Pure.

Each constant names its source. The constants for GPUs come from published logs and not from
measurements of this project; `benchmarks/real_cards/gpu_check.py` compares them with a real card.
"""

from dataclasses import dataclass, replace

from cluster.cards.card import GIB, MIB, Kind
from cluster.plan.checkpoint import Checkpoint
from configs.schema import LlamaCppModel, Model, VllmModel

CUDA_CONTEXT = 768 * MIB
"""Bytes of one process's CUDA context, cuBLAS workspaces and compiled kernels, which stay during sleep.
nvidia-smi shows about 0.5 GiB for a bare context; vLLM's start-up log adds 0.16 to 0.33 GiB of
"non_torch_memory" (vllm#12126, vllm#14452). A sleeping engine held 1.1 GB in all (vllm#32714):
these bytes and the graphs of a small model."""
TENSOR_PARALLEL_BUFFERS = GIB
"""Bytes of NCCL's and vLLM's buffers for sums over GPUs, on each GPU of a split model. Llama-3-8B on
two GPUs of 80 GB showed 1.8 GiB more "non_torch_memory" on each than on one GPU, with half of the
weights and the same activations (vllm#10511); GPUs of 24 GB showed 0.2 GiB in all (vllm#14447)."""
GRAPHS_PER_LAYER = 8 * MIB
"""Bytes of CUDA graphs for each layer of a model. vLLM's log has "Estimated CUDA graph memory: 0.36
GiB" for 16 batch sizes (gpustack/runner#251), and 0.11 to 0.17 GiB for small models. The graphs' memory
pools stay on the card during sleep unless vLLM's `sleep_mode_offload_cudagraph` is set."""
STEP_FACTOR = 1.5
"""The activations of a step take this many times the bytes of three hidden states and of the
feed-forward network's gate, up and down values, all in 16 bits. For Llama-3-8B with 8,192 tokens the
result is that of vLLM's log, "PyTorch activation peak memory 1.26GiB" (vllm#10511)."""
SAMPLER_BYTES = 4 + 4 + 8 + 4
"""Bytes of the sampler per sequence and token of the vocabulary: fp32 logits, a sorted copy, the copy's
int64 indices, and probabilities (vllm/v1/sample/ops/topk_topp_sampler.py)."""
CPU_RUNTIME = 1740 * MIB
"""Bytes of vLLM's processes on a CPU, beside weights, KV cache and activations. With a model of 0.27 GB
(SmolLM2-135M, vLLM 0.32) the replica's process took 740 MB and the engine's process 1,220 MB, the model
included."""
REPLICA = 192 * MIB
"""Bytes of a Serve replica, a Python process with Ray in it. Five replicas took 940 MB (Ray 2.60)."""
LLAMACPP_BASE = 64 * MIB
"""Bytes of llama.cpp's tokenizer, graph and HTTP loop. The compute buffer comes on top: fp32
activations and logits of one micro-batch ("CUDA0 compute buffer size = 258.50 MiB" for 512 tokens of
Llama 3's vocabulary). In RAM, the logits of tokens that are not sampled are never touched."""
FLOAT = 4
"""Bytes of a 32-bit float."""
BLOCK_SLACK_TOKENS = 256
"""Tokens to add to the KV cache for blocks that are not full: vLLM keeps one block of its cache empty
and rounds each sequence up to whole blocks. A block has 16 to 128 tokens
(vllm/v1/core/block_pool.py; 128 on a CPU)."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory that one engine needs, in bytes, over all GPUs of its card."""

    weights: int
    """The weights as stored."""
    kv: int
    """The KV cache."""
    sequences: int
    """How many sequences run at a time. This is a count, not bytes."""
    activations: int
    """What a step needs beside weights and cache."""
    residue: int
    """What stays on the card while the engine sleeps."""
    parked: int = 0
    """What the engine takes of the host's RAM while it sleeps."""
    sleeps: bool = True
    """Whether sleeping frees memory of the card. vLLM on a CPU frees none."""

    @property
    def awake(self) -> int:
        """Bytes on the card while the engine is awake."""
        return self.weights + self.kv + self.activations + self.residue

    @property
    def asleep(self) -> int:
        """Bytes on the card while the engine sleeps."""
        return self.residue if self.sleeps else self.awake


def footprint(model: Model, checkpoint: Checkpoint, kind: Kind, gpus: int = 1) -> Footprint:
    """The footprint of one replica.

    Args:
        model: its settings.
        checkpoint: its weights.
        kind: the kind of card that it runs on.
        gpus: how many GPUs form the card. Each of them has an equal part of the bytes.
    """
    if isinstance(model, LlamaCppModel):
        return _llamacpp(model, checkpoint, kind)
    if isinstance(model, VllmModel):
        return _vllm(model, checkpoint, kind, gpus)
    return Footprint(checkpoint.weight_bytes, 0, model.concurrency, 0, 0)


def kv_cache_tokens(model: Model) -> int:
    """Tokens that the model's KV cache has room for."""
    asked = model.kv_tokens if isinstance(model, VllmModel) else None
    return asked or model.context_tokens * model.concurrency


def kv_bytes(checkpoint: Checkpoint, tokens: int, window_slack: int, value_bytes: int) -> int:
    """Bytes that one sequence takes in the KV cache.

    A layer with a sliding window caches only the tokens of the window and of the step in progress
    (vllm/v1/kv_cache_interface.py: SlidingWindowSpec.max_memory_usage_bytes).

    Args:
        checkpoint: the model's layers and their dimensions.
        tokens: length of the sequence.
        window_slack: tokens that a layer with a window caches beside the window.
        value_bytes: bytes of one value in the cache.
    """
    total = 0
    for kind in checkpoint.attention:
        kept = min(tokens, kind.window_tokens + window_slack) if kind.window_tokens else tokens
        total += kind.layers * kept * kind.token_bytes(value_bytes)
    return total


def _vllm(model: VllmModel, checkpoint: Checkpoint, kind: Kind, gpus: int) -> Footprint:
    values = 1 if model.kv_cache_dtype == "fp8" else 4 if model.dtype == "float32" else 2
    padded = _padded(checkpoint)
    # On a CPU, vLLM never splits a prompt over several steps: see `actors/engines/vllm_arguments.py`.
    batch = model.batch_tokens if kind == "gpu" else max(model.batch_tokens, model.context_tokens)
    sequence = kv_bytes(padded, model.context_tokens, batch, values)
    kv_tokens = max(kv_cache_tokens(model), model.context_tokens)
    slack = kv_bytes(padded, BLOCK_SLACK_TOKENS, batch, values)
    width = 3 * checkpoint.ffn * checkpoint.experts_used + 3 * checkpoint.hidden
    step = STEP_FACTOR * batch * width * 2
    sampler = model.concurrency * checkpoint.vocab * SAMPLER_BYTES
    graphs = 0 if model.eager else checkpoint.layers * GRAPHS_PER_LAYER
    runtime = CUDA_CONTEXT + graphs + (TENSOR_PARALLEL_BUFFERS if gpus > 1 else 0)
    # vLLM never cuts a head of keys and values. With more GPUs than such heads, each head has copies.
    copies = max(1, gpus // (checkpoint.kv_heads or gpus))
    return Footprint(
        weights=checkpoint.weight_bytes + (checkpoint.padding_bytes if kind == "gpu" else 0),
        kv=copies * (sequence * kv_tokens // model.context_tokens + slack),
        sequences=model.concurrency,
        activations=gpus * (int(step) + sampler),
        residue=gpus * runtime if kind == "gpu" else CPU_RUNTIME,
        parked=checkpoint.weight_bytes if kind == "gpu" else 0,
        sleeps=kind == "gpu",
    )


def _padded(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with as many layers as vLLM's cache makes room for.

    vLLM groups the layers with a window, and the layers without, in groups of one size. It pads the
    last group of each kind.
    """
    size = min((kind.layers for kind in checkpoint.attention), default=1)
    kinds = (replace(kind, layers=-(-kind.layers // size) * size) for kind in checkpoint.attention)
    return replace(checkpoint, attention=tuple(kinds))


def _llamacpp(model: LlamaCppModel, checkpoint: Checkpoint, kind: Kind) -> Footprint:
    """llama.cpp keeps keys and values in f16, and allocates the whole context of every sequence."""
    sequence = kv_bytes(checkpoint, model.context_tokens, model.context_tokens, 2)
    width = 3 * checkpoint.ffn + 8 * checkpoint.hidden
    logits = checkpoint.vocab * (model.prefill_tokens if kind == "gpu" else model.concurrency)
    return Footprint(
        weights=checkpoint.weight_bytes,
        kv=sequence * model.concurrency,
        sequences=model.concurrency,
        activations=(model.prefill_tokens * width + logits) * FLOAT + LLAMACPP_BASE,
        residue=CUDA_CONTEXT if kind == "gpu" else REPLICA,
    )


def gib(count: float) -> str:
    """A number of bytes as text: `1.5 GiB`, or `12 MiB` if it is less than a tenth of a GiB."""
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / MIB:.0f} MiB"
