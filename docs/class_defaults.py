"""Write `configs/class_defaults.json`: what transformers takes for keys that a config.json leaves out.

Run it with the newest transformers: `python -m docs.class_defaults`. The planner reads the table, so
that a plan does not depend on whether transformers is installed (`cluster/plan/class_defaults.py`).
"""

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "configs" / "class_defaults.json"
KEYS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "hidden_size",
    "n_embd",
    "d_model",
    "intermediate_size",
    "ffn_hidden_size",
    "n_inner",
    "ffn_dim",
    "vocab_size",
    "padded_vocab_size",
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "tie_word_embeddings",
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_key_value_heads",
    "num_kv_heads",
    "n_head_kv",
    "multi_query_group_num",
    "num_attention_groups",
    "multi_query",
    "new_decoder_architecture",
    "head_dim",
    "attention_head_dim",
    "kv_channels",
    "v_head_dim",
    "kv_lora_rank",
    "q_lora_rank",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "swa_num_key_value_heads",
    "swa_head_dim",
    "swa_v_head_dim",
    "swa_num_attention_heads",
    "attention_k_eq_v",
    "num_kv_shared_layers",
    "index_topk",
    "index_head_dim",
    "index_n_heads",
    "index_kpool",
    "indexer_head_dim",
    "indexer_compress_ratio",
    "attn_output_gate",
    "sliding_window",
    "sliding_window_size",
    "attention_window_size",
    "use_sliding_window",
    "max_window_layers",
    "sliding_window_pattern",
    "global_attn_every_n_layers",
    "attention_chunk_size",
    "no_rope_layer_interval",
    "attn_layer_period",
    "attn_layer_offset",
    "linear_num_heads",
    "linear_head_dim",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_conv_kernel_dim",
    "mamba_num_heads",
    "mamba_n_heads",
    "n_mamba_heads",
    "mamba_head_dim",
    "mamba_d_head",
    "mamba_headdim",
    "mamba_d_state",
    "ssm_state_size",
    "state_size",
    "mamba_d_conv",
    "conv_kernel",
    "mamba_expand",
    "expand",
    "mamba_d_ssm",
    "n_groups",
    "mamba_n_groups",
    "mamba_ngroups",
    "mamba_ssm_cache_dtype",
    "mamba_ssm_dtype",
    "conv_L_cache",
    "sconv_kernel_size",
    "conv_kernel_size",
    "linear_attn_alpha_factor",
    "n_routed_experts",
    "num_local_experts",
    "num_experts",
    "moe_num_experts",
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_k",
    "moe_top_k",
    "experts_per_token",
    "moe_intermediate_size",
    "expert_ffn_hidden_size",
    "n_shared_experts",
    "num_shared_experts",
    "moe_num_shared_experts",
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "dense_intermediate_size",
    "intermediate_size_mlp",
    "first_k_dense_replace",
    "decoder_sparse_step",
    "interleave_moe_layer_step",
    "expert_layer_period",
    "expert_layer_offset",
    "moe_latent_size",
    "routed_expert_hidden_size",
    "enable_moe_block",
    "share_expert_dim",
    "num_dense_layers",
)
"""The keys that the planner reads."""
DERIVED: dict[str, dict[str, Any]] = {
    "gemma2": {"sliding_window_pattern": 2},
    "gpt_oss": {"sliding_window_pattern": 2},
    "vaultgemma": {"sliding_window_pattern": 2},
    "cohere2": {"sliding_window_pattern": 4},
    "olmo3": {"sliding_window_pattern": 4},
    "gemma3n_text": {"sliding_window_pattern": 5},
    "gemma3_text": {"sliding_window_pattern": 6},
    "gemma4_text": {"sliding_window_pattern": 6, "global_head_dim": 512},
    "gemma4_unified_text": {"sliding_window_pattern": 6, "global_head_dim": 512},
    "glm5_next_text": {"full_attention_interval": 4, "first_k_dense_replace": 3},
    "hy_v3": {"first_k_dense_replace": 1},
    "hy_v4": {"first_k_dense_replace": 1},
    "laguna": {"first_k_dense_replace": 1},
    "mimo_v2_flash": {"first_k_dense_replace": 1},
    "qwen3_next": {"full_attention_interval": 4},
    "qwen3_5_text": {"full_attention_interval": 4},
    "qwen3_5_moe_text": {"full_attention_interval": 4},
}
"""Defaults that are no fields: `__post_init__` of these classes has them."""


def classes() -> Iterator[tuple[str, type]]:
    """The configuration classes of language models, by `model_type`."""
    import transformers.models
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for package in pkgutil.iter_modules(transformers.models.__path__):
        try:
            module = importlib.import_module(
                f"transformers.models.{package.name}.configuration_{package.name}"
            )
        except ImportError:
            continue
        for cls in vars(module).values():
            kind = getattr(cls, "model_type", None)
            if not isinstance(cls, type) or not kind or cls.__module__ != module.__name__:
                continue
            if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or str(kind).endswith("_text"):
                yield str(kind), cls


def defaults(cls: type) -> dict[str, Any]:
    """The defaults of a class for the keys that the planner reads."""
    fields = (
        {f.name: f.default for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    )
    return {
        key: fields[key]
        for key in KEYS
        if isinstance(fields.get(key), int | str) and fields[key] is not dataclasses.MISSING
    }


def table() -> dict[str, dict[str, Any]]:
    """The defaults by `model_type`, without classes that have no layers."""
    found = {kind: defaults(cls) | DERIVED.get(kind, {}) for kind, cls in classes()}
    return {kind: found[kind] for kind in sorted(found) if "vocab_size" in found[kind]}


if __name__ == "__main__":
    lines = [f" {json.dumps(kind)}: {json.dumps(keys)}" for kind, keys in table().items()]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
