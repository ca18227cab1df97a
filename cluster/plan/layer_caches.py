"""How many values a token leaves in the KV cache of each layer, and what states there are. Pure.

The sizes follow the specifications by which vLLM 0.33 allocates its cache
(vllm/v1/kv_cache_interface.py), and the sources that are named below.
"""

from collections import Counter
from dataclasses import dataclass, field
from math import gcd
from typing import Any, NamedTuple

from cluster.plan.config_keys import Keys, bad
from cluster.plan.families import LATENT, WINDOWED
from cluster.plan.layer_kinds import WINDOWS, Kind, layer_kinds
from cluster.plan.layer_states import conv_bytes, state_bytes

ONE_MORE = frozenset({"cohere2", "cohere2_moe"})
"""Families whose windows have one token more than they say
(vllm/model_executor/models/commandr.py:244)."""
TWICE = frozenset({"longcat_flash"})
"""Families whose layers attend twice (vllm/model_executor/models/longcat_flash.py: self_attn[0],
[1])."""
KV_HEADS = (
    "n_head_kv",
    "num_kv_heads",
    "num_key_value_heads",
    "multi_query_group_num",
    "num_attention_groups",
)
"""Names of the number of heads of keys and values (vllm/transformers_utils/config.py:
CONFIG_FIELD_ALIASES)."""
HEAD_SIZES = ("head_dim", "attention_head_dim", "kv_channels", "hidden_size_per_head")
"""Names of the size of a head."""
SCALED_BLOCK = 128
"""Values of an indexer's key that share a scale of 4 bytes
(vllm/model_executor/models/deepseek_v2.py:722)."""
PACKED = 656
"""Bytes of a packed latent vector in an 8-bit cache of sparse attention
(vllm/v1/attention/backends/mla/ flashmla_sparse.py: fp8_ds_mla)."""


class Row(NamedTuple):
    """What one token leaves in one layer."""

    kv_width: int
    """Number of values."""
    window_tokens: int = 0
    """Tokens for which the layer keeps them; 0 for all."""
    value_bytes: int = 0
    """Bytes of a value where they are fixed; else 0."""
    packed_bytes: int = 0
    """Bytes of the row in an 8-bit cache where it is packed; else 0."""


@dataclass(slots=True)
class Caches:
    """The caches and states of all layers."""

    rows: Counter[Row] = field(default_factory=Counter)
    """Number of layers by what a token leaves in them."""
    state_bytes: int = 0
    """Bytes of the states of one sequence."""
    state_layers: int = 0
    """Number of layers that keep a state."""
    kv_heads: int = 0
    """Heads of keys and values that all layers can be split by; 0 without attention."""
    kinds: tuple[Kind, ...] = ()
    """What each layer keeps."""


class _Heads(NamedTuple):
    """The keys and values of one layer."""

    number: int
    key: int
    """Size of a key of one head."""
    value: int

    @property
    def width(self) -> int:
        return self.number * (self.key + self.value)


def layer_caches(keys: Keys, family: str, layers: int, hidden: int, heads: int) -> Caches:
    """The caches and states of a language model.

    Raises:
        BadConfig: what a layer keeps cannot be told.
    """
    found = Caches(kinds=tuple(layer_kinds(keys, family, layers)))
    own = layers - keys.number_or(0, "num_kv_shared_layers", least=0)
    blocks = keys.items("block_configs")
    if blocks is not None:
        return _of_blocks(found, keys, blocks, layers, heads)
    for n, kind in enumerate(found.kinds):
        before = found.state_bytes
        if "state" in kind and not family.startswith("inkling"):  # whose states are rows of a window
            found.state_bytes += state_bytes(keys, hidden)
        if kind == "conv":
            found.state_bytes += conv_bytes(keys, hidden)
        found.state_layers += found.state_bytes > before
        if kind in ("state", "conv", "none") or n >= own:
            continue
        if kind == "compressed" or keys.has("compress_ratios") or family == "deepseek_v4":
            _add_compressed(found, keys, n)
        else:
            _add(found, keys, family, n, kind, hidden, heads)
    if family in TWICE:
        found.rows = Counter({row: 2 * count for row, count in found.rows.items()})
    return found


def _add(found: Caches, keys: Keys, family: str, n: int, kind: Kind, hidden: int, heads: int) -> None:
    """Add the rows of a layer with attention."""
    window = _window(keys, family, kind)
    if keys.has("kv_lora_rank"):
        sparse = _indexed(keys, family, kind, n)
        row = _latent(keys, family, heads, keys.has("index_topk") or kind == "indexed")
        found.kv_heads = gcd(found.kv_heads, 1 if not family or family in LATENT else heads)
    else:
        sparse = kind == "indexed"
        sizes = _heads(keys, n, kind, hidden, heads)
        row = Row(sizes.width, window)
        found.kv_heads = gcd(found.kv_heads, sizes.number)
    found.rows[row] += 1
    if sparse:
        found.rows[_indexer(keys)] += 1
    if family.startswith("inkling"):
        found.rows[_convolution(keys, hidden)] += 1


def head_size(keys: Keys, hidden: int, heads: int) -> int:
    """Size of a head. A size of 0 counts as none: some classes write it where they have none.

    Raises:
        BadConfig: the size is no whole number, or the heads leave none for each.
    """
    size = keys.number_or(0, *HEAD_SIZES, least=0) or hidden // heads
    if not size:
        raise bad("num_attention_heads", heads, f"at most the hidden size, {hidden}")
    return size


def _window(keys: Keys, family: str, kind: Kind) -> int:
    """Tokens of the layer's window; 0 if it keeps all."""
    if family not in WINDOWED or kind not in ("window", "chunk", "window+state"):
        return 0
    if kind == "chunk":
        return keys.number("attention_chunk_size")
    window = keys.number_or(0, *WINDOWS, least=0)
    return window + 1 if window and family in ONE_MORE else window


def _heads(keys: Keys, n: int, kind: Kind, hidden: int, heads: int) -> _Heads:
    """The keys and values of layer `n`, which is of this kind."""
    size = head_size(keys, hidden, heads)
    count, value = _kv_heads(keys, heads), keys.number_or(size, "v_head_dim")
    if kind.startswith("window"):
        count = keys.number_or(count, "swa_num_key_value_heads")
        size = keys.number_or(size, "swa_head_dim")
        value = keys.number_or(value if not keys.has("swa_head_dim") else size, "swa_v_head_dim")
    elif keys.has("global_head_dim"):  # Gemma 4
        size = value = keys.number("global_head_dim")
        if keys.flag("attention_k_eq_v"):
            count = keys.number_or(count, "num_global_key_value_heads")
    own = _own_keys(keys, n)
    if own is not None:
        count = own.number_or(count, "num_key_value_heads")
        size = own.number_or(size, "head_dim")
        value = own.number_or(size, "v_head_dim", "head_dim")
    return _Heads(count, size, value)


def _own_keys(keys: Keys, n: int) -> Keys | None:
    """The keys that layer `n` has of its own; None if it has none."""
    layers = keys.part("per_layer_config")
    for name in layers.values if layers else ():
        if not str(name).isdecimal():
            raise bad("per_layer_config", name, "an object with the numbers of layers as its keys")
        if layers and int(name) == n:  # transformers writes "05"
            return layers.part(name)
    return None


def _kv_heads(keys: Keys, heads: int) -> int:
    """Number of heads of keys and values."""
    if keys.flag("multi_query") and not keys.flag("new_decoder_architecture"):
        return 1  # Falcon-7B, GPT-BigCode
    part = keys.part("attn_config")  # DBRX
    if part is not None and part.has("kv_n_heads"):
        return part.number("kv_n_heads")
    return keys.number_or(heads, *KV_HEADS)


def _latent(keys: Keys, family: str, heads: int, sparse: bool) -> Row:
    """A row of multi-head latent attention: one latent vector and one rotary key."""
    rotary = keys.number("qk_rope_head_dim", least=0)
    if (
        family and family not in LATENT
    ):  # such as MiniCPM3, whose values vLLM pads to the size of its keys
        return Row(2 * heads * (keys.number("qk_nope_head_dim") + rotary))
    width = keys.number("kv_lora_rank") + rotary
    return Row(width, packed_bytes=max(PACKED, width) if sparse else 0)


def _indexed(keys: Keys, family: str, kind: Kind, n: int) -> bool:
    """Whether layer `n` of a model with latent attention has an indexer of its own.

    The rule is that of vllm/model_executor/models/deepseek_v2.py:1138-1168.
    """
    if not keys.has("index_topk") and kind != "indexed":
        return False
    words = keys.items("indexer_types")
    if family == "hy_v4" and words is not None:  # vllm/models/hy_v4/nvidia/attention.py:83
        return n >= len(words) or words[n] != "shared"
    pattern = keys.items("index_topk_pattern")
    if pattern is not None:
        return n >= len(pattern) or pattern[n] != "S"
    every = keys.number_or(1, "index_topk_freq")
    offset = keys.number_or(2, "index_skip_topk_offset", least=0)
    return max(n - offset + 1, 0) % every == 0


def _indexer(keys: Keys) -> Row:
    """A row of the keys by which an indexer chooses the tokens that sparse attention reads."""
    part = keys.part("sparse_attention_config")
    if part is not None:  # MiniMax-M3 (vllm/models/minimax_m3/common/indexer.py)
        return Row(part.number("sparse_index_dim"), value_bytes=2)
    if keys.has("indexer_head_dim"):  # Qwen4 (vllm/models/qwen4_exp/common/qsa_cache.py)
        return _shared_row(2 * keys.number("indexer_head_dim"), keys.number("indexer_compress_ratio"))
    size = keys.number("index_head_dim")
    return _shared_row(size + size // SCALED_BLOCK * 4, keys.number_or(1, "index_kpool"))


def _shared_row(count: int, tokens: int) -> Row:
    """A row of `count` bytes for every so many tokens."""
    return Row(-(-count // tokens), value_bytes=1)


def _convolution(keys: Keys, hidden: int) -> Row:
    """The latest inputs of Inkling's convolutions (vllm/models/inkling/nvidia/sconv_swa_attn.py)."""
    count = keys.number("swa_num_key_value_heads", "num_key_value_heads")
    size = 2 * keys.number("swa_head_dim", "head_dim") + 2 * (hidden // count)
    padded = 1 << (size - 1).bit_length()
    return Row(count * padded, keys.number("sconv_kernel_size", "conv_kernel_size"), value_bytes=2)


def _add_compressed(found: Caches, keys: Keys, n: int) -> None:
    """Add the rows of a layer of DeepSeek-V4.

    Every layer has a window of packed rows of 584 bytes. A layer that compresses has besides one such
    row for `ratio` tokens, the state of its compressor in 32 bits, and with ratio 4 an indexer
    (vllm/models/deepseek_v4: attention.py:860-924, compressor.py:158-192).
    """
    packed, size = 584, keys.number("head_dim")
    ratios = keys.numbers("compress_ratios")
    kind = found.kinds[n]
    words = keys.items("layer_types")
    if ratios is not None:
        ratio = ratios[n]
    elif words is not None:
        ratio = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}.get(
            str(words[n]), 0
        )
    else:
        raise bad(
            "compress_ratios", None, f"a list with a ratio for each layer, as layer {n} is {kind}"
        )
    found.kv_heads = 1
    found.rows[Row(packed, keys.number("sliding_window"), 1)] += 1
    if not ratio:
        return
    found.rows[_shared_row(packed, ratio)] += 1
    overlap = 2 if ratio == 4 else 1
    found.rows[Row(2 * overlap * size, overlap * ratio, 4)] += 1
    if ratio == 4:
        index = keys.number("index_head_dim")
        found.rows[_shared_row(index + index // SCALED_BLOCK * 4, ratio)] += 1
        found.rows[Row(2 * overlap * index, overlap * ratio, 4)] += 1


def _of_blocks(found: Caches, keys: Keys, blocks: list[Any], layers: int, heads: int) -> Caches:
    """Nemotron NAS: each layer has its own number of heads, or no attention."""
    if len(blocks) < layers:
        raise bad("block_configs", f"{len(blocks)} items", f"a list of {layers}, one for each layer")
    size = head_size(keys, keys.number("hidden_size"), heads)
    kinds: list[Kind] = []
    for block in blocks[:layers]:
        attention = Keys(block, name="block_configs").part("attention")
        if attention is None:
            raise bad("block_configs", block, "a list of objects with 'attention' and 'ffn'")
        if attention.flag("no_op") or attention.flag("replace_with_linear"):
            kinds.append("none")
            continue
        kinds.append("full")
        if attention.has("num_key_value_heads"):
            count = attention.number("num_key_value_heads")
        else:
            count = max(1, heads // attention.number("n_heads_in_group"))
        found.rows[Row(2 * count * size)] += 1
        found.kv_heads = gcd(found.kv_heads, count)
    found.kinds = tuple(kinds)
    return found
