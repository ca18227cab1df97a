"""Families that name or arrange things in their own way. Right values are sums by hand."""

from typing import Any

import pytest

from cluster.plan.checkpoint import Attention, Checkpoint, from_config

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 512}


def read(config: dict[str, Any]) -> Checkpoint:
    return from_config(config, 10_000_000, 0)


@pytest.mark.parametrize(
    ("config", "attention"),
    [
        # other names of the same sizes
        (
            {
                "model_type": "chatglm",
                "num_layers": 40,
                "hidden_size": 4096,
                "ffn_hidden_size": 13696,
                "num_attention_heads": 32,
                "multi_query_group_num": 2,
                "kv_channels": 128,
                "padded_vocab_size": 151_552,
            },
            [Attention(40, 2 * 2 * 128)],
        ),
        (
            {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "vocab_size": 50_257},
            [Attention(12, 2 * 768)],
        ),
        (
            {
                "model_type": "dbrx",
                "d_model": 6144,
                "n_heads": 48,
                "n_layers": 40,
                "vocab_size": 100_352,
                "attn_config": {"kv_n_heads": 8},
                "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
            },
            [Attention(40, 2 * 8 * 128)],
        ),
        # one head of keys and values for all queries, or several
        (
            {
                "model_type": "falcon",
                "hidden_size": 4544,
                "num_hidden_layers": 32,
                "num_attention_heads": 71,
                "multi_query": True,
                "vocab_size": 65_024,
            },
            [Attention(32, 2 * 64)],
        ),
        (
            {
                "model_type": "falcon",
                "hidden_size": 8192,
                "num_hidden_layers": 60,
                "num_attention_heads": 128,
                "num_kv_heads": 8,
                "multi_query": True,
                "new_decoder_architecture": True,
                "vocab_size": 65_024,
            },
            [Attention(60, 2 * 8 * 64)],
        ),
        # windows: of a known family, of an unknown one, one token more, and switched off
        (
            SIZES | WINDOWS | {"model_type": "gpt_oss", "head_dim": 8},
            [Attention(2, 32, 512), Attention(2, 32)],
        ),
        (SIZES | WINDOWS | {"model_type": "brand_new"}, [Attention(4, 32)]),
        (SIZES | WINDOWS | {"model_type": "cohere2"}, [Attention(2, 32, 513), Attention(2, 32)]),
        (
            SIZES | {"model_type": "qwen2", "sliding_window": 512, "use_sliding_window": False},
            [Attention(4, 32)],
        ),
        (
            SIZES
            | {
                "model_type": "qwen2",
                "sliding_window": 512,
                "use_sliding_window": True,
                "max_window_layers": 3,
            },
            [Attention(3, 32), Attention(1, 32, 512)],
        ),
        (
            SIZES | {"model_type": "exaone4", "sliding_window": 512, "sliding_window_pattern": "LG"},
            [Attention(2, 32, 512), Attention(2, 32)],
        ),
        # Mistral 3's 24B keeps its text part in a part; LLaVA's leaves out all that Llama's class has.
        (
            {
                "model_type": "mistral3",
                "text_config": SIZES | {"model_type": "mistral", "sliding_window": None},
            },
            [Attention(4, 32)],
        ),
        (
            {"model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 32_064}},
            [Attention(32, 2 * 32 * 128)],
        ),
        (
            {"model_type": "qwen3_omni_moe", "thinker_config": {"text_config": SIZES}},
            [Attention(4, 32)],
        ),
        # Gemma 4 as transformers 5 writes it: sizes of single layers by their numbers
        (
            SIZES
            | {
                "model_type": "gemma4_text",
                "head_dim": 8,
                "global_head_dim": None,
                "sliding_window": 512,
                "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
                "per_layer_config": {"03": {"head_dim": 16, "num_key_value_heads": 1}},
            },
            [Attention(3, 32, 512), Attention(1, 32)],
        ),
        # the last two layers read the caches of layers before them
        (
            SIZES | WINDOWS | {"model_type": "gemma3n_text", "head_dim": 8, "num_kv_shared_layers": 2},
            [Attention(1, 32, 512), Attention(1, 32)],
        ),
    ],
)
def test_caches(config: dict[str, Any], attention: list[Attention]) -> None:
    assert set(read(config).attention) == set(attention)


MAMBA = {"mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2}


@pytest.mark.parametrize(
    ("config", "attending", "layers", "state"),
    [
        # Jamba: every eighth layer attends; the others keep 3 inputs and 16 values of 128 channels.
        (
            SIZES | MAMBA | {"model_type": "jamba", "attn_layer_period": 2, "attn_layer_offset": 1},
            2,
            2,
            128 * (3 + 16) * 2,
        ),
        # Mamba has no attention.
        (
            SIZES
            | {"model_type": "mamba", "state_size": 16, "conv_kernel": 4, "intermediate_size": 128},
            0,
            4,
            128 * (3 + 16) * 2,
        ),
        # Falcon-H1: every layer has both.
        (
            SIZES
            | MAMBA
            | {
                "model_type": "falcon_h1",
                "mamba_n_heads": 4,
                "mamba_d_head": 16,
                "mamba_n_groups": 1,
                "mamba_d_ssm": 64,
            },
            4,
            4,
            (3 * (64 + 2 * 16) + 64 * 16) * 2,
        ),
        # LFM2: a convolution over 3 tokens
        (
            SIZES | {"model_type": "lfm2", "conv_L_cache": 3, "full_attn_idxs": [1, 3]},
            2,
            2,
            64 * 2 * 2,
        ),
        # Kimi delta attention: matrices in 32 bits; layers are counted from 1
        (
            SIZES
            | {
                "model_type": "kimi_linear",
                "kv_lora_rank": 512,
                "qk_rope_head_dim": 64,
                "num_experts": 1,
                "linear_attn_config": {
                    "full_attn_layers": [4],
                    "head_dim": 16,
                    "num_heads": 4,
                    "short_conv_kernel_size": 4,
                },
            },
            1,
            3,
            4 * 16 * 16 * 4 + 3 * 4 * 16 * 3 * 2,
        ),
        # A new family that keeps states and does not say where is taken to keep both everywhere.
        (
            SIZES
            | {
                "model_type": "brand_new",
                "linear_num_value_heads": 4,
                "linear_num_key_heads": 2,
                "linear_key_head_dim": 8,
                "linear_value_head_dim": 8,
                "linear_conv_kernel_dim": 4,
            },
            4,
            4,
            4 * 8 * 8 * 2 + (2 * 2 * 8 + 4 * 8) * 3 * 2,
        ),
    ],
)
def test_states(config: dict[str, Any], attending: int, layers: int, state: int) -> None:
    found = read(config)
    assert sum(kind.layers for kind in found.attention) == attending
    assert (found.state_layers, found.state_bytes) == (layers, layers * state)


@pytest.mark.parametrize(
    ("keys", "experts"),
    [
        ({"num_experts": 8, "num_experts_per_tok": 2}, (8, 2)),
        ({"n_routed_experts": 8, "num_experts_per_token": 2}, (8, 2)),
        ({"num_local_experts": 8, "experts_per_token": 2}, (8, 2)),
        ({"moe_num_experts": [8, 8], "moe_k": 2}, (8, 2)),
        ({"num_experts": 8, "moe_topk": [2] * 4, "moe_intermediate_size": [32] * 4}, (8, 2)),
        ({"num_experts": 8, "top_k_experts": 2, "enable_moe_block": True}, (8, 2)),
        ({"num_experts": 8, "top_k_experts": 2, "enable_moe_block": False}, (1, 1)),
        ({"num_experts": 0}, (1, 1)),
        ({"num_experts": None}, (1, 1)),
        ({"num_local_experts": 1, "num_experts_per_tok": 1}, (1, 1)),
    ],
)
def test_experts_by_any_name(keys: dict[str, Any], experts: tuple[int, int]) -> None:
    found = read(SIZES | {"model_type": "brand_new"} | keys)
    assert (found.experts, found.experts_used) == experts


def test_parameters_of_layers_with_and_without_experts() -> None:
    moe = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    found = read(SIZES | moe | {"first_k_dense_replace": 1, "n_shared_experts": 1})
    attention = 4 * 64 * (2 * 64 + 2 * 2 * 8)
    shared_and_router = 3 * (3 * 64 * 32 + 64 * 8)
    assert found.dense_parameters == attention + 3 * 64 * 256 + shared_and_router
    assert found.expert_parameters == 3 * 8 * 3 * 64 * 32
    assert found.active_parameters == found.dense_parameters + found.expert_parameters // 4 + 1000 * 64
