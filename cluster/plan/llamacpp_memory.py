"""The bytes of llama.cpp's weights and caches, and how it divides them between GPUs and RAM. Pure.

llama.cpp keeps a cache of its own for each layer, on the device of the layer. `gpu_layers` counts
positions from the end: first the output layer, then the last layer and so on back to the first. The
input embeddings stay in RAM. Over several GPUs the positions are divided into equal runs
(`load_tensors` in src/llama-model.cpp of github.com/ggml-org/llama.cpp, split mode "layer").

`tests/e2e/test_llamacpp_memory.py` compares weights and caches of a real model on a CPU with those that
llama.cpp prints. Windows, states and the division between devices follow its source alone.
"""

from dataclasses import dataclass

from cluster.plan.checkpoint_facts import Checkpoint, GgufBlock, GgufLayout
from configs.llamacpp import KvTypes
from configs.schema import LlamaCppModel

BLOCKS = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}
"""By number type, the values of a block and its bytes with its scales (ggml/src/ggml-common.h)."""
CELLS = 256
"""The cells of a cache are a multiple of this number (src/llama-context.cpp, n_ctx_seq, and
src/llama-kv-cache-iswa.cpp, size_swa)."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a model on one device."""

    weights: int
    kv: int
    """KV cache, and states of layers that keep a state."""


@dataclass(frozen=True, slots=True)
class Division:
    """The bytes of a model on the GPUs of a card, and in RAM."""

    gpus: tuple[Part, ...]
    """One part per GPU; none on a CPU."""
    ram: Part


def batch_tokens(model: LlamaCppModel) -> int:
    """Most tokens of one step (`n_batch`).

    llama.cpp ends the whole process if a step has no room for a token of each sequence and for those
    that are guessed.
    """
    return max(model.prefill_tokens, model.concurrency * output_tokens(model))


def output_tokens(model: LlamaCppModel) -> int:
    """Tokens of one sequence that a step may score: those that are guessed, and one more."""
    return 1 + (model.speculation.tokens if model.speculation is not None else 0)


def divide(model: LlamaCppModel, checkpoint: Checkpoint, gpus: int) -> Division:
    """How llama.cpp divides weights and caches.

    Args:
        model: the model's settings. Its draft model does not count here.
        checkpoint: its weights.
        gpus: over how many GPUs; 0 on a CPU.
    """
    layout = checkpoint.gguf or _even_layout(checkpoint)
    caches = [_cache_bytes(model, block) for block in layout.blocks]
    if model.flash_attention == "off":  # values are stored in the other order, as wide as the widest
        widest = max((block.values for block in layout.blocks), default=0)
        caches = [_cache_bytes(model, block, widest) for block in layout.blocks]
    positions = [Part(b.weight_bytes, kv) for b, kv in zip(layout.blocks, caches, strict=True)]
    on_gpus = gpu_positions(model, len(layout.blocks)) if gpus else 0
    positions.append(Part(layout.output_bytes + (layout.tied_bytes if on_gpus else 0), 0))
    first = len(positions) - on_gpus
    runs: list[list[Part]] = [[] for _ in range(gpus)]
    for n, part in enumerate(positions[first:]):
        runs[n * gpus // on_gpus].append(part)
    ram = _sum(positions[:first])
    return Division(tuple(_sum(run) for run in runs), Part(ram.weights + layout.input_bytes, ram.kv))


def gpu_positions(model: LlamaCppModel, layers: int) -> int:
    """How many positions go to GPUs: the output layer, and then layers from the last one on."""
    return layers + 1 if isinstance(model.gpu_layers, str) else min(model.gpu_layers, layers + 1)


def gpu_share(model: LlamaCppModel, checkpoint: Checkpoint) -> float:
    """Share of the weights that a step reads from GPUs, from 0 to 1, if the card is a GPU."""
    division = divide(model, checkpoint, 1)
    on_gpu = division.gpus[0].weights
    in_ram = division.ram.weights - (checkpoint.gguf or _even_layout(checkpoint)).input_bytes
    return on_gpu / max(1, on_gpu + in_ram)


def _cache_bytes(model: LlamaCppModel, block: GgufBlock, values: int | None = None) -> int:
    """Bytes of the cache of one layer, for all sequences."""
    cells = _up(model.context_tokens, CELLS)
    if block.window_tokens:
        cells = min(cells, _up(block.window_tokens + batch_tokens(model), CELLS))
    types: KvTypes = model.kv_cache_type
    wide = values if values is not None and block.values else block.values
    token = row_bytes(block.keys, types.k) + row_bytes(wide, types.v)
    # Guesses that turn out wrong are taken back: a state is kept for each of them (n_rs_seq).
    state = block.state_bytes * output_tokens(model)
    return model.concurrency * (cells * token + state)


def sequence_bytes(model: LlamaCppModel, checkpoint: Checkpoint, tokens: int) -> int:
    """Bytes of the keys and values of one sequence that has so many tokens, in the recipe's types.

    They are fewer than `divide` counts, because that has room for the whole context.
    """
    types: KvTypes = model.kv_cache_type
    return sum(
        (min(tokens, block.window_tokens) if block.window_tokens else tokens)
        * (row_bytes(block.keys, types.k) + row_bytes(block.values, types.v))
        for block in (checkpoint.gguf or _even_layout(checkpoint)).blocks
    )


def row_bytes(values: int, kind: str) -> int:
    """Bytes of that many values in a number type of ggml."""
    block, size = BLOCKS[kind]
    return _up(values, block) // block * size


def _even_layout(checkpoint: Checkpoint) -> GgufLayout:
    """The layout of a checkpoint of which only the shape is known: all layers have equal weights."""
    kinds = [(a.kv_width, a.window_tokens) for a in checkpoint.attention for _ in range(a.layers)]
    kinds += [(0, 0)] * (checkpoint.layers - len(kinds))
    each = (checkpoint.weight_bytes - checkpoint.lookup_bytes) // max(1, len(kinds))
    rest = checkpoint.weight_bytes - checkpoint.lookup_bytes - each * len(kinds)
    stateful = max(1, checkpoint.state_layers)
    blocks = tuple(
        GgufBlock(
            weight_bytes=each + (rest if n == 0 else 0),
            keys=width - width // 2,
            values=width // 2,
            window_tokens=window,
            state_bytes=checkpoint.state_bytes // stateful if len(kinds) - n <= stateful else 0,
        )
        for n, (width, window) in enumerate(kinds)
    )
    return GgufLayout(checkpoint.lookup_bytes, 0, blocks)


def _sum(parts: list[Part]) -> Part:
    return Part(sum(part.weights for part in parts), sum(part.kv for part in parts))


def _up(count: int, step: int) -> int:
    return -(-count // step) * step


def with_draft(division: Division, draft: Division) -> Division:
    """Both models on the same devices."""
    gpus = zip(division.gpus, draft.gpus, strict=True)
    return Division(tuple(_sum([*pair]) for pair in gpus), _sum([division.ram, draft.ram]))
