"""What the makers of a model advise: generation_config.json of a folder, general.sampling.* of GGUF."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from cluster.plan.advised_sampling import advised_sampling
from cluster.plan.checkpoint import UnknownCheckpoint

QWEN3 = {
    "bos_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "max_new_tokens": 2048,
    "transformers_version": "4.51.0",
}


def gguf(path: Path, keys: dict[str, float | int | bool | str]) -> Path:
    """A GGUF file without tensors that has these keys."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    out = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys))
    for key, value in keys.items():
        if isinstance(value, bool):
            out += string(key) + struct.pack("<I?", 7, value)
        elif isinstance(value, str):
            out += string(key) + struct.pack("<I", 8) + string(value)
        elif isinstance(value, int):
            out += string(key) + struct.pack("<Ii", 5, value)
        else:
            out += string(key) + struct.pack("<If", 6, value)
    path.write_bytes(out)
    return path


@pytest.mark.parametrize(
    ("config", "advised"),
    [
        (QWEN3, {"temperature": 0.6, "top_k": 20, "top_p": 0.95}),
        ({}, {}),
        ({"do_sample": False, "temperature": None, "top_p": None}, {}),
        (
            {"top_k": 20.0, "min_p": 0, "temperature": 1},
            {"top_k": 20, "min_p": 0.0, "temperature": 1.0},
        ),
        (
            {"repetition_penalty": 1.05, "presence_penalty": 1.5, "frequency_penalty": 0.0},
            {"repetition_penalty": 1.05, "presence_penalty": 1.5, "frequency_penalty": 0.0},
        ),
    ],
    ids=["qwen3", "empty", "nulls", "kinds of numbers", "penalties"],
)
def test_a_folder_advises_what_vllm_takes(
    tmp_path: Path, config: dict[str, Any], advised: dict[str, Any]
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    assert advised_sampling(tmp_path) == advised


def test_a_folder_without_the_file_advises_nothing(tmp_path: Path) -> None:
    assert advised_sampling(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "cannot read which sampling"),
        ("[1]", "generation_config.json is no JSON object"),
        ('{"temperature": "0.6"}', "temperature '0.6'"),
        ('{"temperature": -1}', "temperature -1.0"),
        ('{"top_p": 0}', "top_p 0.0"),
        ('{"top_k": 1.5}', "top_k 1.5"),
        ('{"top_k": true}', "top_k True"),
        ('{"min_p": NaN}', "min_p nan"),
        ("[" * 100_000, "cannot read which sampling"),
        ('{"a": "' + "x" * 2**20 + '"}', "more than 1048576 bytes"),
    ],
    ids=["cut", "list", "text", "negative", "zero", "fraction", "boolean", "nan", "deep", "long"],
)
def test_a_file_that_cannot_be_right_is_told_in_one_line(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(UnknownCheckpoint) as refused:
        advised_sampling(tmp_path)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_gguf_file_advises_by_its_own_keys(tmp_path: Path) -> None:
    keys: dict[str, float | int | bool | str] = {
        "general.architecture": "gemma4",
        "general.sampling.temp": 1.0,
        "general.sampling.top_p": 0.95,
        "general.sampling.top_k": 64,
        "general.sampling.min_p": 0.05,
        "general.sampling.penalty_repeat": 1.1,
        "general.sampling.mirostat": 0,
    }
    assert advised_sampling(gguf(tmp_path / "m.gguf", keys)) == {
        "temperature": 1.0,
        "top_p": 0.95,
        "top_k": 64,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
    }
    assert advised_sampling(gguf(tmp_path / "none.gguf", {"general.architecture": "llama"})) == {}


def test_a_gguf_file_that_cannot_be_right_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownCheckpoint, match="top_p 7"):
        advised_sampling(gguf(tmp_path / "m.gguf", {"general.sampling.top_p": 7.0}))
    (tmp_path / "cut.gguf").write_bytes(b"GGUF")
    with pytest.raises(UnknownCheckpoint, match=r"cut\.gguf"):
        advised_sampling(tmp_path / "cut.gguf")
