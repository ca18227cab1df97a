"""What each layer of a model keeps of the tokens before: all, a window, a state, or nothing. Pure.

Configurations on the Hub say so in many ways: with a word or a number for each layer, with the numbers
of some layers, or with a period. A word that is not known is an error and never a guess.
"""

from collections.abc import Sequence
from typing import Any, Literal

from cluster.plan.config_keys import MOST_LAYERS, BadConfig, Keys, bad

Kind = Literal[
    "full",
    "window",
    "chunk",
    "indexed",
    "compressed",
    "state",
    "conv",
    "full+state",
    "window+state",
    "none",
]
"""What a layer keeps: `full` keys and values of all tokens; `window` those of the latest tokens;
`chunk` those of a chunk; `indexed` those of all tokens, and keys of an indexer; `compressed` those of
all tokens, several in one; `state` a state of fixed size; `conv` the last inputs of a convolution;
`none` nothing."""

WORDS: dict[str, Kind] = {
    "full_attention": "full",
    "attention": "full",
    "global_attention": "full",
    "*": "full",
    "sliding_attention": "window",
    "local_attention": "window",
    "chunked_attention": "chunk",
    "indexed_attention": "indexed",
    "deepseek_sparse_attention": "indexed",
    "minimax_m3_sparse": "indexed",
    "compressed_sparse_attention": "compressed",
    "heavily_compressed_attention": "compressed",
    "linear_attention": "state",
    "mamba": "state",
    "mamba2": "state",
    "M": "state",
    "conv": "conv",
    "hybrid": "full+state",
    "hybrid_sliding": "window+state",
    "moe": "none",
    "mlp": "none",
    "E": "none",
    "-": "none",
}
"""What the words in `layer_types` and its relatives mean: those that transformers knows
(configuration_utils.py: ALLOWED_ATTN_LAYER_TYPES, _LEGACY_LAYER_TYPE_REMAP), and the letters of
`hybrid_override_pattern` (transformers/models/nemotron_h/configuration_nemotron_h.py)."""
NUMBERS: dict[str, dict[int, Kind]] = {
    "hybrid_layer_pattern": {0: "full", 1: "window"},  # MiMo-V2
    "attn_type_list": {0: "state", 1: "full"},  # MiniMax
    "compress_ratios": {0: "window", 4: "compressed", 128: "compressed"},  # DeepSeek-V4
}
"""Keys that hold a number for each layer, and what the numbers mean."""
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
"""Names of the number of layers."""
LISTS = ("layers_block_type", "layer_types", "hybrid_override_pattern")
"""Keys that hold a word for each layer."""
EVERYWHERE = frozenset({"ministral", "ministral3", "mistral", "mixtral", "phi3", "starcoder2"})
"""Families all of whose layers have the window that `sliding_window` tells, if no list says
otherwise."""
WINDOWS = ("sliding_window", "sliding_window_size", "attention_window_size")
"""Names of the number of tokens in a window."""


def count_layers(keys: Keys, nested: bool) -> int:
    """The number of layers.

    Args:
        keys: the language model's configuration.
        nested: whether it is a part of another. Only then its class may tell the number: transformers
            leaves out of a part what is as in its class, but not of a whole file.

    Raises:
        BadConfig: the number cannot be told.
    """
    name, words = keys.find(*LISTS)
    # Nemotron-3 Ultra tells the number of layers by this list alone.
    if words and not any(keys.values.get(name) is not None for name in LAYERS):
        return len(keys.items(name) or ())
    number = keys.number if nested else keys.own_number
    return number(*LAYERS, most=MOST_LAYERS)


def layer_kinds(keys: Keys, family: str, layers: int) -> list[Kind]:
    """What each of the layers keeps, as the configuration says.

    Args:
        keys: the language model's configuration.
        family: its `model_type`.
        layers: the number of layers.

    Raises:
        BadConfig: the kind of a layer cannot be told.
    """
    return _listed(keys, layers) or _chosen(keys, layers) or _periodic(keys, family, layers)


def _listed(keys: Keys, layers: int) -> list[Kind]:
    """The kinds by a list that has an item for each layer; empty if there is none."""
    for name in (*LISTS, *NUMBERS):
        items = keys.items(name)
        if items is None:
            continue
        if len(items) < layers:
            raise BadConfig(f"{name!r} has {len(items)} items for {layers} layers")
        meanings: dict[Any, Kind] = {**WORDS, **NUMBERS.get(name, {})}
        return [_meaning(name, item, meanings) for item in items[:layers]]
    sparse = keys.part("sparse_attention_config")
    frequency = sparse.numbers("sparse_attention_freq") if sparse else None
    if frequency is not None:
        if len(frequency) < layers:
            raise BadConfig(f"'sparse_attention_freq' has {len(frequency)} items for {layers} layers")
        return ["indexed" if item else "full" for item in frequency[:layers]]
    return []


def _meaning(name: str, item: Any, meanings: dict[Any, Kind]) -> Kind:
    if isinstance(item, bool) or not isinstance(item, int | str) or item not in meanings:
        known = ", ".join(str(word) for word in meanings if type(word) is type(item))
        raise bad(name, item, f"one of these for each layer: {known or 'words'}")
    return meanings[item]


def _chosen(keys: Keys, layers: int) -> list[Kind]:
    """The kinds by the numbers of some layers; empty if no key has such numbers."""
    linear = keys.part("linear_attn_config")
    full = linear.numbers("full_attn_layers") if linear else None
    if full is not None:  # Kimi counts layers from 1
        return ["full" if n + 1 in full else "state" for n in range(layers)]
    for name, other in (("attn_layer_indices", "state"), ("full_attn_idxs", "conv")):
        chosen = keys.numbers(name)
        if chosen is not None:
            return ["full" if n in chosen else _as_kind(other) for n in range(layers)]
    local = keys.numbers("local_layer_ids")
    if local is not None:  # Inkling
        return ["window" if n in local else "full" for n in range(layers)]
    hybrid = keys.numbers("hybrid_layer_ids")
    if hybrid is not None:  # Zamba 2
        return ["full+state" if n in hybrid else "state" for n in range(layers)]
    return []


def _as_kind(word: str) -> Kind:
    return "conv" if word == "conv" else "state"


def _periodic(keys: Keys, family: str, layers: int) -> list[Kind]:
    """The kinds by a period; all layers are of one kind if there is none."""
    if keys.has("attn_layer_period"):  # Jamba
        period, offset = (
            keys.number("attn_layer_period"),
            keys.number_or(0, "attn_layer_offset", least=0),
        )
        return ["full" if n % period == offset else "state" for n in range(layers)]
    if keys.has("attention_chunk_size") and keys.has("no_rope_layers", "no_rope_layer_interval"):
        return _rotary(keys, layers, "chunk", "full")  # Llama 4
    if keys.has("full_attention_interval"):  # Qwen3-Next, Qwen3.5
        return _every(keys.number("full_attention_interval"), layers, "state", "full")
    if not keys.has(*WINDOWS) or not keys.flag("use_sliding_window", default=True):
        return ["full"] * layers
    return _windows(keys, family, layers)


def _windows(keys: Keys, family: str, layers: int) -> list[Kind]:
    """Which layers have a window, in a model that has a window."""
    if keys.has("max_window_layers"):  # Qwen2, Qwen3
        first = keys.number("max_window_layers", least=0)
        return ["window" if n >= first else "full" for n in range(layers)]
    if keys.has("no_rope_layers", "no_rope_layer_interval"):  # SmolLM3
        return _rotary(keys, layers, "full", "window")
    name, pattern = keys.find(
        "sliding_window_pattern", "global_attn_every_n_layers", "_sliding_window_pattern"
    )
    if isinstance(pattern, str) and pattern and set(pattern) <= {"L", "G"}:  # EXAONE 4: "LLLG"
        kinds = _every(len(pattern), layers, "window", "full")
        return [*kinds[:-1], "full"]
    if pattern is not None:
        return _every(keys.number(name), layers, "window", "full")
    return ["window" if family in EVERYWHERE else "full"] * layers


def _rotary(keys: Keys, layers: int, rotary: Kind, others: Kind) -> list[Kind]:
    """The kinds by which layers have rotary embeddings; the key's name means the contrary of its
    values."""
    flags: Sequence[int] | None = keys.numbers("no_rope_layers")
    if not flags:
        every = keys.number("no_rope_layer_interval")
        flags = [int((n + 1) % every != 0) for n in range(layers)]
    if len(flags) < layers:
        raise BadConfig(f"'no_rope_layers' has {len(flags)} items for {layers} layers")
    return [rotary if flag else others for flag in flags[:layers]]


def _every(period: int, layers: int, most: Kind, last: Kind) -> list[Kind]:
    """Layers of the kind `most`, with each `period`-th of the kind `last`."""
    return [most if (n + 1) % period else last for n in range(layers)]
