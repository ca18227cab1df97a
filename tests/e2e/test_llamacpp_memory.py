"""The bytes that a plan counts for llama.cpp are those that llama.cpp prints for real weights."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.engine import Share
from actors.engines.llamacpp_params import load_server, native_params
from actors.weights.files import fetch
from cluster.plan.checkpoint import from_gguf
from cluster.plan.footprint import footprint
from configs.load import load
from configs.schema import LlamaCppModel
from tests.e2e.gguf_edit import invented

pytestmark = pytest.mark.weights

SMOLLM = load("tiny_cpu").models["smollm2-135m"]
INFO = 4
"""The verbosity with which llama.cpp prints sizes."""


def printed(tmp_path: Path, model: LlamaCppModel, path: Path, draft: Path | None) -> str:
    """llama.cpp's log of a load."""
    params = native_params(model, Share(threads=2), path, draft)
    params.verbosity, params.warmup = INFO, False
    params.hostnames, params.api_keys = [str(tmp_path / "s.sock")], ["key"]
    _server, errors = load_server(params, tmp_path / "log")
    assert errors == []
    return (tmp_path / "log").read_text("utf-8")


def sums(text: str, pattern: str) -> float:
    return sum(float(found) for found in re.findall(pattern, text))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"context_tokens": 1000, "concurrency": 3},
        {"kv_cache_type": "f32"},
        {"kv_cache_type": "bf16", "flash_attention": "off"},
        {"kv_cache_type": "q8_0"},
        {"kv_cache_type": "q5_1"},
        {"kv_cache_type": "q5_0"},
        {"kv_cache_type": "q4_1"},
        {"kv_cache_type": "q4_0", "flash_attention": "on"},
        {"kv_cache_type": "iq4_nl"},
        {"kv_cache_type": {"k": "q8_0", "v": "f16"}, "flash_attention": "off"},
        {"kv_cache_type": {"k": "q8_0", "v": "q4_0"}, "speculation": "ngram"},
        {"kv_cache_type": "q4_0", "speculation": {"method": "draft", "tokens": 4, "draft": []}},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values())[:40] or "defaults",
)
def test_bytes_are_those_that_llamacpp_prints(settings: dict[str, Any], tmp_path: Path) -> None:
    assert isinstance(SMOLLM, LlamaCppModel)
    path = fetch("smollm", SMOLLM.weights)
    given: dict[str, Any] = {
        "engine": "llamacpp",
        "weights": [{"path": str(path)}],
        "context_tokens": 512,
    } | settings
    draft = None
    if "draft" in str(settings):
        given["speculation"] = given["speculation"] | {"draft": given["weights"]}
        draft = path
    model, checkpoint = LlamaCppModel.model_validate(given), from_gguf(path)
    if draft is not None:
        checkpoint = replace(checkpoint, draft=checkpoint)
    found = footprint(model, checkpoint, "cpu")
    text = printed(tmp_path, model, path, draft)
    assert round(found.kv / 2**20, 2) == pytest.approx(
        sums(text, r"KV buffer size = +([\d.]+) MiB"), abs=0.011
    )
    weights = sums(text, r"model buffer size = +([\d.]+) MiB")
    assert found.weights / 2**20 == pytest.approx(weights, abs=0.011)
    step = sums(text, r"(?:compute|output) buffer size = +([\d.]+) MiB")
    assert found.activations / 2**20 > step


def gemma3(source: Path, target: Path) -> Path:
    """Seven layers, of which the sixth attends to everything and the others to a window."""
    tensors: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (64, 49152),
        "output_norm.weight": (64,),
    }
    layer: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"), (64,)),
        **dict.fromkeys(("attn_q_norm", "attn_k_norm"), (32,)),
        **dict.fromkeys(("attn_k", "attn_v"), (64, 32)),
        **dict.fromkeys(("attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down"), (64, 64)),
    }
    for n in range(7):
        tensors |= {f"blk.{n}.{name}.weight": shape for name, shape in layer.items()}
    keys = {
        "block_count": 7,
        "context_length": 8192,
        "embedding_length": 64,
        "feed_forward_length": 64,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "attention.sliding_window": 300,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    return invented(source, target, "gemma3", keys, tensors)


def mamba(source: Path, target: Path) -> Path:
    """Two layers with a state each, and no cache."""
    tensors: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (64, 49152),
        "output_norm.weight": (64,),
    }
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (64,),
        "ssm_in.weight": (64, 256),
        "ssm_conv1d.weight": (4, 128),
        "ssm_conv1d.bias": (128,),
        "ssm_x.weight": (128, 4 + 2 * 16),
        "ssm_dt.weight": (4, 128),
        "ssm_dt.bias": (128,),
        "ssm_a": (16, 128),
        "ssm_d": (128,),
        "ssm_out.weight": (128, 64),
    }
    for n in range(2):
        tensors |= {f"blk.{n}.{name}": shape for name, shape in layer.items()}
    keys = {
        "block_count": 2,
        "context_length": 8192,
        "embedding_length": 64,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": 128,
        "ssm.state_size": 16,
        "ssm.time_step_rank": 4,
    }
    return invented(source, target, "mamba", keys, tensors)


@pytest.mark.parametrize("make", [gemma3, mamba])
@pytest.mark.parametrize(
    "settings",
    [{}, {"context_tokens": 4000, "concurrency": 3}, {"speculation": "ngram", "concurrency": 2}],
    ids=["small", "large", "speculation"],
)
def test_windows_and_states_are_those_that_llamacpp_prints(
    make: Callable[[Path, Path], Path], settings: dict[str, Any], tmp_path: Path
) -> None:
    assert isinstance(SMOLLM, LlamaCppModel)
    path = make(fetch("smollm", SMOLLM.weights), tmp_path / "invented.gguf")
    given: dict[str, Any] = {"engine": "llamacpp", "weights": [{"path": str(path)}]}
    model = LlamaCppModel.model_validate(given | {"context_tokens": 512} | settings)
    text = printed(tmp_path, model, path, None)
    caches = sums(text, r"(?:KV|RS) buffer size = +([\d.]+) MiB")
    found = footprint(model, from_gguf(path), "cpu")
    assert found.kv / 2**20 == pytest.approx(caches, abs=0.021)
