"""How much memory one engine needs, in bytes: for weights, KV cache and runtime. Pure.

Each constant names its source. The constants for GPUs come from published logs and not from
measurements of this project; `benchmarks/real_cards/gpu_check.py` compares them with a real card.
"""

from collections import Counter
from dataclasses import dataclass, replace

from cluster.cards.card import GIB, MIB, Kind
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.kv_cache import (
    KERNEL_BLOCKS,
    STATE_BLOCK_TOKENS,
    KvNeeds,
    kv_pool_bytes,
)
from cluster.plan.llamacpp_memory import batch_tokens, divide, output_tokens, with_draft
from cluster.plan.loading import loading_bytes
from cluster.plan.pinned import on_one_gpu, pinned_bytes, segment_bytes
from cluster.plan.tensors import held_tensors
from cluster.plan.vllm_extras import cached_layers, guessed_tokens
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
LLAMACPP_COPIES = 4
"""With several GPUs, llama.cpp keeps up to this many copies of a step's inputs, so that the GPUs work
on different steps (GGML_SCHED_MAX_COPIES). As an estimate, all bytes of a step count so often."""
FLOAT = 4
"""Bytes of a 32-bit float."""
LORA_SLICES = 3
"""Parts of the matrix that has most of them, queries, keys and values: so many results of the first
matrices of adapters are held at a time, in 32 bits (vllm/lora/punica_wrapper)."""
PROCESSES = 5 * GIB
"""Bytes of host RAM of a vLLM engine's processes on each of its GPUs, awake or asleep: the replica, and
the process with the model. A fresh replica's tree of processes was seen at 5 to 6 GB
(ls1intum/edutelligence#1061)."""
MACHETE = ("9.0", None)
"""Compute capabilities for which vLLM prefers the kernel Machete, and None, because an unknown card may
have that capability (vllm/model_executor/kernels/linear/__init__.py, _POSSIBLE_KERNELS)."""
STEPS_IN_FLIGHT: dict[Kind, int] = {"gpu": 2, "cpu": 1}
"""Steps that vLLM has begun and not ended: with async scheduling it prepares the next step while one
runs (vllm/config/vllm.py, max_concurrent_batches)."""
FP8 = "fp8"
"""How the number types of KV caches with 8 bits begin in vLLM's words."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory that one engine needs, in bytes, over all GPUs of its card."""

    weights: int
    """The weights as the engine holds them, which can be more than is stored."""
    kv: int
    """The KV cache."""
    sequences: int
    """How many sequences run at a time. This is a count, not bytes."""
    activations: int
    """What a step needs beside weights and cache."""
    residue: int
    """What stays on the card while the engine sleeps."""
    loading: int = 0
    """Bytes on the card at most while the engine starts, before it has a KV cache."""
    parked: int = 0
    """What the engine takes of the host's RAM while it sleeps, its processes included."""
    processes: int = 0
    """What the engine's processes take of the host's RAM, awake or asleep."""
    sleeps: bool = True
    """Whether sleeping frees memory of the card. vLLM on a CPU frees none."""

    @property
    def awake(self) -> int:
        """Bytes on the card while the engine is awake."""
        return self.weights + self.kv + self.activations + self.residue

    @property
    def peak(self) -> int:
        """Bytes on the card at most: while the engine starts, or while it is awake."""
        return max(self.awake, self.loading)

    @property
    def asleep(self) -> int:
        """Bytes on the card while the engine sleeps."""
        return self.residue if self.sleeps else self.awake


def footprint(
    model: Model, checkpoint: Checkpoint, kind: Kind, gpus: int = 1, capability: str | None = None
) -> Footprint:
    """The footprint of one replica.

    Args:
        model: its settings.
        checkpoint: its weights.
        kind: the kind of card that it runs on.
        gpus: how many GPUs form the card. Each of them has an equal part of the bytes.
        capability: CUDA's compute capability of the card, or None if it is not known.
    """
    if isinstance(model, LlamaCppModel):
        return _llamacpp(model, checkpoint, kind, gpus)
    if isinstance(model, VllmModel):
        return _vllm(model, checkpoint, kind, gpus, capability)
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


def _vllm(
    model: VllmModel, checkpoint: Checkpoint, kind: Kind, gpus: int, capability: str | None
) -> Footprint:
    checked = model.concurrency * (1 + guessed_tokens(model))
    batch = max(model.batch_tokens, checked)
    if kind == "cpu":  # vLLM never splits a prompt over several steps there: `vllm_arguments.py`
        batch = max(batch, model.context_tokens)
    width = 3 * checkpoint.ffn * checkpoint.experts_used + 3 * checkpoint.hidden
    step = STEP_FACTOR * batch * width * 2
    sampler = checked * checkpoint.vocab * SAMPLER_BYTES
    lora, draft = checkpoint.lora and checkpoint.lora.on(kind), checkpoint.draft
    if lora is not None:
        step += batch * lora.rank * LORA_SLICES * FLOAT
    on_cpu = Footprint(
        weights=checkpoint.weight_bytes
        + (draft.weight_bytes if draft is not None else 0)
        + (lora.reserved_bytes + lora.stored_bytes if lora is not None else 0),
        kv=_vllm_kv(model, checkpoint, kind, gpus, batch),
        sequences=model.concurrency,
        activations=gpus * (int(step) + sampler),
        residue=CPU_RUNTIME,
        sleeps=False,
    )
    return on_cpu if kind == "cpu" else _vllm_on_gpu(on_cpu, model, checkpoint, gpus, capability)


def _vllm_on_gpu(
    on_cpu: Footprint, model: VllmModel, checkpoint: Checkpoint, gpus: int, capability: str | None
) -> Footprint:
    """The footprint on a GPU, where weights can grow, graphs are captured and engines sleep."""
    graphs = 0 if model.eager else checkpoint.layers * GRAPHS_PER_LAYER
    context = CUDA_CONTEXT + (TENSOR_PARALLEL_BUFFERS if gpus > 1 else 0)
    is_machete = capability in MACHETE
    held = on_one_gpu(held_tensors(checkpoint, is_machete), gpus)
    beside: Counter[int] = Counter()
    if checkpoint.draft is not None:
        beside += on_one_gpu(held_tensors(checkpoint.draft, is_machete), gpus)
    if checkpoint.lora is not None:
        beside += checkpoint.lora.tensors(gpus)
    in_ram = PROCESSES + (checkpoint.lora.stored_bytes if checkpoint.lora is not None else 0)
    held = held + beside
    loading = loading_bytes(
        checkpoint, gpus, is_machete, quantized_at_load=model.quantization is not None
    )
    return replace(
        on_cpu,
        weights=gpus * segment_bytes(held),
        residue=gpus * (context + graphs),
        loading=gpus * (loading + segment_bytes(beside) + context),
        parked=gpus * (pinned_bytes(held) + in_ram),
        processes=gpus * in_ram,
        sleeps=True,
    )


def _vllm_kv(model: VllmModel, checkpoint: Checkpoint, kind: Kind, gpus: int, batch: int) -> int:
    """Bytes of the KV cache on all GPUs together."""
    # vLLM never cuts a head of keys and values. With more GPUs than such heads, each head has copies.
    copies = max(1, gpus // (checkpoint.kv_heads or gpus))
    one_gpu = replace(
        checkpoint,
        attention=tuple(
            replace(each, kv_width=-(-each.kv_width * copies // gpus))
            for each in cached_layers(model, checkpoint)
        ),
        state_bytes=-(-checkpoint.state_bytes // gpus),
    )
    needs = KvNeeds(
        context_tokens=model.context_tokens,
        kv_tokens=kv_cache_tokens(model),
        sequences=model.concurrency,
        in_flight_tokens=STEPS_IN_FLIGHT[kind] * batch,
        value_bytes=value_bytes(model, checkpoint, kind),
        block_tokens=_block_tokens(checkpoint, kind),
    )
    # vLLM refuses a cache without room for one whole context, whichever blocks its kernels want.
    one = replace(needs, kv_tokens=model.context_tokens, sequences=1)
    least = max(
        kv_pool_bytes(one_gpu, replace(one, block_tokens=tokens))
        for tokens in KERNEL_BLOCKS
        if tokens <= max(STATE_BLOCK_TOKENS, needs.block_tokens) or not checkpoint.state_bytes
    )
    return gpus * max(least, kv_pool_bytes(one_gpu, needs))


def _block_tokens(checkpoint: Checkpoint, kind: Kind) -> int:
    """Tokens of a block of the KV cache."""
    if kind == "cpu" or _is_latent(checkpoint):
        return KERNEL_BLOCKS[-1]
    return STATE_BLOCK_TOKENS if checkpoint.state_bytes else KERNEL_BLOCKS[0]


def _is_latent(checkpoint: Checkpoint) -> bool:
    """Whether the model may have latent attention. The cache of latent attention has one head."""
    return checkpoint.kv_heads == 1


def value_bytes(model: VllmModel, checkpoint: Checkpoint, kind: Kind) -> int:
    """Bytes of one value in vLLM's KV cache.

    On a GPU, `auto` means the type that the checkpoint asks for (vllm/utils/torch_utils.py,
    resolve_kv_cache_dtype_string).
    """
    asked = checkpoint.kv_dtype or "" if model.kv_cache_dtype == "auto" and kind == "gpu" else ""
    if model.kv_cache_dtype == FP8 or asked.startswith(FP8):
        return 1
    return 4 if model.dtype == "float32" else 2


def _llamacpp(model: LlamaCppModel, checkpoint: Checkpoint, kind: Kind, gpus: int) -> Footprint:
    """llama.cpp allocates the whole context of every sequence."""
    devices = gpus if kind == "gpu" else 0
    division = divide(model, checkpoint, devices)
    step = _llamacpp_step(model, checkpoint, kind)
    if (draft := model.draft_model) is not None and checkpoint.draft is not None:
        division = with_draft(division, divide(draft, checkpoint.draft, devices))
        step += _llamacpp_step(draft, checkpoint.draft, kind)
    ram = division.ram
    if kind == "cpu":
        return Footprint(ram.weights, ram.kv, model.concurrency, step, residue=REPLICA)
    # Each GPU of a card counts as if it had the largest part.
    part = max(division.gpus, key=lambda each: each.weights + each.kv)
    step *= LLAMACPP_COPIES if gpus > 1 else 1
    host = REPLICA + ram.weights + ram.kv
    return Footprint(
        weights=gpus * part.weights,
        kv=gpus * part.kv,
        sequences=model.concurrency,
        activations=gpus * step,
        residue=gpus * CUDA_CONTEXT,
        parked=host,
        processes=host,
    )


def _llamacpp_step(model: LlamaCppModel, checkpoint: Checkpoint, kind: Kind) -> int:
    """Bytes that a step of llama.cpp takes on each device, beside weights and caches."""
    batch = batch_tokens(model)
    width = 3 * checkpoint.ffn + 8 * checkpoint.hidden
    scored = batch if kind == "gpu" else model.concurrency * output_tokens(model)
    return (batch * width + checkpoint.vocab * scored) * FLOAT + LLAMACPP_BASE


def gib(count: float) -> str:
    """A number of bytes as text: `1.5 GiB`, or `12 MiB` if it is less than a tenth of a GiB."""
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / MIB:.0f} MiB"
