"""The shape of a model by its config.json, as vLLM reads it. Pure."""

from collections.abc import Mapping
from typing import Any

from cluster.plan.attention_parameters import attention_parameters
from cluster.plan.checkpoint_facts import Attention, Checkpoint
from cluster.plan.class_defaults import with_class_defaults
from cluster.plan.config_keys import Keys
from cluster.plan.feed_forward import FeedForward, feed_forward
from cluster.plan.hf_quantization import read_numbers
from cluster.plan.layer_caches import Caches, head_size, layer_caches
from cluster.plan.layer_kinds import count_layers

PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Keys under which a configuration of several models has its language model, or an object that has it
(vllm/transformers_utils/config.py: get_hf_text_config; transformers: get_text_config)."""
HIDDEN = ("hidden_size", "n_embd", "d_model")
"""Names of the width of a hidden state."""
HEADS = ("num_attention_heads", "n_head", "n_heads")
"""Names of the number of query heads."""
VOCABULARIES = ("vocab_size", "padded_vocab_size")
"""Names of the size of the vocabulary."""
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")
"""Names of the longest context (vllm/transformers_utils/model_arch_config_convertor.py:
derive_max_model_len_and_key)."""
NEXT_TOKEN_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers")
"""Names of the number of layers for the prediction of several tokens (vllm/config/speculative.py,
SpeculativeConfig.hf_config_override)."""
MXFP4_BITS = 4 + 8 / 32
"""Bits that mxfp4 stores per parameter. Each parameter has 4 bits, and 32 parameters share a scale of 8
bits."""


def config_checkpoint(
    config: Any,
    weight_bytes: int,
    lookup_bytes: int,
    beside: Any = None,
    tensor_bytes: tuple[int, ...] = (),
) -> Checkpoint:
    """The checkpoint of a model with this config.json.

    Args:
        config: the parsed file.
        weight_bytes: bytes of all tensors.
        lookup_bytes: see `Checkpoint.lookup_bytes`.
        beside: the parsed hf_quant_config.json; None if there is none.
        tensor_bytes: bytes of each tensor; empty if only the shape is known.

    Raises:
        BadConfig: a key is missing that every language model has, or a value cannot be right.
    """
    whole = Keys(config).values
    text, nested, family = _language_part(whole)
    keys = Keys(*with_class_defaults(text, family), name="text_config")
    number = keys.number if nested else keys.own_number
    layers, hidden = count_layers(keys, nested), number(*HIDDEN)
    heads = _heads(keys, nested)
    caches = layer_caches(keys, family, layers, hidden, heads)
    networks = feed_forward(keys, family, layers, hidden, nested)
    numbers = read_numbers(whole, text, beside)
    query_width = heads * _query_size(keys, hidden, heads)
    return Checkpoint(
        weight_bytes=weight_bytes,
        lookup_bytes=lookup_bytes,
        layers=layers,
        hidden=hidden,
        ffn=networks.width,
        vocab=number(*VOCABULARIES),
        query_width=query_width,
        attention=_attention(caches),
        experts=networks.experts,
        experts_used=networks.used,
        most_tokens=keys.number_or(0, *LENGTHS, least=0),
        heads=heads,
        kv_heads=caches.kv_heads,
        state_bytes=caches.state_bytes,
        state_layers=caches.state_layers,
        kv_dtype=numbers.kv_dtype,
        quantization=numbers.method,
        quantization_detail=numbers.weights,
        tensor_bytes=tensor_bytes,
        padding_bytes=_padding(numbers.method, networks, hidden),
        dense_parameters=networks.dense
        + attention_parameters(keys, caches, hidden, query_width, heads),
        expert_parameters=networks.routed,
        next_token_layers=keys.number_or(0, *NEXT_TOKEN_LAYERS, least=0),
    )


def _language_part(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool, str]:
    """The keys of the language model, whether they are a part of others, and its family."""
    keys, family, nested = Keys(config), _family(config), False
    while True:
        part = next((keys.part(name) for name in PARTS if keys.has(name)), None)
        if part is None:
            return keys.values, nested, family
        keys, nested = part, True
        family = _family(part.values) or (f"{family}_text" if family else "")


def _family(values: Mapping[str, Any]) -> str:
    return Keys({"model_type": values.get("model_type")}).text("model_type")


def _heads(keys: Keys, nested: bool) -> int:
    """The number of query heads."""
    if not keys.has(*HEADS) and keys.has("state_size"):
        return 1  # Mamba has no attention
    return keys.number(*HEADS) if nested else keys.own_number(*HEADS)


def _query_size(keys: Keys, hidden: int, heads: int) -> int:
    """Size of a query of one head."""
    if keys.has("kv_lora_rank", "qk_nope_head_dim"):
        return keys.number_or(0, "qk_nope_head_dim") + keys.number("qk_rope_head_dim", least=0)
    return head_size(keys, hidden, heads)


def _attention(caches: Caches) -> tuple[Attention, ...]:
    return tuple(
        Attention(layers, row.kv_width, row.window_tokens, row.value_bytes, row.packed_bytes)
        for row, layers in caches.rows.items()
    )


def _padding(method: str | None, networks: FeedForward, hidden: int) -> int:
    """Bytes that vLLM adds to experts in mxfp4.

    Marlin wants the width of an expert as a multiple of 128, and hidden states as a
    multiple of 256 (vllm/model_executor/layers/fused_moe/oracle/mxfp4.py:837-917). No other kernel of a
    GPU of NVIDIA wants more.
    """
    if method not in ("mxfp4", "gpt_oss_mxfp4") or networks.experts == 1:
        return 0
    width = networks.width
    grown = -(-width // 128) * 128 * (-(-hidden // 256) * 256) / (width * hidden) - 1
    return int(grown * networks.routed * MXFP4_BITS / 8)
