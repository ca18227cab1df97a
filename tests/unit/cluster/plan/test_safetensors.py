"""Which tensors of a folder count, and what is said of files that are cut or do not belong together."""

import json
import struct
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from cluster.plan.checkpoint import UnknownCheckpoint, from_folder

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}
INDEX = "model.safetensors.index.json"


def write(file: Path, sizes: dict[str, int]) -> None:
    file.parent.mkdir(exist_ok=True)
    ends = list(accumulate(sizes.values()))
    header = {n: {"data_offsets": [e - s, e]} for (n, s), e in zip(sizes.items(), ends, strict=True)}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(ends[-1]))


def index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a checkpoint of 444 bytes in two files, their index, and files that the index does
    not name: the same weights in other formats, and weights of another day."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    write(tmp_path / "model-00001-of-00002.safetensors", {"a": 400, "b": 40})
    write(tmp_path / "model-00002-of-00002.safetensors", {"c": 4})
    index(
        tmp_path,
        {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00001-of-00002.safetensors",
            "c": "model-00002-of-00002.safetensors",
        },
    )
    write(tmp_path / "consolidated.safetensors", {"layers.0.a": 444})
    write(tmp_path / "original" / "model.safetensors", {"x": 444})
    write(tmp_path / "metal" / "model.safetensors", {"y": 444})
    write(tmp_path / "model-of-another-day.safetensors", {"z": 5000})
    return tmp_path


def test_only_files_that_the_index_names_are_counted(folder: Path) -> None:
    assert from_folder(folder).weight_bytes == 444


def test_without_an_index_a_second_format_is_not_counted(folder: Path) -> None:
    (folder / INDEX).unlink()
    (folder / "model-of-another-day.safetensors").unlink()
    assert from_folder(folder).weight_bytes == 444


def test_weights_in_mistrals_own_format_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    write(tmp_path / "consolidated.safetensors", {"a": 64})
    with pytest.raises(UnknownCheckpoint, match="Mistral's own format"):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        (
            {"a": "model-00009.safetensors"},
            "names 'model-00009.safetensors', and there is no such file",
        ),
        ({"q": "model-00002-of-00002.safetensors"}, "holds 'q', and it does not"),
        ({"a": "../model.safetensors"}, "not the name of a file in the folder"),
        ({"a": "original/model.safetensors"}, "not the name of a file in the folder"),
        ({"a": 7}, "no names of files"),
        ({}, "no 'weight_map'"),
        (None, "no 'weight_map'"),
        (["a"], "no 'weight_map'"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(folder: Path, weight_map: Any, said: str) -> None:
    index(folder, weight_map)
    with pytest.raises(UnknownCheckpoint, match=said):
        from_folder(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_an_index_that_is_no_object_is_refused(folder: Path, text: str) -> None:
    (folder / INDEX).write_text(text)
    with pytest.raises(UnknownCheckpoint, match=r"index\.json"):
        from_folder(folder)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no safetensors file"),
        (b"\0\0\0", "is no safetensors file"),
        (struct.pack("<Q", 2**63), "its length would be 9223372036854775808"),
        (struct.pack("<Q", 10**8 + 1), "its length would be 100000001"),
        (struct.pack("<Q", 1000) + b"{}", "ends in its header"),
        (struct.pack("<Q", 4) + b"nope", "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
        (struct.pack("<Q", 2) + b"\xff\xfe", "not JSON"),
        (struct.pack("<Q", 8) + b'{"a": 1}', "no place for its tensor 'a'"),
    ],
)
def test_a_file_that_is_cut_or_no_safetensors_is_refused(
    tmp_path: Path, data: bytes, said: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(UnknownCheckpoint, match=said):
        from_folder(tmp_path)


@pytest.mark.parametrize("offsets", [[0], [4, 0], [-1, 4], ["0", "4"], None, [0, 10.5]])
def test_a_tensor_without_a_place_is_refused(tmp_path: Path, offsets: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    text = json.dumps({"a": {"data_offsets": offsets}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(UnknownCheckpoint, match="no place for its tensor 'a'"):
        from_folder(tmp_path)


def test_a_file_that_is_not_fetched_to_its_end_is_refused(folder: Path) -> None:
    file = folder / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UnknownCheckpoint, match="is not complete"):
        from_folder(folder)
