"""How fast one engine starts, wakes and decodes on one card: arithmetic with published constants. Pure.

Each constant names its source. `tests/unit/cluster/plan/published_speeds.py` has the measurements that
the constants were fitted to, and others that they were not fitted to. `predict.py` adds the speeds up.
"""

from dataclasses import replace

from cluster.cards.card import CPU_BANDWIDTH, Card
from cluster.plan.checkpoint import Checkpoint
from cluster.plan.llamacpp_memory import gpu_share
from configs.schema import LlamaCppModel, Model, VllmModel

READS = 0.85
"""Share of a GPU's nominal memory bandwidth that the kernels of a decoding step reach. This and the
next three constants were fitted to 46 published measurements of vLLM 0.7.2 with one sequence: models of
1.5B to 70B in 16, 8 and 4 bits on the RTX A6000, A100 and H100 (Red Hat's model cards)."""
LAYER_S = 70e-6
"""Seconds per layer and step in which kernels start and end and read no weights, with CUDA graphs."""
STEP_S = 0.5e-3
"""Seconds per step for the sampler, the scheduler and the tokenizer."""
UNPACKED = 1.4e12
"""Bytes per second of weights of fewer than 8 bits that one GPU of `UNPACKS_SLOWLY` unpacks, at most.
An A100 and an H100 read 16-bit weights faster than that. In 4 bits, a 70B model writes 29.0 tokens/s on
the one and 32.8 on the other, which has 1.6 times the bandwidth."""
UNPACKS_SLOWLY = ("8.0", "9.0")
"""Compute capabilities of the GPUs that `UNPACKED` was fitted to. GPUs of less bandwidth do not reach
the limit, and of Blackwell no measurement of a large model in 4 bits was found."""
READS_CPU = 0.6
"""The share of a CPU's bandwidth. `cards.card.CPU_BANDWIDTH` was fitted together with it."""
OPERATIONS = 0.5
"""Share of the nominal operations per second that the prefill of large batches reaches, a usual value
for dense models in bf16."""
DISK = 1.5e9
"""Bytes of weights per second that an engine loads from an SSD into a card. vLLM 0.10 loaded models of
6 to 28 GB at 1.7 to 1.9 GB/s on an A100 (arXiv 2606.07362), and 23.4 GB in 18 s on an RTX 5090
(vllm#44881). Files that the page cache still holds load faster."""
VLLM_START_S = 21.0
"""Seconds of a start of vLLM beside loading, compilation and graphs: processes, imports, the model's
classes, a trial step. In arXiv 2606.07362 (A100, vLLM 0.10.1, eleven models) they are 20 to 23."""
VLLM_LAYER_S = 0.53
"""Seconds per layer in which vLLM reads back the compiled model and captures CUDA graphs: 12.8 s for 24
layers, 17.2 s for 32 and 21.1 to 23.5 s for 40 and 48 in the same measurements. The very first start
on a machine also compiles, which takes about one more second per layer."""
LLAMACPP_START_S = 2.0
"""Seconds of a start of llama.cpp beside reading the weights, as an estimate: its tokenizer, the
allocation of its KV cache, a trial step."""
STOP_S = 5.0
"""Seconds until a stopped engine has ended, as an estimate. vLLM gives its processes 5 s to end by
themselves (vllm/v1/utils.py: shutdown)."""
LINK = 0.75
"""Share of PCIe's nominal rate at which the weights of a waking model are copied. With `WAKE_S` it
gives 2.9 s for 61 GB on an A100 (measured: 2.87, vLLM's blog of 2025-10-26), 3.2 s for 64 GiB ("about
3 s", llm-d's fast-model-actuation), and 1.4 s for 46.35 GiB over PCIe 5 (1.46, OpenRLHF#1065)."""
WAKE_S = 0.3
"""Seconds of a wake beside the copy. Models of 1.5 GB woke in 0.10 to 0.28 s (the same blog)."""
JOINED_LINKS = 2
"""A joined card copies at most as fast as so many of its GPUs, because their links share the host's
RAM: 237 GB onto four A100s took 5.3 to 5.7 s (the same blog), the rate of 1.9 links."""


def start_s(model: Model, checkpoint: Checkpoint, card: Card) -> float:
    """Seconds until a stopped engine serves again: processes, weights from disk, compiled graphs.

    This is a start after an earlier one on the same machine, so vLLM finds its compiled model on the
    disk. A model that takes no card starts at once.

    Args:
        model: its settings. An eager model has no graphs, and no model has any on a CPU.
        checkpoint: its weights.
        card: the card that it starts on. All GPUs of a joined card read from one disk.
    """
    loading_s = checkpoint.weight_bytes / DISK
    if isinstance(model, VllmModel):
        has_graphs = card.kind == "gpu" and not model.eager
        return VLLM_START_S + has_graphs * VLLM_LAYER_S * checkpoint.layers + loading_s
    if isinstance(model, LlamaCppModel):
        return LLAMACPP_START_S + loading_s
    return 0.0


def wake_s(weight_bytes: int, card: Card) -> float:
    """Seconds until a sleeping model is awake on a GPU. Falling asleep takes about as long.

    A model's first sleep takes longer, because the host's memory is pinned then: 33.4 GiB in 8.0 s
    (ik_llama.cpp#1517).
    """
    gpus = len(card.indices)
    link = (card.link or DISK) * min(gpus, JOINED_LINKS) / gpus
    return WAKE_S + weight_bytes / (LINK * link)


def as_engine_reads(model: Model, checkpoint: Checkpoint, card: Card) -> Card:
    """The card as fast as the engine of a model can use it.

    llama.cpp puts whole layers on each of several GPUs, which work one after the other, so they are as
    fast as one of them. Layers that stay in RAM are read from there.
    """
    if not isinstance(model, LlamaCppModel) or card.kind == "cpu" or not card.bandwidth:
        return card
    gpus, share = len(card.indices), gpu_share(model, checkpoint)
    bandwidth = 1 / (share / (card.bandwidth / gpus) + (1 - share) / CPU_BANDWIDTH)
    return replace(card, bandwidth=bandwidth, flops=card.flops and card.flops / gpus)


def decode_rate(checkpoint: Checkpoint, card: Card, sequences: int, cache_bytes: float) -> float:
    """Tokens per second that `sequences` write together while they decode.

    A step takes the time of its reads or of its operations, whichever is longer, and on a GPU the time
    between kernels. This is for vLLM with CUDA graphs and without speculative decoding; an eager model
    is slower by up to half.

    Args:
        checkpoint: the model's weights.
        card: the card; its bandwidth and operations must be known.
        sequences: how many sequences decode at a time.
        cache_bytes: bytes of the KV cache and of states that a step reads and writes for all of them.
    """
    assert card.bandwidth is not None
    assert card.flops is not None
    compute_s = 2 * checkpoint.active_parameters * sequences / (OPERATIONS * card.flops)
    read_bytes = checkpoint.read_bytes(sequences)
    if card.kind == "cpu":
        memory_s = (read_bytes + cache_bytes) / (READS_CPU * card.bandwidth)
        return sequences / max(memory_s, compute_s)
    memory_s = read_bytes / _weights_rate(checkpoint, card) + cache_bytes / (READS * card.bandwidth)
    return sequences / (STEP_S + LAYER_S * checkpoint.layers + max(memory_s, compute_s))


def _weights_rate(checkpoint: Checkpoint, card: Card) -> float:
    """Bytes of weights per second that a decoding step reads from a GPU's memory."""
    assert card.bandwidth is not None
    rate = READS * card.bandwidth
    if checkpoint.bits < 8 and card.capability in UNPACKS_SLOWLY:
        return min(rate, UNPACKED * len(card.indices))
    return rate
