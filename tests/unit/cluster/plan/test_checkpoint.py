"""What files say of a model: every byte of their tensors, and the shape."""

import json
import pickle
import struct
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from actors.weights.files import cached
from cluster.plan.checkpoint import (
    Attention,
    UnknownCheckpoint,
    from_config,
    from_folder,
    from_gguf,
    from_shapes,
    shapes,
)
from cluster.plan.gguf import NotGguf, read_header
from configs.load import load
from configs.schema import LlamaCppModel

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}
MLA = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128}
# Totals in the index files that their owners publish ("total_size").
PUBLISHED = {
    "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4": 39_767_785_472,
    "meta-llama/Llama-3.1-8B-Instruct": 16_060_522_496,
    "Qwen/Qwen2.5-7B-Instruct": 15_231_233_024,
    "mistralai/Mistral-7B-Instruct-v0.3": 14_496_047_104,
    "wzhouad/gemma-2-9b-it-WPO-HB": 18_483_411_968,
}


def write_safetensors(file: Path, sizes: dict[str, int]) -> None:
    ends = list(accumulate(sizes.values()))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for (name, size), end in zip(sizes.items(), ends, strict=True):
        header[name] = {"dtype": "I32", "shape": [size // 4], "data_offsets": [end - size, end]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(ends[-1]))


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def write_gguf(file: Path, keys: dict[str, int | list[str]], tensors: dict[str, int]) -> None:
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys) + 1)
    out += string("general.architecture") + struct.pack("<I", 8) + string("llama")
    for key, value in keys.items():
        out += string(key)
        if isinstance(value, int):
            out += struct.pack("<II", 4, value)
        else:
            out += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(string, value))
    at = 0
    for name, size in tensors.items():
        out += string(name) + struct.pack("<IQQIQ", 2, 32, size // 32, 2, at)
        at += size
    file.write_bytes(out + bytes(-len(out) % 32) + bytes(at))


def test_safetensors_are_counted_to_the_byte(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    write_safetensors(tmp_path / "model-1.safetensors", {"model.embed_tokens.weight": 128_000, "a": 40})
    write_safetensors(tmp_path / "model-2.safetensors", {"lm_head.weight": 128_000, "b.qweight": 4096})
    found = from_folder(tmp_path)
    assert found.weight_bytes == 128_000 + 40 + 128_000 + 4096
    assert found.lookup_bytes == 128_000
    assert (found.layers, found.query_width) == (2, 64)
    assert found.attention == (Attention(2, 2 * 2 * 8),)
    assert sorted(found.tensor_bytes) == [40, 4096, 128_000, 128_000]
    assert found.most_tokens == 2048


def test_tied_embeddings_are_read_by_the_output(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    write_safetensors(tmp_path / "model.safetensors", {"model.embed_tokens.weight": 128_000})
    assert from_folder(tmp_path).lookup_bytes == 0


@pytest.mark.parametrize("broken", ["config", "no weights", "cut", "not a header"])
def test_a_folder_that_cannot_be_understood_is_refused(broken: str, tmp_path: Path) -> None:
    config = {} if broken == "config" else LLAMA
    (tmp_path / "config.json").write_text(json.dumps(config))
    file = tmp_path / "model.safetensors"
    if broken != "no weights":
        write_safetensors(file, {"a": 64})
    if broken == "cut":
        file.write_bytes(file.read_bytes()[:5])
    if broken == "not a header":
        file.write_bytes(struct.pack("<Q", 4) + b"nope")
    with pytest.raises(UnknownCheckpoint):
        from_folder(tmp_path)


def test_gguf_tensors_are_counted_to_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    keys: dict[str, int | list[str]] = {
        "llama.block_count": 2,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 256,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 2,
        "llama.context_length": 2048,
        "tokenizer.ggml.tokens": [f"token {n}" for n in range(5000)],
    }
    write_gguf(file, keys, {"token_embd.weight": 640, "output.weight": 320, "blk.0.ffn_up.weight": 96})
    found = from_gguf(file)
    assert found.weight_bytes == 640 + 320 + 96
    assert found.lookup_bytes == 640
    assert (found.vocab, found.ffn, found.most_tokens) == (5000, 256, 2048)
    assert found.attention == (Attention(2, 32),)


@pytest.mark.parametrize("size", [0, 3, 30, 60, 200])
def test_a_cut_gguf_is_refused(size: int, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.gguf", tmp_path / "cut.gguf"
    write_gguf(whole, {"llama.block_count": 2}, {"a": 64, "b": 4096})
    cut.write_bytes(whole.read_bytes()[:size])
    with pytest.raises((NotGguf, ValueError)):
        read_header(cut)
    with pytest.raises(UnknownCheckpoint):
        from_gguf(cut)


@pytest.mark.weights
@pytest.mark.parametrize(
    ("model", "tensor_bytes", "tensors", "kv_width"),
    # Counted by the reader of the `gguf` package, 0.19.0.
    [("smollm2-135m", 96_576_768, 272, 384), ("qwen2.5-coder-0.5b", 485_452_288, 291, 256)],
)
def test_real_gguf_files_are_counted_to_the_byte(
    model: str, tensor_bytes: int, tensors: int, kv_width: int
) -> None:
    settings = load("tiny_cpu").models[model]
    assert isinstance(settings, LlamaCppModel)
    file = cached(settings.weights)
    if file is None:
        pytest.skip("its weights are not in the cache")
    header, found = read_header(file), from_gguf(file)
    assert len(header.tensors) == tensors
    assert found.weight_bytes == sum(t.stored_bytes for t in header.tensors) == tensor_bytes
    assert [kind.kv_width for kind in found.attention] == [kv_width]
    assert found.is_quantized


@pytest.mark.parametrize(("hub", "total"), PUBLISHED.items())
def test_bundled_shapes_have_the_published_bytes(hub: str, total: int) -> None:
    assert shapes()[hub]["weight_bytes"] == total


WORKED_OUT = {hub: shape for hub, shape in shapes().items() if "bytes_are" not in shape}
"""The shapes whose bytes the format decides; the others leave some layers in 16 bits."""


@pytest.mark.parametrize(("hub", "shape"), WORKED_OUT.items(), ids=WORKED_OUT)
def test_bundled_bytes_follow_from_the_shape_and_the_format(hub: str, shape: dict[str, Any]) -> None:
    config = shape["config"]
    hidden, heads, head = config["hidden_size"], config["num_attention_heads"], config["head_dim"]
    kv, experts = config["num_key_value_heads"] * head, config.get("num_local_experts", 1)
    linear = 2 * hidden * (heads * head + kv) + 3 * hidden * config["intermediate_size"] * experts
    # AWQ, groups of 128: 4 bits each, a 4-bit zero and a 16-bit scale per group.
    stored = linear * (4 + (4 + 16) / 128) / 8 if "quantization_config" in config else 2 * linear
    norms = (4 if config["model_type"] == "gemma2" else 2) * hidden
    biases = heads * head + 2 * kv if config["model_type"] == "qwen2" else 0
    router = hidden * experts if experts > 1 else 0
    tables = 1 if config["tie_word_embeddings"] else 2
    blocks = config["num_hidden_layers"] * (stored + 2 * (norms + biases + router))
    assert shape["weight_bytes"] == blocks + 2 * hidden + 2 * tables * config["vocab_size"] * hidden
    found = from_shapes(hub)
    assert found is not None
    assert found.is_quantized is ("quantization_config" in config)


def test_mixtures_of_experts_read_what_their_tokens_hit() -> None:
    found = from_shapes("MaziyarPanahi/Mixtral-8x22B-Instruct-v0.1-AWQ")
    assert found is not None
    assert found.active_parameters == pytest.approx(39e9, rel=0.02)  # as its maker says
    assert 0.25 < found.read_bytes(1) / found.weight_bytes < 0.30
    assert found.read_bytes(64) == pytest.approx(found.weight_bytes - found.lookup_bytes, rel=1e-4)


@pytest.mark.parametrize(
    ("keys", "width", "windows"),
    [
        (MLA | {"model_type": "deepseek_v3"}, 576, 0),
        (MLA | {"model_type": "minicpm3"}, 2 * 8 * 192, 0),  # vLLM caches its whole keys and values
        # The class of Gemma has heads of 256.
        ({"model_type": "gemma2", "sliding_window": 4096, "num_hidden_layers": 42}, 1024, 21),
        ({"model_type": "gemma3_text", "sliding_window": 512, "num_hidden_layers": 26}, 1024, 22),
        ({"sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"]}, 32, 1),
        ({"sliding_window": 4096, "model_type": "mistral"}, 32, 2),
        ({"sliding_window": 4096, "use_sliding_window": False}, 32, 0),
        ({"sliding_window": None}, 32, 0),
        ({"num_key_value_heads": None}, 128, 0),
    ],
)
def test_caches_are_as_wide_as_the_attention(keys: dict[str, Any], width: int, windows: int) -> None:
    found = from_config(LLAMA | keys, 10_000, 0)
    assert {kind.kv_width for kind in found.attention} == {width}
    assert sum(kind.layers for kind in found.attention if kind.window_tokens) == windows
    assert sum(kind.layers for kind in found.attention) == found.layers


def test_a_pickle_by_the_name_of_a_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(pickle.dumps({"weight": list(range(100))}))
    with pytest.raises(NotGguf, match=r"a file of PyTorch .* which can run code"):
        read_header(path)
