"""Real config.json files of the Hub: weights, KV per token, windows, states and experts.

`real_configs.json` has the keys that matter of 97 checkpoints: 43 as their owners published them, 13 of
modelopt with the config.json of what they were made from, 8 from ai-dynamo/aiconfigurator, 4 of other
public copies, 17 that the project bundles, and 12 whose keys are the defaults of transformers' class,
whose documentation names the checkpoint. The right values below were worked out by hand from the
architecture and from vLLM 0.33's cache specifications, not by the code under test. docs/checkpoints.md
has the table.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cluster.plan.checkpoint import Checkpoint, from_metadata
from cluster.plan.hf_quantization import read_numbers

CONFIGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "real_configs.json").read_text("utf-8")
)


class Right(NamedTuple):
    """What is right for a checkpoint."""

    kv: float
    """Bytes that a token leaves in all layers that keep every token, in the type that vLLM resolves."""
    experts: tuple[int, int] = (1, 1)
    """Experts of a layer, and those that a token uses."""
    billions: float | None = None
    """Parameters as published; None if nothing was found."""
    windows: tuple[int, int, int] | None = None
    """Layers with a window, bytes of a token in one of them, and tokens of the window."""
    state: int = 0
    """Bytes of the states of a sequence."""


def gqa(layers: int, kv_heads: int, head: int, value: int = 2) -> int:
    """Keys and values of grouped-query attention."""
    return layers * 2 * kv_heads * head * value


def mla(layers: int, value: int = 2) -> int:
    """A latent vector of 512 and a rotary key of 64."""
    return layers * 576 * value


def gdn(layers: int, value_heads: int, matrix: int = 4) -> int:
    """Gated delta net with 16 key heads of 128 and a convolution over 4 tokens."""
    return layers * (value_heads * 128 * 128 * matrix + (2 * 16 * 128 + value_heads * 128) * 3 * 2)


def kda(layers: int, heads: int) -> int:
    """Kimi delta attention with heads of 128 and a convolution over 4 tokens."""
    return layers * (heads * 128 * 128 * 4 + 3 * heads * 128 * 3 * 2)


def mamba2(layers: int, heads: int, state: int) -> int:
    """Mamba 2 with heads of 64, 8 groups, a convolution over 4 tokens and matrices in 32 bits."""
    inner = heads * 64
    return layers * (inner * state * 4 + (inner + 2 * 8 * state) * 3 * 2)


INDEX = 128 + 4  # the key of an indexer in 8 bits, and its scale
PACKED = 656  # a latent vector in 8 bits with scales, as sparse attention keeps it
V4_FLASH = 21 * (584 + INDEX) / 4 + 20 * 584 / 128
V4_PRO = 30 * (584 + INDEX) / 4 + 31 * 584 / 128
NANO, SUPER, ULTRA = mamba2(23, 64, 128), mamba2(40, 128, 128), mamba2(48, 256, 128)

RIGHT = {
    # dense models with grouped-query attention
    "Qwen/Qwen3-1.7B": Right(gqa(28, 8, 128), billions=1.72),
    "Qwen/Qwen3-8B": Right(gqa(36, 8, 128), billions=8.2),
    "Qwen/Qwen3-32B-FP8": Right(gqa(64, 8, 128), billions=32.8),
    "Qwen/Qwen3-32B-FP8-Static-PerTensor": Right(gqa(64, 8, 128, 1), billions=32.8),
    "Qwen/Qwen3-VL-8B-Instruct": Right(gqa(36, 8, 128), billions=8.2),
    "Qwen/Qwen3-VL-32B-Thinking": Right(gqa(64, 8, 128), billions=32.8),
    "meta-llama/Meta-Llama-3.1-70B": Right(gqa(80, 8, 128), billions=70.6),
    "nvidia/Llama-3.1-70B-Instruct-FP8": Right(gqa(80, 8, 128, 1), billions=70.6),
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": Right(gqa(49, 8, 128), billions=49.9),
    "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4": Right(gqa(80, 8, 128), billions=70.6),
    "ibnzterrell/Nvidia-Llama-3.1-Nemotron-70B-Instruct-HF-AWQ-INT4": Right(
        gqa(80, 8, 128), billions=70.6
    ),
    "casperhansen/llama-3-70b-instruct-awq": Right(gqa(80, 8, 128), billions=70.6),
    "Qwen/Qwen2.5-72B-Instruct-AWQ": Right(gqa(80, 8, 128), billions=72.7),
    "Qwen/Qwen2-72B-Instruct-AWQ": Right(gqa(80, 8, 128), billions=72.7),
    "Qwen/Qwen1.5-72B-Chat-AWQ": Right(gqa(80, 64, 128), billions=72.3),
    "Qwen/Qwen1.5-110B-Chat-AWQ": Right(gqa(80, 8, 128), billions=111),
    "Qwen/Qwen2.5-7B-Instruct-AWQ": Right(gqa(28, 4, 128), billions=7.62),
    "Qwen/Qwen2.5-7B-Instruct": Right(gqa(28, 4, 128), billions=7.62),
    "hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4": Right(gqa(32, 8, 128), billions=8.03),
    "meta-llama/Llama-3.1-8B-Instruct": Right(gqa(32, 8, 128), billions=8.03),
    "solidrust/Mistral-7B-Instruct-v0.3-AWQ": Right(gqa(32, 8, 128), billions=7.25),
    "mistralai/Mistral-7B-Instruct-v0.3": Right(gqa(32, 8, 128), billions=7.25),
    "mistralai/Ministral-3-8B-Base-2512": Right(gqa(34, 8, 128), billions=8.5),
    "HuggingFaceTB/SmolLM3-3B": Right(gqa(36, 4, 128), billions=3.08),
    # experts with grouped-query attention
    "MiniMaxAI/MiniMax-M2.5": Right(gqa(62, 8, 128), (256, 8), 229),
    "nvidia/MiniMax-M2.5-NVFP4": Right(gqa(62, 8, 128, 1), (256, 8), 229),
    "nvidia/MiniMax-M2.7-NVFP4": Right(gqa(62, 8, 128, 1), (256, 8), 229),
    # 57 of the 60 layers have an indexer, whose keys of 128 stay in 16 bits.
    "MiniMaxAI/MiniMax-M3": Right(gqa(60, 4, 128) + 57 * 128 * 2, (128, 4), 427),
    "nvidia/MiniMax-M3-NVFP4": Right(gqa(60, 4, 128) + 57 * 128 * 2, (128, 4), 427),
    "Qwen/Qwen3-30B-A3B": Right(gqa(48, 4, 128), (128, 8), 30.5),
    "Qwen/Qwen3-VL-30B-A3B-Instruct": Right(gqa(48, 4, 128), (128, 8), 30.5),
    "Qwen/Qwen3-235B-A22B": Right(gqa(94, 4, 128), (128, 8), 235),
    "Qwen/Qwen3-VL-235B-A22B-Instruct": Right(gqa(94, 4, 128), (128, 8), 235),
    "nvidia/Qwen3-235B-A22B-NVFP4": Right(gqa(94, 4, 128, 1), (128, 8), 235),
    "mistralai/Mixtral-8x22B-v0.1": Right(gqa(56, 8, 128), (8, 2), 141),
    "MaziyarPanahi/Mixtral-8x22B-Instruct-v0.1-AWQ": Right(gqa(56, 8, 128), (8, 2), 141),
    "MaziyarPanahi/WizardLM-2-8x22B-AWQ": Right(gqa(56, 8, 128), (8, 2), 141),
    "zai-org/GLM-4.7-FP8": Right(gqa(92, 8, 128), (160, 8), 355),
    "upstage/Solar-Open-100B": Right(gqa(48, 8, 128), (128, 8), 102),
    "tencent/Hy3-preview": Right(gqa(80, 8, 128), (192, 8), 295),
    # windows and chunks
    "google/gemma-3-27b-it": Right(gqa(10, 16, 128), billions=27, windows=(52, 2 * 16 * 128 * 2, 1024)),
    "google/gemma-3-12b-it": Right(gqa(8, 8, 256), billions=11.8, windows=(40, 2 * 8 * 256 * 2, 1024)),
    "google/gemma-3-4b-it": Right(gqa(5, 4, 256), billions=3.88, windows=(29, 2 * 4 * 256 * 2, 1024)),
    "hugging-quants/gemma-2-9b-it-AWQ-INT4": Right(
        gqa(21, 8, 256), billions=9.24, windows=(21, 2 * 8 * 256 * 2, 4096)
    ),
    "wzhouad/gemma-2-9b-it-WPO-HB": Right(
        gqa(21, 8, 256), billions=9.24, windows=(21, 2 * 8 * 256 * 2, 4096)
    ),
    # The last 15 of 35 layers have no cache of their own: 4 of the first 20 keep all tokens.
    "google/gemma-3n-E4B": Right(gqa(4, 2, 256), windows=(16, 2 * 2 * 256 * 2, 512)),
    # The layers that keep all tokens have 2 heads of 512, the others 8 of 256.
    "google/gemma-4-26B-A4B": Right(gqa(5, 2, 512), (128, 8), 25.8, (25, 2 * 8 * 256 * 2, 1024)),
    "nvidia/Gemma-4-26B-A4B-NVFP4": Right(gqa(5, 2, 512, 1), (128, 8), 25.8, (25, 2 * 8 * 256, 1024)),
    "openai/gpt-oss-120b": Right(gqa(18, 8, 64), (128, 4), 116.8, (18, 2 * 8 * 64 * 2, 128)),
    "openai/gpt-oss-20b": Right(gqa(12, 8, 64), (32, 4), 20.9, (12, 2 * 8 * 64 * 2, 128)),
    # Keys of 192 and values of 128: 4 heads with all tokens, 8 with a window.
    "XiaomiMiMo/MiMo-V2-Flash": Right(9 * 4 * 320 * 2, (256, 8), 309, (39, 8 * 320 * 2, 128)),
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": Right(
        gqa(12, 8, 128), (16, 1), 108, (36, 2 * 8 * 128 * 2, 8192)
    ),
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": Right(
        gqa(12, 8, 128), (128, 1), 401, (36, 2 * 8 * 128 * 2, 8192)
    ),
    "stepfun-ai/Step-3.7-Flash": Right(gqa(12, 8, 128), (288, 8), 196, (33, 2 * 8 * 128 * 2, 512)),
    "stepfun-ai/Step-3.7-Flash-FP8": Right(gqa(12, 8, 128), (288, 8), 196, (33, 2 * 8 * 128 * 2, 512)),
    "poolside/Laguna-XS.2-FP8": Right(gqa(10, 8, 128, 1), (256, 8), 33, (30, 2 * 8 * 128, 512)),
    "poolside/Laguna-S-2.1-FP8": Right(gqa(12, 8, 128, 1), (256, 10), None, (36, 2 * 8 * 128, 512)),
    "meta-models/Muse-Glimmer-30B": Right(gqa(13, 2, 128), windows=(39, 2 * 2 * 128 * 2, 2048)),
    # Without `layer_types`, the class of Mellum takes all layers for full ones.
    "JetBrains/Mellum2-12B-A2.5B-Base": Right(gqa(28, 4, 128), (64, 8), 12),
    # 55 of 66 layers have a window and 16 heads; every layer keeps inputs of its convolutions.
    "thinkingmachines/Inkling": Right(gqa(11, 8, 128), (256, 6), None, (55, 2 * 16 * 128 * 2, 512)),
    # linear attention and Mamba
    "Qwen/Qwen3-Next-80B-A3B-Thinking": Right(gqa(12, 2, 256), (512, 10), 80, state=gdn(36, 32, 2)),
    "Qwen/Qwen3.5-27B": Right(gqa(16, 4, 256), billions=27, state=gdn(48, 48)),
    "nvidia/Qwen3.6-27B-NVFP4": Right(gqa(16, 4, 256, 1), billions=27, state=gdn(48, 48)),
    "nvidia/Qwen3.5-122B-A10B-NVFP4": Right(gqa(12, 2, 256, 1), (256, 8), 122, state=gdn(36, 64)),
    "Qwen/Qwen3.5-397B-A17B": Right(gqa(15, 2, 256), (512, 10), 397, state=gdn(45, 64)),
    "nvidia/Qwen3.5-397B-A17B-NVFP4": Right(gqa(15, 2, 256, 1), (512, 10), 397, state=gdn(45, 64)),
    "nvidia/Nemotron-H-56B-Base-8K": Right(gqa(10, 8, 128), billions=56.3, state=mamba2(54, 256, 256)),
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": Right(gqa(6, 2, 128), (128, 6), 31.6, state=NANO),
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4": Right(gqa(6, 2, 128, 1), (128, 6), 31.6, state=NANO),
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8": Right(
        gqa(8, 2, 128, 1), (512, 22), 120, state=SUPER
    ),
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4": Right(
        gqa(8, 2, 128, 1), (512, 22), 120, state=SUPER
    ),
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": Right(
        gqa(12, 2, 128), (512, 22), 550, state=ULTRA
    ),
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-FP8": Right(
        gqa(12, 2, 128, 1), (512, 22), 550, state=ULTRA
    ),
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4": Right(
        gqa(12, 2, 128, 1), (512, 22), 550, state=ULTRA
    ),
    "moonshotai/Kimi-K3": Right(mla(24), (896, 16), state=kda(69, 96)),
    # 11 layers of latent vectors without rotary keys, whose indexer has a key for 16 tokens
    "zai-org/GLM-5.3-Flash": Right(11 * (512 * 2 + INDEX / 16), (288, 8), state=kda(34, 64)),
    # latent vectors
    "moonshotai/Kimi-K2-Instruct": Right(mla(61), (384, 8), 1026),
    "moonshotai/Kimi-K2-Thinking": Right(mla(61), (384, 8), 1026),
    "nvidia/Kimi-K2.5-NVFP4": Right(mla(61, 1), (384, 8), 1026),
    "nvidia/Kimi-K2.6-NVFP4": Right(mla(61, 1), (384, 8), 1026),
    "nvidia/Kimi-K2.7-Code-NVFP4": Right(mla(61, 1), (384, 8), 1026),
    "zai-org/GLM-4.7-Flash": Right(mla(47), (64, 4), 30),
    "skt/A.X-K1": Right(mla(61), (192, 8), 519),
    "meituan-longcat/LongCat-Flash-Chat": Right(mla(2 * 28), (512, 12), 560),
    # latent vectors and an indexer
    "deepseek-ai/DeepSeek-V3.2": Right(mla(61) + 61 * INDEX, (256, 8), 671),
    "nvidia/DeepSeek-V3.2-NVFP4": Right(61 * (PACKED + INDEX), (256, 8), 671),
    "zai-org/GLM-5-FP8": Right(mla(78) + 78 * INDEX, (256, 8), 744),
    "zai-org/GLM-5.1": Right(mla(78) + 78 * INDEX, (256, 8), 744),
    "nvidia/GLM-5-NVFP4": Right(78 * (PACKED + INDEX), (256, 8), 744),
    "nvidia/GLM-5.1-NVFP4": Right(78 * (PACKED + INDEX), (256, 8), 744),
    # An indexer for the first 3 layers and then for every fourth: 21 of 78.
    "zai-org/GLM-5.2": Right(mla(78) + 21 * INDEX, (256, 8), 744),
    "nvidia/GLM-5.2-NVFP4": Right(78 * PACKED + 21 * INDEX, (256, 8), 744),
    "tencent/Hy4-preview": Right(mla(34) + 10 * INDEX, (256, 8)),
    # compressed rows beside windows of packed rows
    "deepseek-ai/DeepSeek-V4-Flash": Right(V4_FLASH, (256, 6), 284, (43, 584, 128)),
    "nvidia/DeepSeek-V4-Flash-NVFP4": Right(V4_FLASH, (256, 6), 284, (43, 584, 128)),
    "sgl-project/DeepSeek-V4-Flash-FP8": Right(V4_FLASH, (256, 6), 284, (43, 584, 128)),
    "nvidia/DeepSeek-V4-Pro-NVFP4": Right(V4_PRO, (384, 6), 1600, (61, 584, 128)),
}


def read(name: str) -> Checkpoint:
    """The checkpoint as a folder with one tensor of 60 GiB would give it."""
    entry = CONFIGS[name]
    return from_metadata(entry["config"], {"a": 60 << 30}, entry.get("hf_quant_config"), name=name)


def cache_value(checkpoint: Checkpoint) -> int:
    """Bytes of a value in the KV cache where the checkpoint decides."""
    return 1 if checkpoint.kv_dtype == "fp8" else 2


def billions(name: str, found: Checkpoint) -> float:
    config = CONFIGS[name]["config"]
    text = config.get("text_config", config)
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", "gemma" in name))
    tables = (1 if tied else 2) * found.vocab * found.hidden
    return (found.dense_parameters + found.expert_parameters + tables) / 1e9


def test_every_real_config_has_a_right_value() -> None:
    assert set(RIGHT) == set(CONFIGS)
    assert len(RIGHT) >= 90


@pytest.mark.parametrize("name", RIGHT)
def test_kv_per_token_is_what_vllm_allocates(name: str) -> None:
    found, right = read(name), RIGHT[name]
    value = cache_value(found)
    kept = sum(k.layers * k.token_bytes(value) for k in found.attention if not k.window_tokens)
    # Rows that several tokens share are rounded up to whole bytes.
    assert right.kv <= kept <= right.kv * 1.004


@pytest.mark.parametrize("name", RIGHT)
def test_windows_are_those_of_the_architecture(name: str) -> None:
    found, right = read(name), RIGHT[name]
    value = cache_value(found)
    windows = [
        (k.layers, k.token_bytes(value), k.window_tokens) for k in found.attention if k.window_tokens
    ]
    if right.windows is None:
        assert windows == []
    else:
        assert right.windows in windows
        # What is left are the states of compressors and convolutions.
        assert all(row == right.windows or row[2] <= 128 for row in windows)


@pytest.mark.parametrize("name", RIGHT)
def test_states_and_experts_are_those_of_the_architecture(name: str) -> None:
    found, right = read(name), RIGHT[name]
    assert found.state_bytes == right.state
    assert (found.experts, found.experts_used) == right.experts


@pytest.mark.parametrize("name", [name for name, right in RIGHT.items() if right.billions])
def test_parameters_are_as_many_as_published(name: str) -> None:
    assert billions(name, read(name)) == pytest.approx(RIGHT[name].billions, rel=0.03)


@pytest.mark.parametrize("name", RIGHT)
def test_the_numbers_of_every_real_config_are_understood(name: str) -> None:
    config = CONFIGS[name]["config"]
    text = config.get("text_config", config)
    numbers = read_numbers(config, text, CONFIGS[name].get("hf_quant_config"))
    quantized = "quantization_config" in config or "quantization_config" in text
    assert (numbers.method is not None) is (quantized or "hf_quant_config" in CONFIGS[name])
