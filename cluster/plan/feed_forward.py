"""The feed-forward networks of a model: their widths, and which layers have experts. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.plan.config_keys import BadConfig, Keys, bad, whole
from cluster.plan.layer_kinds import LISTS

EXPERTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
"""Names of the number of experts that a router chooses from, in the order in which vLLM looks for them
(vllm/transformers_utils/config.py: CONFIG_FIELD_ALIASES)."""
USED = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "experts_per_token",
    "moe_k",
    "top_k_router",
)
"""Names of the number of experts that a token uses."""
WIDTHS = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")
"""Names of the width of a feed-forward network."""
EXPERT_WIDTHS = ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size")
"""Names of the width of one expert, where it is not that of any feed-forward network."""
SHARED_WIDTHS = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)
"""Names of the width of the network that every token passes beside the experts."""
SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
"""Names of the number of experts that every token passes."""
SPARSE_WORDS = frozenset({"sparse", "moe", "hash_moe", "E"})
"""Words for a feed-forward network with experts."""
NETWORK_WORDS = frozenset({"moe", "mlp", "E", "-"})
"""Words for layers that are a feed-forward network and nothing else, as Nemotron-H has them."""
UNGATED = frozenset(
    {
        "arcee",
        "bloom",
        "falcon",
        "gpt2",
        "gpt_bigcode",
        "gpt_neox",
        "mpt",
        "nemotron",
        "nemotron_h",
        "opt",
        "phi",
        "starcoder2",
    }
)
"""Families whose feed-forward networks have two matrices; those of the others have three."""


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The feed-forward networks of all layers."""

    width: int
    """Width of a network; of one expert if there are experts; of the widest if they differ."""
    experts: int = 1
    """Experts of a layer; 1 without experts."""
    used: int = 1
    """Experts of a layer that a token uses."""
    dense: int = 0
    """Parameters of networks and shared experts that every token passes."""
    routed: int = 0
    """Parameters of all experts that a router chooses from."""


def feed_forward(keys: Keys, family: str, layers: int, hidden: int, nested: bool) -> FeedForward:
    """The feed-forward networks of a language model.

    Raises:
        BadConfig: a width or a number of experts cannot be told.
    """
    blocks = keys.items("block_configs")
    if blocks is not None:
        return _of_blocks(blocks[:layers], hidden)
    matrices = 2 if family in UNGATED else 3
    experts = _experts(keys)
    sparse = _sparse_layers(keys, layers) if experts > 1 else [False] * layers
    if experts == 1 or not any(sparse):
        width = _width(keys, nested)
        return FeedForward(width, dense=matrices * hidden * width * _with_network(keys, layers))
    used = _most(keys, *USED, least=1)
    if used > experts:
        raise bad(keys.find(*USED)[0], used, f"at most the number of experts, {experts}")
    inner = keys.number_or(hidden, "moe_latent_size", "routed_expert_hidden_size")
    width = _expert_width(keys, nested)
    around = 0 if inner == hidden else 2 * hidden * inner
    dense = sum(sparse) * (matrices * hidden * _shared(keys, family, width) + hidden * experts + around)
    rest = _with_network(keys, layers) - sum(sparse)
    if rest:
        dense += rest * matrices * hidden * _dense_width(keys, nested)
    return FeedForward(width, experts, used, dense, sum(sparse) * experts * matrices * inner * width)


def _experts(keys: Keys) -> int:
    """Experts of a layer; 1 without experts."""
    part = keys.part("ffn_config")
    if part is not None and part.has(*EXPERTS):  # DBRX
        return _most(part, *EXPERTS, least=0) or 1
    if keys.find("enable_moe_block")[1] is False or not keys.has(*EXPERTS):
        return 1
    return _most(keys, *EXPERTS, least=0) or 1


def _most(keys: Keys, *names: str, least: int) -> int:
    """The number under the names, or the largest where there is one for each layer."""
    part = keys.part("ffn_config")
    if part is not None and part.has(*names):
        keys = part
    name, value = keys.find(*names)
    if isinstance(value, list) and value:
        return max(whole(name, item, least) for item in value)
    return keys.number(*names, least=least)


def _width(keys: Keys, nested: bool) -> int:
    part = keys.part("ffn_config")
    if part is not None and part.has("ffn_hidden_size"):
        return part.number("ffn_hidden_size")
    if not keys.has(*WIDTHS) and keys.has("n_embd"):
        return 4 * keys.number("n_embd")  # GPT-2
    name, value = keys.find(*WIDTHS)
    if isinstance(value, list) and len(value) > 1:  # Gemma 3n: a width for each layer
        return max(whole(name, item) for item in value)
    return keys.number(*WIDTHS) if nested else keys.own_number(*WIDTHS)


def _expert_width(keys: Keys, nested: bool) -> int:
    if keys.has(*EXPERT_WIDTHS):
        return _most(keys, *EXPERT_WIDTHS, least=1)
    return _width(keys, nested)


def _dense_width(keys: Keys, nested: bool) -> int:
    """Width of a layer without experts in a model that has experts."""
    if keys.has("dense_intermediate_size", "intermediate_size_mlp"):
        return keys.number("dense_intermediate_size", "intermediate_size_mlp")
    return _width(keys, nested)


def _shared(keys: Keys, family: str, width: int) -> int:
    """Width of what every token passes in a layer with experts."""
    if keys.has("enable_moe_block"):
        return _width(keys, nested=True)  # Gemma 4 has a dense network beside the experts
    if family.startswith("llama4"):
        return width
    if keys.has(*SHARED_WIDTHS):
        return keys.number(*SHARED_WIDTHS, least=0)
    return width * keys.number_or(0, *SHARED, least=0)


def _with_network(keys: Keys, layers: int) -> int:
    """How many layers have a feed-forward network."""
    words = (keys.items(*LISTS) or [])[:layers]
    networks = sum(isinstance(word, str) and word in NETWORK_WORDS for word in words)
    return networks or layers


def _texts(words: list[Any]) -> set[str]:
    return {word for word in words if isinstance(word, str)}


def _sparse_layers(keys: Keys, layers: int) -> Sequence[bool]:
    """Which layers have experts."""
    for name in ("mlp_layer_types", *LISTS):
        words = keys.items(name)
        if words and (name == "mlp_layer_types" or NETWORK_WORDS & _texts(words)):
            return [isinstance(word, str) and word in SPARSE_WORDS for word in words[:layers]]
    if isinstance(keys.find("moe_layer_freq")[1], list):
        flags: list[int] = keys.numbers("moe_layer_freq") or []
        return [flag != 0 for flag in flags[:layers]]
    return [_is_sparse(keys, n) for n in range(layers)]


def _is_sparse(keys: Keys, n: int) -> bool:
    """Whether layer `n` has experts, by the rules of the families that have no list of layers."""
    if n < keys.number_or(0, "first_k_dense_replace", "num_dense_layers", least=0):
        return False
    if n in (keys.numbers("mlp_only_layers") or ()):
        return False
    if keys.has("expert_layer_period"):
        return n % keys.number("expert_layer_period") == keys.number_or(
            0, "expert_layer_offset", least=0
        )
    every = keys.number_or(1, "decoder_sparse_step", "interleave_moe_layer_step")
    return (n + 1) % every == 0


def _of_blocks(blocks: list[Any], hidden: int) -> FeedForward:
    """Nemotron NAS: each layer has its own width, or no feed-forward network."""
    widths = []
    for block in blocks:
        part = Keys(block, name="block_configs").part("ffn")
        if part is None:
            raise bad("block_configs", block, "a list of objects with 'attention' and 'ffn'")
        if not part.flag("no_op"):
            widths.append(_block_width(part, hidden))
    if not widths:
        raise BadConfig("'block_configs' has no layer with a feed-forward network")
    return FeedForward(max(widths), dense=3 * hidden * sum(widths))


def _block_width(part: Keys, hidden: int) -> int:
    """The width by its factor, as vllm/model_executor/models/nemotron_nas.py rounds it."""
    if part.has("intermediate_size"):
        return part.number("intermediate_size")
    name, factor = part.find("ffn_mult")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 1024:
        raise bad(name, factor, "a factor above 0")
    return -(-int(2 * factor * hidden / 3) // 256) * 256
