"""GGUF files in parts: read as one, refused if a part is missing or is another one."""

from pathlib import Path
from typing import Any

import pytest

from cluster.plan.checkpoint import UnknownCheckpoint, from_gguf
from cluster.plan.gguf import file_bytes
from configs.weights import part_names
from tests.unit.cluster.plan.test_gguf_shape import KEYS, write

PARTS: list[dict[str, tuple[int, int]]] = [
    {"token_embd.weight": (64, 50), "blk.0.ffn_up.weight": (64, 256)},
    {"blk.1.ffn_up.weight": (64, 128)},
    {"output.weight": (64, 50)},
]


def split(folder: Path, count: int = 3) -> list[Path]:
    """Write a file in three parts whose headers speak of `count` parts."""
    files = [folder / name for name in part_names("m-00001-of-00003.gguf")]
    for number, (file, tensors) in enumerate(zip(files, PARTS, strict=True)):
        keys: dict[str, Any] = KEYS if number == 0 else {}
        general = {"tokenizer.split.no": number, "tokenizer.split.count": count}
        write(file, "llama", keys | general, tensors)
        file.write_bytes(file.read_bytes().replace(b"tokenizer.split", b"x" * 9 + b".split"))
        rename_keys(file)
    return files


def rename_keys(file: Path) -> None:
    """Cut the prefix that `write` would replace by the family's name."""
    data = file.read_bytes()
    for key in (b"split.no", b"split.count"):
        long = b"x" * 9 + b"." + key
        at = data.index(long)
        data = data[: at - 8] + len(key).to_bytes(8, "little") + key + data[at + len(long) :]
    head = data.rstrip(b"\0")
    file.write_bytes(head + data[len(head) :] + b"\0" * 64)


@pytest.mark.parametrize("number", [0, 2], ids=["first", "last"])
def test_a_split_file_is_planned_as_the_sum_of_its_parts(tmp_path: Path, number: int) -> None:
    files = split(tmp_path)
    found = from_gguf(files[number] if number == 0 else files[2])
    floats = 64 * (50 + 256 + 128 + 50)
    assert found.weight_bytes == pytest.approx(4 * floats, abs=3 * 128)
    assert found.lookup_bytes == pytest.approx(4 * 64 * 50, abs=128)
    assert found.layers == 4
    assert file_bytes(files[0]) == sum(file.stat().st_size for file in files)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    files = split(tmp_path)
    files[1].unlink()
    with pytest.raises(UnknownCheckpoint, match=r"of its 3 parts, 'm-00002-of-00003.gguf' is missing"):
        from_gguf(files[0])


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    files = split(tmp_path)
    alone = files[0].rename(tmp_path / "model.gguf")
    with pytest.raises(UnknownCheckpoint, match=r"says that the file has 3 parts, and its name is not"):
        from_gguf(alone)


def test_parts_in_the_wrong_order_are_refused(tmp_path: Path) -> None:
    files = split(tmp_path)
    spare = files[1].rename(tmp_path / "spare")
    files[2].rename(files[1])
    spare.rename(files[2])
    with pytest.raises(UnknownCheckpoint, match=r"'m-00002-of-00003.gguf' has part 3, not 2"):
        from_gguf(files[0])


def test_headers_and_names_have_to_agree_on_the_number_of_parts(tmp_path: Path) -> None:
    files = split(tmp_path, count=4)
    with pytest.raises(UnknownCheckpoint, match=r"says that the file has 4 parts, and by its name 3"):
        from_gguf(files[0])
