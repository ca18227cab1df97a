"""The bytes that a plan counts for llama.cpp are those that llama.cpp prints for real weights."""

import json
import re
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

pytestmark = pytest.mark.weights

SMOLLM = load("tiny_cpu").models["smollm2-135m"]
INFO = 4
"""The verbosity with which llama.cpp prints sizes."""


def printed(tmp_path: Path, model: LlamaCppModel, path: Path, draft: Path | None) -> str:
    """llama.cpp's log of a load."""
    params = native_params(model, Share(threads=2), path, draft)
    params.verbosity, params.warmup = INFO, False
    params.hostnames, params.api_keys = [str(tmp_path / "s.sock")], ["key"]
    server, errors = load_server(params, tmp_path / "log")
    assert errors == []
    # A server that ends before its loop has begun waits forever. After an answer the loop runs.
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "stream": True}
    server.handle_chat_completions(json.dumps(body), lambda _chunk: False)
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
