"""Files that stand where weights should be: each is named as what it is, with what to do."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.plan.checkpoint import UnknownCheckpoint, from_folder, from_gguf
from cluster.plan.file_kind import foreign
from cluster.plan.gguf import NotGguf, parse_header, read_header
from tests.unit.fake_hub import checkpoint, gguf_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4920734272\n"
PAGE = b"\n<!DOCTYPE html>\n<html><body>Log in</body></html>"
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
BLOB = "ab" * 32
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "layers": [
            {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{BLOB}", "size": 9},
            {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:00", "size": 9},
        ],
    }
).encode()
STAND_INS = {
    "empty": (b"", "it is empty: a download or copy has not begun"),
    "pointer": (POINTER, "pointer of git-lfs.*`git lfs pull`"),
    "page": (PAGE, "it is a web page, and not weights.*`hf download`"),
    "denied": (DENIED, "it is a web page"),
    "zeros": (bytes(5000), "it begins with zeros alone"),
    "answer": (b"Entry not found", "it is a text, and not weights"),
    "secret": (b"root:x:0:0:root:/root:/bin/bash\n", "it is a text, and not weights"),
    "json": (b'{"error":"Repository not found"}', "it is a text, and not weights"),
    "ollama": (MANIFEST, f"manifest of Ollama: its weights are the file blobs/sha256-{BLOB}"),
    "pickle": (pickle.dumps({"a": 1}), "file of PyTorch"),
    "gzip": (b"\x1f\x8b\x08" + bytes(20), r"it is packed \(gzip\): unpack it"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(20), r"it is packed \(zstd\): unpack it"),
    "old": (b"tjgg" + bytes(20), "from before GGUF"),
    "noise": (b"\x00\x01\x02\x03\x04\x05", r"it is not a GGUF file \(it begins with"),
}


@pytest.mark.parametrize("kind", STAND_INS)
def test_what_is_no_gguf_file_is_named(kind: str, tmp_path: Path) -> None:
    content, words = STAND_INS[kind]
    (tmp_path / "w.gguf").write_bytes(content)
    with pytest.raises(UnknownCheckpoint, match=f"cannot understand 'w.gguf': .*{words}") as raised:
        from_gguf(tmp_path / "w.gguf")
    assert "\n" not in str(raised.value)
    assert "root:" not in str(raised.value)  # a file's content never reaches a message


def test_safetensors_and_archives_by_the_name_of_a_gguf(tmp_path: Path) -> None:
    shard = checkpoint()["model-00001-of-00002.safetensors"]
    (tmp_path / "s.gguf").write_bytes(shard)
    with pytest.raises(NotGguf, match="it holds safetensors: the engine vllm takes their folder"):
        read_header(tmp_path / "s.gguf")
    with zipfile.ZipFile(tmp_path / "z.gguf", "w") as archive:
        archive.writestr("data.pkl", b"x")
    with pytest.raises(NotGguf, match="it is a zip archive or a file of PyTorch"):
        read_header(tmp_path / "z.gguf")


@pytest.mark.parametrize("missing", [1, 1000, 1500])
def test_a_file_that_is_cut_in_its_last_tensor_is_named_with_both_sizes(
    missing: int, tmp_path: Path
) -> None:
    whole = gguf_file()
    needed = len(whole) - 3200 + 1800  # 32 x 100 values in Q4_0; the rest is padding
    (tmp_path / "w.gguf").write_bytes(whole[: needed - missing])
    with pytest.raises(
        NotGguf, match=f"the file is cut: it has {needed - missing} bytes and needs {needed}"
    ):
        read_header(tmp_path / "w.gguf")
    (tmp_path / "w.gguf").write_bytes(whole[:needed])
    assert read_header(tmp_path / "w.gguf").tensors[0].stored_bytes == 1800


@pytest.mark.parametrize("length", [4, 5, 23, 24, 100, 200])
def test_a_file_that_is_cut_in_its_header_is_named(length: int, tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(gguf_file()[:length])
    with pytest.raises(NotGguf, match="it has a broken GGUF header, or is cut within it"):
        read_header(tmp_path / "w.gguf")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (b"\x01\0\0\0", "it is GGUF of version 1, and llama.cpp reads 2 and 3"),
        (b"\0\0\0\x03", r"puts? the highest byte first \(big-endian\)"),
    ],
)
def test_other_versions_of_gguf_are_named(version: bytes, words: str) -> None:
    with pytest.raises(NotGguf, match=words):
        parse_header(b"GGUF" + version + gguf_file()[8:], 10**6)


def test_a_download_of_aria2_has_its_full_length_and_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(gguf_file())
    (tmp_path / "w.gguf.aria2").touch()
    with pytest.raises(NotGguf, match=r"its download is not finished: aria2 has its \.aria2 file"):
        read_header(tmp_path / "w.gguf")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a whole checkpoint."""
    for name, content in checkpoint().items():
        (tmp_path / name).write_bytes(content)
    assert from_folder(tmp_path).weight_bytes == 2 * (4096 + 64)
    return tmp_path


@pytest.mark.parametrize("kind", ["empty", "pointer", "page", "zeros", "answer", "gzip"])
@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json", "tokenizer.json"])
def test_what_stands_in_a_folder_in_place_of_a_file_is_named(
    folder: Path, name: str, kind: str
) -> None:
    content, words = STAND_INS[kind]
    (folder / name).write_bytes(content)
    with pytest.raises(UnknownCheckpoint, match=f"cannot understand the model in .*{name}.*{words}"):
        from_folder(folder)


def test_a_shard_that_is_cut_is_named(folder: Path) -> None:
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UnknownCheckpoint, match=f"{shard.name}' is not complete: it has"):
        from_folder(folder)


@pytest.mark.parametrize("make", [gguf_file, lambda: b"\x89\x00\xff\xfe" * 9])
def test_what_is_not_known_is_not_named(make: Callable[[], bytes]) -> None:
    assert foreign(make(), 100) is None
