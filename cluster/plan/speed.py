"""How fast one engine starts, wakes and decodes on one card: arithmetic with published constants. Pure.

Each constant names its source. `tests/unit/cluster/plan/published_speeds.py` has the measurements that
the constants were fitted to, and others that they were not fitted to. `predict.py` adds the speeds up.
"""

from cluster.cards.card import Card
from cluster.plan.checkpoint import Checkpoint
from configs.schema import LlamaCppModel, Model, VllmModel

READS = 0.6
"""Share of the nominal memory bandwidth that decoding reaches with 16-bit weights. Qwen2.5's speed
benchmark (A100-80GB, vLLM, one sequence) has 84.28 tokens/s for 7B and 46.30 for 14B: 0.58 and 0.64."""
READS_QUANTIZED = 0.35
"""The same share with quantized weights on a GPU, from the same benchmark: 148.10 tokens/s for 7B and
92.66 for 14B in AWQ are 0.33 and 0.38; 16.47 for 72B in GPTQ is 0.32."""
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
        model: its settings; an eager model has no graphs.
        checkpoint: its weights.
        card: the card that it starts on. All GPUs of a joined card read from one disk.
    """
    loading_s = checkpoint.weight_bytes / DISK
    if isinstance(model, VllmModel):
        graphs_s = 0.0 if model.eager else VLLM_LAYER_S * checkpoint.layers
        return VLLM_START_S + graphs_s + loading_s
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


def decode_rate(checkpoint: Checkpoint, card: Card, sequences: int, cache_bytes: float) -> float:
    """Tokens per second that `sequences` write together while they decode.

    Args:
        checkpoint: the model's weights.
        card: the card; its bandwidth and operations must be known.
        sequences: how many sequences decode at a time.
        cache_bytes: bytes of the KV cache that all of them fill together.
    """
    assert card.bandwidth is not None
    assert card.flops is not None
    reads = READS_QUANTIZED if checkpoint.is_quantized and card.kind == "gpu" else READS
    memory_s = checkpoint.read_bytes(sequences) / (reads * card.bandwidth)
    memory_s += cache_bytes / (READS * card.bandwidth)
    compute_s = 2 * checkpoint.active_parameters * sequences / (OPERATIONS * card.flops)
    return sequences / max(memory_s, compute_s)
