"""The tensors of a checkpoint, with their types and shapes, from its config. Pure.

For the families of the bundled shapes only: decoders with rotary attention and gated feed-forward
networks, dense or with Mixtral's experts, in 16 bits or in AWQ's 4 bits.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

Tensor = tuple[str, str, tuple[int, ...]]
"""Name, number type as safetensors writes it, and shape of a tensor."""
SIZES = {"BF16": 2, "F16": 2, "I32": 4}
"""Bytes of a number by its type."""
BITS_OF_INT = 32
"""AWQ packs its values into numbers of this many bits."""


def tensors(config: dict[str, Any]) -> Iterator[Tensor]:
    """The tensors of the checkpoint that a config.json describes."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    yield "model.embed_tokens.weight", "BF16", (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        yield from _layer(f"model.layers.{layer}", config)
    yield "model.norm.weight", "BF16", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", "BF16", (vocab, hidden)


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor."""
    _, dtype, shape = tensor
    return SIZES[dtype] * prod(shape)


def _layer(name: str, config: dict[str, Any]) -> Iterator[Tensor]:
    hidden = config["hidden_size"]
    heads, kv = (
        config[key] * config["head_dim"] for key in ("num_attention_heads", "num_key_value_heads")
    )
    has_bias = config["model_type"] == "qwen2"
    for part, rows, columns in (("q", hidden, heads), ("k", hidden, kv), ("v", hidden, kv)):
        yield from _linear(f"{name}.self_attn.{part}_proj", rows, columns, config)
        if has_bias:
            yield f"{name}.self_attn.{part}_proj.bias", "BF16", (columns,)
    yield from _linear(f"{name}.self_attn.o_proj", heads, hidden, config)
    yield from _feed_forward(name, config)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config["model_type"] == "gemma2":
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for norm in norms:
        yield f"{name}.{norm}.weight", "BF16", (hidden,)


def _feed_forward(name: str, config: dict[str, Any]) -> Iterator[Tensor]:
    hidden, width, experts = (
        config["hidden_size"],
        config["intermediate_size"],
        config.get("num_local_experts", 0),
    )
    if not experts:
        yield from _linear(f"{name}.mlp.gate_proj", hidden, width, config)
        yield from _linear(f"{name}.mlp.up_proj", hidden, width, config)
        yield from _linear(f"{name}.mlp.down_proj", width, hidden, config)
        return
    yield f"{name}.block_sparse_moe.gate.weight", "BF16", (experts, hidden)
    for expert in range(experts):
        place = f"{name}.block_sparse_moe.experts.{expert}"
        yield from _linear(f"{place}.w1", hidden, width, config)
        yield from _linear(f"{place}.w3", hidden, width, config)
        yield from _linear(f"{place}.w2", width, hidden, config)


def _linear(name: str, rows: int, columns: int, config: dict[str, Any]) -> Iterator[Tensor]:
    """A linear layer from `rows` inputs to `columns` outputs; in AWQ, three tensors."""
    quantized = config.get("quantization_config")
    if quantized is None:
        yield f"{name}.weight", "BF16", (columns, rows)
        return
    packed = columns * quantized["bits"] // BITS_OF_INT
    groups = rows // quantized["group_size"]
    yield f"{name}.qweight", "I32", (rows, packed)
    yield f"{name}.qzeros", "I32", (groups, packed)
    yield f"{name}.scales", "F16", (groups, columns)
