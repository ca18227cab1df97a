"""Pure: (model, checkpoint, kind of card) -> the bytes that one engine needs.

Each constant names where it comes from. None was measured by us on a GPU yet; `gpu_check` does that.
"""

from dataclasses import dataclass, replace

from cluster.cards.card import GIB, MIB, Kind
from cluster.plan.checkpoint import Checkpoint
from configs.schema import LlamaCppModel, Model, VllmModel

# CUDA context, cuBLAS workspaces and compiled kernels of one process, which stay when it sleeps.
# nvidia-smi shows about 0.5 GiB for a bare context, and vLLM's start-up log 0.16 to 0.33 GiB of
# "non_torch_memory" on top (vllm#12126, vllm#14452). An engine asleep was seen to hold 1.1 GB in
# all (vllm#32714): this and the graphs of a small model.
CUDA_CONTEXT = 768 * MIB
# On each GPU that a model is split over: NCCL's buffers and vLLM's own, for sums over GPUs. Llama-3-8B
# on two GPUs of 80 GB instead of one showed 1.8 GiB more of "non_torch_memory" on each, half the
# weights and as many activations (vllm#10511); GPUs of 24 GB showed 0.2 GiB in all (vllm#14447).
SUMS = GIB
# vLLM: "Estimated CUDA graph memory: 0.36 GiB" for 16 sizes (gpustack/runner#251), 0.11 to 0.17 GiB
# for small models. They stay on the card during sleep unless offloaded (facts.md A2).
GRAPHS_PER_LAYER = 8 * MIB
# "PyTorch activation peak memory 1.26GiB" for Llama-3-8B at 8,192 tokens a step (vllm#10511) is 1.5
# times the gate, up and down inputs and three hidden states of 16 bits.
STEP_FACTOR = 1.5
# The sampler keeps fp32 logits, a sorted copy, its int64 indices and probabilities per sequence
# (vllm/v1/sample/ops/topk_topp_sampler.py).
SAMPLER_BYTES = 4 + 4 + 8 + 4
# vLLM on a CPU: 740 MB of the replica and 1,220 MB of the engine's process with a model of 0.27 GB
# (facts.md A4).
CPU_RUNTIME = 1740 * MIB
# A Serve replica is a Python process with Ray in it: 940 MB for five (facts.md B11).
REPLICA = 192 * MIB
# llama.cpp's compute buffer holds fp32 activations and logits of one micro-batch ("CUDA0 compute
# buffer size = 258.50 MiB" for 512 tokens of Llama 3's vocabulary); in RAM the logits of tokens that
# are not sampled are never touched. The rest is its tokenizer, graph and HTTP loop.
LLAMACPP_BASE = 64 * MIB
FLOAT = 4
# vLLM keeps one block of its cache empty and rounds each sequence up to blocks, which have 16 to 128
# tokens (vllm/v1/core/block_pool.py; 128 on a CPU).
BLOCK_SLACK_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of one engine.

    weights: as stored; kv: its KV cache; sequences: how many it runs at a time; activations: what a
    step needs beside them; residue: what stays on the card while the engine sleeps; parked: host RAM
    that it then takes; sleeps: whether sleep gives anything back (vLLM on a CPU cannot).
    """

    weights: int
    kv: int
    sequences: int
    activations: int
    residue: int
    parked: int = 0
    sleeps: bool = True

    @property
    def awake(self) -> int:
        """All of it, while it serves."""
        return self.weights + self.kv + self.activations + self.residue

    @property
    def asleep(self) -> int:
        """What is left on the card while it sleeps."""
        return self.residue if self.sleeps else self.awake


def footprint(model: Model, checkpoint: Checkpoint, kind: Kind, gpus: int = 1) -> Footprint:
    """The footprint of one replica of `model` on a card of that kind, made of so many GPUs: the sum
    over all of them, which have equal parts of it."""
    if isinstance(model, LlamaCppModel):
        return _llamacpp(model, checkpoint, kind)
    if isinstance(model, VllmModel):
        return _vllm(model, checkpoint, kind, gpus)
    return Footprint(checkpoint.weight_bytes, 0, model.concurrency, 0, 0)


def kv_tokens_of(model: Model) -> int:
    """Tokens that the model's KV cache is to hold."""
    asked = model.kv_tokens if isinstance(model, VllmModel) else None
    return asked or model.context_tokens * model.concurrency


def kv_bytes(checkpoint: Checkpoint, tokens: int, window_slack: int, value_bytes: int) -> int:
    """KV cache of one sequence. Layers with a window keep the window and the step under way
    (vllm/v1/kv_cache_interface.py: SlidingWindowSpec.max_memory_usage_bytes)."""
    short = min(tokens, checkpoint.window_tokens + window_slack)
    full_layers = checkpoint.layers - checkpoint.window_layers
    rows = full_layers * tokens + checkpoint.window_layers * short
    return rows * checkpoint.kv_width * value_bytes


def _vllm(model: VllmModel, checkpoint: Checkpoint, kind: Kind, gpus: int) -> Footprint:
    values = 1 if model.kv_cache_dtype == "fp8" else 4 if model.dtype == "float32" else 2
    padded = _padded(checkpoint)
    # On a CPU a prompt is never cut: the engine's step is at least a whole context (vllm_arguments).
    batch = model.batch_tokens if kind == "gpu" else max(model.batch_tokens, model.context_tokens)
    sequence = kv_bytes(padded, model.context_tokens, batch, values)
    kv_tokens = max(kv_tokens_of(model), model.context_tokens)
    slack = kv_bytes(padded, BLOCK_SLACK_TOKENS, batch, values)
    width = 3 * checkpoint.ffn * checkpoint.experts_used + 3 * checkpoint.hidden
    step = STEP_FACTOR * batch * width * 2
    sampler = model.concurrency * checkpoint.vocab * SAMPLER_BYTES
    graphs = 0 if model.eager else checkpoint.layers * GRAPHS_PER_LAYER
    left = CUDA_CONTEXT + graphs + (SUMS if gpus > 1 else 0)
    # A head of keys and values is never cut: where there are fewer than GPUs, several hold the same.
    copies = max(1, gpus // (checkpoint.kv_heads or gpus))
    return Footprint(
        weights=checkpoint.weight_bytes,
        kv=copies * (sequence * kv_tokens // model.context_tokens + slack),
        sequences=model.concurrency,
        activations=gpus * (int(step) + sampler),
        residue=gpus * left if kind == "gpu" else CPU_RUNTIME,
        parked=checkpoint.weight_bytes if kind == "gpu" else 0,
        sleeps=kind == "gpu",
    )


def _padded(checkpoint: Checkpoint) -> Checkpoint:
    """vLLM caches layers with and without a window in groups of one size, and pads the last."""
    full, windowed = checkpoint.layers - checkpoint.window_layers, checkpoint.window_layers
    if not full or not windowed:
        return checkpoint
    size = min(full, windowed)
    full, windowed = (-(-count // size) * size for count in (full, windowed))
    return replace(checkpoint, layers=full + windowed, window_layers=windowed)


def _llamacpp(model: LlamaCppModel, checkpoint: Checkpoint, kind: Kind) -> Footprint:
    """KV in f16 (llama.cpp's default types); the whole context of every sequence is allocated."""
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
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / MIB:.0f} MiB"
