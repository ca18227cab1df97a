"""The number of parameters of attention and of states, all layers together, without biases. Pure.

The speed of a model follows from it, and how many bits a stored parameter takes. Reserved memory does
not.
"""

from cluster.plan.config_keys import Keys
from cluster.plan.layer_caches import Caches


def attention_parameters(keys: Keys, caches: Caches, hidden: int, query_width: int, heads: int) -> int:
    """Parameters of the layers' attention, linear attention, Mamba and convolutions.

    Args:
        keys: the language model's configuration.
        caches: what its layers keep.
        hidden: width of a hidden state.
        query_width: number of query heads times the size of one head.
        heads: number of query heads.
    """
    states = sum("state" in kind for kind in caches.kinds) * _state(keys, hidden)
    convolutions = 4 * hidden * hidden * sum(kind == "conv" for kind in caches.kinds)
    attending = sum(kind not in ("state", "conv", "none") for kind in caches.kinds)
    if keys.has("kv_lora_rank"):
        return states + convolutions + attending * _latent(keys, hidden, heads)
    rank, out = keys.number_or(0, "q_lora_rank"), keys.number_or(0, "o_lora_rank")
    if rank and out:  # DeepSeek-V4
        groups = keys.number_or(1, "o_groups")
        low = rank * (hidden + query_width) + out * (query_width + groups * hidden)
        return attending * (low + 3 * hidden * (query_width // heads))
    gate = 1 if keys.flag("attn_output_gate") else 0
    cached = sum(row.kv_width * layers for row, layers in caches.rows.items() if not row.value_bytes)
    return states + convolutions + hidden * ((2 + gate) * query_width * attending + cached)


def _latent(keys: Keys, hidden: int, heads: int) -> int:
    """Multi-head latent attention, with its indexer if it has one."""
    latent, rotary = keys.number("kv_lora_rank"), keys.number("qk_rope_head_dim", least=0)
    plain = keys.number_or(latent // 4, "qk_nope_head_dim")
    value = keys.number_or(plain, "v_head_dim")
    rank = keys.number_or(0, "q_lora_rank")
    queries = rank * (hidden + heads * (plain + rotary)) if rank else hidden * heads * (plain + rotary)
    stored = hidden * (latent + rotary) + latent * heads * (plain + value)
    index = 0
    if keys.has("index_topk"):
        size, count = keys.number("index_head_dim"), keys.number("index_n_heads")
        index = size * (hidden + rank * count) + hidden * count
    return queries + stored + heads * value * hidden + index


def _state(keys: Keys, hidden: int) -> int:
    """A layer with linear attention or Mamba."""
    linear = keys.part("linear_attn_config")
    if linear is not None:
        width = linear.number("num_heads") * linear.number("head_dim")
        return 6 * hidden * width  # queries, keys, values, decay, gate and output
    if keys.has("linear_num_value_heads"):
        key = keys.number("linear_num_key_heads") * keys.number("linear_key_head_dim")
        heads = keys.number("linear_num_value_heads")
        return hidden * (2 * key + 3 * heads * keys.number("linear_value_head_dim") + 2 * heads)
    heads = keys.number_or(0, "mamba_num_heads", "mamba_n_heads", "n_mamba_heads")
    size = keys.find("mamba_head_dim", "mamba_d_head", "mamba_headdim")[1]
    inner = heads * size if heads and isinstance(size, int) else 0
    if not inner and keys.has("mamba_expand", "expand"):
        inner = keys.number("mamba_expand", "expand") * hidden
    groups = keys.number_or(0, "n_groups", "mamba_n_groups", "mamba_ngroups", least=0)
    state = keys.number_or(0, "ssm_state_size", "mamba_d_state", least=0)
    return hidden * (3 * inner + 2 * groups * state + heads)
