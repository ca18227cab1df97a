"""GGUF files: caches by layer as llama.cpp keeps them, states, experts, and headers that cannot be."""

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.plan.checkpoint import Attention, Checkpoint, UnknownCheckpoint, from_gguf
from configs.errors import UserError

KEYS: dict[str, Any] = {
    "block_count": 4,
    "embedding_length": 64,
    "feed_forward_length": 256,
    "attention.head_count": 8,
    "attention.head_count_kv": 2,
    "context_length": 2048,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}
TENSORS = {"token_embd.weight": (64, 50), "output.weight": (64, 50), "blk.0.ffn_up.weight": (64, 256)}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def value(item: Any) -> bytes:
    """A value of the metadata with its type before it."""
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    if isinstance(item, int):
        return struct.pack("<IQ", 10, item) if item >= 0 else struct.pack("<Iq", 11, item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + text(item)
    inner = value(item[0])[:4] if item else struct.pack("<I", 4)
    items = b"".join(value(i)[4:] for i in item)
    return struct.pack("<I", 9) + inner + struct.pack("<Q", len(item)) + items


def write(file: Path, family: str, keys: dict[str, Any], tensors: dict[str, tuple[int, int]]) -> None:
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys) + 1)
    out += text("general.architecture") + value(family)
    for key, item in keys.items():
        out += text(key if key.startswith("tokenizer.") else f"{family}.{key}") + value(item)
    at = 0
    for name, (row, rows) in tensors.items():
        out += text(name) + struct.pack("<IQQIQ", 2, row, rows, 0, at)
        at += 4 * row * rows
    file.write_bytes(out + bytes(-len(out) % 32) + bytes(at))


def read(tmp_path: Path, family: str = "llama", **keys: Any) -> Checkpoint:
    """The checkpoint of a file with KEYS and these; "x__y" stands for "x.y", None for no key."""
    given = {name.replace("__", "."): item for name, item in keys.items()}
    merged = {name: item for name, item in (KEYS | given).items() if item is not None}
    write(tmp_path / "model.gguf", family, merged, TENSORS)
    return from_gguf(tmp_path / "model.gguf")


def test_a_short_vocabulary_is_counted(tmp_path: Path) -> None:
    # A list of few tokens was taken for the number of tokens, and any sum with it failed.
    assert read(tmp_path).vocab == 3
    assert read(tmp_path, vocab_size=500).vocab == 500
    assert read(tmp_path, tokenizer__ggml__tokens=None).vocab == 50  # the rows of its table


def test_every_layer_has_its_own_number_of_heads(tmp_path: Path) -> None:
    found = read(tmp_path, "deci", attention__head_count_kv=[2, 0, 4, 2])
    assert set(found.attention) == {Attention(2, 2 * 2 * 8), Attention(1, 4 * 2 * 8)}
    assert found.state_bytes == 0


def test_layers_without_heads_have_a_state_in_32_bits(tmp_path: Path) -> None:
    # Granite 4: Mamba 2 with d_inner 128, d_state 16, one group and a convolution over 4 tokens.
    found = read(
        tmp_path,
        "granitehybrid",
        attention__head_count_kv=[0, 0, 2, 0],
        ssm__conv_kernel=4,
        ssm__inner_size=128,
        ssm__state_size=16,
        ssm__group_count=1,
    )
    assert found.attention == (Attention(1, 2 * 2 * 8),)
    assert found.state_bytes == 3 * 4 * (3 * (128 + 2 * 16) + 128 * 16)


def test_in_nemotron_h_layers_without_heads_may_be_feed_forward_networks(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "nemotron_h",
        attention__head_count_kv=[0, 2, 0, 0],
        feed_forward_length=[0, 0, 256, 0],
        ssm__conv_kernel=4,
        ssm__inner_size=128,
        ssm__state_size=16,
        ssm__group_count=1,
    )
    assert found.state_bytes == 2 * 4 * (3 * (128 + 2 * 16) + 128 * 16)
    assert found.ffn == 256


def test_linear_attention_by_a_period(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "qwen35",
        full_attention_interval=4,
        ssm__conv_kernel=4,
        ssm__inner_size=128,
        ssm__state_size=16,
        ssm__group_count=2,
    )
    assert found.attention == (Attention(1, 32),)
    assert found.state_bytes == 3 * 4 * (3 * (128 + 2 * 2 * 16) + 128 * 16)


def test_short_convolutions(tmp_path: Path) -> None:
    found = read(tmp_path, "lfm2", attention__head_count_kv=[0, 0, 2, 0], shortconv__l_cache=3)
    assert found.state_bytes == 3 * 4 * 64 * 2


@pytest.mark.parametrize(
    ("family", "keys", "windows"),
    [
        ("gemma2", {}, 2),
        ("gemma3", {"block_count": 12}, 10),
        ("gpt-oss", {}, 2),
        ("cohere2", {}, 3),
        ("gemma3", {"attention__sliding_window_pattern": 2}, 2),
        ("gemma4", {"attention__sliding_window_pattern": [True, True, True, False]}, 3),
        ("mimo2", {"attention__sliding_window_pattern": [0, 1, 1, 0]}, 2),
        ("llama", {}, 0),  # a family that is not known to have windows
        ("phi3", {}, 0),
        ("gemma3", {"attention__sliding_window": 0}, 0),
    ],
)
def test_windows_by_family_or_by_layer(
    tmp_path: Path, family: str, keys: dict[str, Any], windows: int
) -> None:
    found = read(tmp_path, family, **({"attention__sliding_window": 512} | keys))
    assert sum(kind.layers for kind in found.attention if kind.window_tokens) == windows
    assert sum(kind.layers for kind in found.attention) == found.layers


def test_layers_with_a_window_have_sizes_of_their_own_and_shared_caches_count_once(
    tmp_path: Path,
) -> None:
    found = read(
        tmp_path,
        "gemma4",
        attention__sliding_window=512,
        attention__sliding_window_pattern=[True, True, False, True],
        attention__head_count_kv=[8, 8, 2, 8],
        attention__key_length=32,
        attention__value_length=32,
        attention__key_length_swa=16,
        attention__value_length_swa=16,
        attention__shared_kv_layers=1,
    )
    assert set(found.attention) == {Attention(2, 8 * 32, 512), Attention(1, 2 * 64)}


def test_latent_attention_keeps_keys_alone(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "deepseek2",
        attention__head_count_kv=1,
        attention__key_length=576,
        attention__value_length=512,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
        attention__kv_lora_rank=512,
    )
    assert found.attention == (Attention(4, 576),)


def test_experts(tmp_path: Path) -> None:
    found = read(
        tmp_path, "qwen3moe", expert_count=8, expert_used_count=2, expert_feed_forward_length=32
    )
    assert (found.experts, found.experts_used, found.ffn) == (8, 2, 32)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"block_count": None}, "block_count"),
        ({"block_count": 0}, "block_count"),
        ({"block_count": 10**9}, "block_count"),
        ({"embedding_length": "wide"}, "embedding_length"),
        ({"attention__head_count_kv": [2, 2]}, "head_count_kv.*2 items for 4 layers"),
        ({"attention__head_count_kv": -2}, "head_count_kv"),
        ({"attention__head_count": [8, 8, -1, 8]}, "head_count"),
        ({"attention__sliding_window_pattern": [True], "attention__sliding_window": 4}, "pattern"),
        ({"feed_forward_length": None}, "feed_forward_length"),
        ({"expert_count": 4, "expert_used_count": 9}, "expert_used_count"),
        ({"ssm__inner_size": 64, "ssm__state_size": 0}, "ssm.state_size"),
        ({"attention__key_length": 1.5}, "key_length"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(
    tmp_path: Path, keys: dict[str, Any], named: str
) -> None:
    with pytest.raises(UnknownCheckpoint, match=named):
        read(tmp_path, **keys)


@pytest.mark.parametrize("alignment", [0, -1, "wide", 1.5])
def test_an_alignment_that_cannot_be_is_refused(tmp_path: Path, alignment: Any) -> None:
    file, key = tmp_path / "model.gguf", text("general.alignment") + value(alignment)
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + bytes(64))
    with pytest.raises(UnknownCheckpoint, match=r"general\.alignment"):
        from_gguf(file)


def test_lists_in_lists_without_end_are_refused(tmp_path: Path) -> None:
    file, lists = tmp_path / "model.gguf", struct.pack("<IQ", 9, 1) * 10_000
    key = text("a") + struct.pack("<I", 9) + lists
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + bytes(64))
    with pytest.raises(UnknownCheckpoint, match="cannot understand"):
        from_gguf(file)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=4), st.integers(0, 700))
def test_spoiled_headers_are_understood_or_refused(tmp_path: Path, noise: bytes, at: int) -> None:
    write(tmp_path / "model.gguf", "llama", KEYS, TENSORS)
    data = bytearray((tmp_path / "model.gguf").read_bytes())
    data[at : at + len(noise)] = noise
    (tmp_path / "model.gguf").write_bytes(data)
    try:
        found = from_gguf(tmp_path / "model.gguf")
    except UserError:
        return
    assert found.layers > 0


def test_a_file_without_a_family_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(8))
    with pytest.raises(UnknownCheckpoint, match=r"general\.architecture"):
        from_gguf(file)
