"""The checkpoint that a GGUF file holds: its layers as llama.cpp keeps their caches. Pure.

llama.cpp keeps keys and values for each layer by that layer's own number of heads, and states in 32
bits (src/llama-kv-cache.cpp, src/llama-hparams.cpp of github.com/ggml-org/llama.cpp).
"""

from collections import Counter
from math import prod
from typing import Any

from cluster.plan.checkpoint_facts import Attention, Checkpoint, GgufBlock, GgufLayout
from cluster.plan.config_keys import MOST_LAYERS, BadConfig, Keys, bad, whole
from cluster.plan.gguf import Header
from cluster.plan.gguf_kind import why_no_text

PERIODS = {
    "gemma2": 2,
    "gpt-oss": 2,
    "cohere2": 4,
    "olmo2": 4,
    "exaone4": 4,
    "exaone-moe": 4,
    "afmoe": 4,
    "mellum": 4,
    "gemma3n": 5,
    "gemma3": 6,
    "plamo3": 8,
}
"""By family, a number n: of every n layers in a row, all but the last have a window. The files do not
tell, llama.cpp does (`set_swa_pattern` in src/models/*.cpp). All layers of other families count as
full."""
FLOAT = 4
"""Bytes of a value of a state."""
EMBEDDINGS = "token_embd.weight"
"""The input embeddings."""
OUTPUT = "output.weight"
"""The output layer. A file without this tensor uses the input embeddings."""
LOOKUPS = ("per_layer_token_embd.weight",)
"""Tables beside the input embeddings of which a token reads one row."""


def gguf_checkpoint(header: Header) -> Checkpoint:
    """The checkpoint that a file with this header holds.

    Raises:
        BadConfig: the header lacks a key that every language model has, or a value cannot be right.
    """
    if (why := why_no_text(header)) is not None:
        raise BadConfig(why)
    family = header.metadata.get("general.architecture")
    if not isinstance(family, str):
        raise bad("general.architecture", family, "the name of a family of models")
    keys = Keys({k.removeprefix(f"{family}."): v for k, v in header.metadata.items()})
    layers, hidden = keys.number("block_count", most=MOST_LAYERS), keys.number("embedding_length")
    heads = _each(keys, "attention.head_count", layers, default=0)
    size = keys.number_or(hidden // max(heads) if max(heads) else 1, "attention.key_length")
    sizes = {tensor.name: tensor.stored_bytes for tensor in header.tensors}
    lookups = sum(sizes.get(name, 0) for name in LOOKUPS)
    if OUTPUT in sizes:
        lookups += sizes.get(EMBEDDINGS, 0)
    experts = keys.number_or(0, "expert_count", least=0) or 1
    dense, routed = _parameters(header)
    caches = _caches(keys, family, heads, size)
    state = _state(keys, layers, hidden)
    has_state = _stateful(keys, family, layers) if state else [False] * layers
    return Checkpoint(
        weight_bytes=sum(sizes.values()),
        lookup_bytes=lookups,
        layers=layers,
        hidden=hidden,
        ffn=_widest(keys, layers),
        vocab=_vocabulary(keys, header),
        query_width=max(heads) * size or hidden,
        attention=_attention(caches),
        state_bytes=sum(has_state) * state,
        state_layers=sum(has_state),
        experts=experts,
        experts_used=_used(keys, experts),
        most_tokens=keys.number_or(0, "context_length", least=0),
        tensor_bytes=tuple(sizes.values()),
        dense_parameters=dense,
        expert_parameters=routed,
        gguf=_layout(header, caches, [state * each for each in has_state]),
    )


def _layout(header: Header, caches: list[tuple[int, int, int]], states: list[int]) -> GgufLayout:
    """Where the bytes of the file are."""
    layers = [0] * len(caches)
    tables = output = embeddings = 0
    has_output = False
    for tensor in header.tensors:
        kind, _, rest = tensor.name.partition(".")
        number = rest.partition(".")[0]
        if kind == "blk" and number.isdecimal() and int(number) < len(layers):
            layers[int(number)] += tensor.stored_bytes
        elif tensor.name in (EMBEDDINGS, *LOOKUPS):
            tables += tensor.stored_bytes
            embeddings += tensor.stored_bytes * (tensor.name == EMBEDDINGS)
        else:
            output += tensor.stored_bytes
            has_output = has_output or tensor.name == OUTPUT
    blocks = tuple(
        GgufBlock(size, *cache, state)
        for size, cache, state in zip(layers, caches, states, strict=True)
    )
    return GgufLayout(tables, output, blocks, tied_bytes=0 if has_output else embeddings)


def _each(keys: Keys, name: str, layers: int, default: int | None = None) -> list[int]:
    """A number for each layer. The file has one for all of them, or a list."""
    value = keys.find(name)[1]
    if isinstance(value, list):
        if len(value) < layers:
            raise BadConfig(f"{name!r} has {len(value)} items for {layers} layers")
        return [whole(name, item, least=0) for item in value[:layers]]
    if value is None and default is not None:
        return [default] * layers
    return [keys.number(name, least=0)] * layers


def _widest(keys: Keys, layers: int) -> int:
    """Width of the feed-forward network, or that of one expert; of the widest layer if they differ."""
    expert = max(_each(keys, "expert_feed_forward_length", layers, default=0))
    return expert or max(_each(keys, "feed_forward_length", layers)) or 1


def _used(keys: Keys, experts: int) -> int:
    used = keys.number_or(0, "expert_used_count", least=0) or 1
    if used > experts:
        raise bad("expert_used_count", used, f"at most the number of experts, {experts}")
    return used


def _vocabulary(keys: Keys, header: Header) -> int:
    tokens = keys.find("tokenizer.ggml.tokens")[1]
    count = len(tokens) if isinstance(tokens, list) else tokens
    if keys.has("vocab_size") or count is None:
        table = next((t.shape for t in header.tensors if t.name == EMBEDDINGS), ())
        return keys.number("vocab_size") if keys.has("vocab_size") or not table else table[-1]
    return whole("tokenizer.ggml.tokens", count)


def _caches(keys: Keys, family: str, heads: list[int], size: int) -> list[tuple[int, int, int]]:
    """For each layer, how many values a token leaves in its cache as keys and as values, and the
    window; all 0 for a layer without a cache."""
    layers = len(heads)
    values = keys.number_or(size, "attention.value_length", least=0)
    short = (
        keys.number_or(size, "attention.key_length_swa"),
        keys.number_or(values, "attention.value_length_swa", least=0),
    )
    if keys.has("attention.key_length_mla"):
        values = 0  # latent attention: the values are a part of the keys
        short = (short[0], keys.number_or(0, "attention.value_length_swa", least=0))
    cached = _each(keys, "attention.head_count_kv", layers, default=max(heads))
    window = keys.number_or(0, "attention.sliding_window", least=0)
    windowed = _windows(keys, family, layers) if window else [False] * layers
    own = layers - keys.number_or(0, "attention.shared_kv_layers", least=0)
    recurrent = _interval(keys, layers)
    caches = []
    for n in range(layers):
        if cached[n] and n < own and not recurrent[n]:
            width = short if windowed[n] else (size, values)
            caches.append((cached[n] * width[0], cached[n] * width[1], window if windowed[n] else 0))
        else:
            caches.append((0, 0, 0))
    return caches


def _attention(caches: list[tuple[int, int, int]]) -> tuple[Attention, ...]:
    """The layers that have a KV cache, by kind."""
    kinds = Counter((keys + values, window) for keys, values, window in caches if keys)
    return tuple(Attention(count, width, tokens) for (width, tokens), count in kinds.items())


def _windows(keys: Keys, family: str, layers: int) -> list[bool]:
    """Which layers have a window."""
    pattern = keys.find("attention.sliding_window_pattern")[1]
    if isinstance(pattern, list):
        if len(pattern) < layers:
            raise BadConfig(f"'attention.sliding_window_pattern' has {len(pattern)} items for {layers}")
        return [bool(item) for item in pattern[:layers]]
    if family not in PERIODS:
        return [False] * layers
    period = keys.number_or(PERIODS[family], "attention.sliding_window_pattern")
    return [bool((n + 1) % period) for n in range(layers)]


def _interval(keys: Keys, layers: int) -> list[bool]:
    """Which layers have a state in place of keys and values, by a period."""
    period = keys.number_or(0, "full_attention_interval", least=0)
    return [bool(period and (n + 1) % period) for n in range(layers)]


def _state(keys: Keys, layers: int, hidden: int) -> int:
    """Bytes of one layer's state of one sequence (`n_embd_r` and `n_embd_s` in llama.cpp)."""
    kernel, inner = keys.number_or(0, "ssm.conv_kernel"), keys.number_or(0, "ssm.inner_size")
    if keys.has("shortconv.l_cache"):
        values = hidden * (keys.number("shortconv.l_cache") - 1)
    elif keys.has("kda.head_dim"):
        size, heads = keys.number("kda.head_dim"), max(_each(keys, "attention.head_count", layers))
        values = 3 * (kernel - 1) * heads * size + heads * size * size
    elif keys.has("wkv.head_size"):
        values = hidden * (keys.number_or(2, "token_shift_count") + keys.number("wkv.head_size"))
    elif inner:
        state, groups = keys.number("ssm.state_size"), keys.number_or(0, "ssm.group_count", least=0)
        values = (kernel - 1) * (inner + 2 * groups * state) + inner * state
    else:
        return 0
    return values * FLOAT


def _stateful(keys: Keys, family: str, layers: int) -> list[bool]:
    """Which layers have a state: those without keys and values, or all if every layer has both."""
    cached = _each(keys, "attention.head_count_kv", layers, default=0)
    recurrent = _interval(keys, layers)
    if any(recurrent):
        return recurrent
    if all(cached):
        return [True] * layers  # such as Falcon-H1
    width = _each(keys, "feed_forward_length", layers, default=0)
    if family.startswith("nemotron_h"):  # a layer is attention, Mamba or a feed-forward network
        return [not kv and not ffn for kv, ffn in zip(cached, width, strict=True)]
    return [not kv for kv in cached]


def _parameters(header: Header) -> tuple[int, int]:
    """Parameters that compute every token, and those of all experts, by the shapes of the tensors."""
    tables = (EMBEDDINGS, OUTPUT, *LOOKUPS)
    counts: dict[bool, Any] = {False: 0, True: 0}
    for tensor in header.tensors:
        if tensor.name not in tables:
            counts["_exps" in tensor.name] += prod(tensor.shape)
    return max(1, counts[False]), counts[True]
