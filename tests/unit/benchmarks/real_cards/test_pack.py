"""Parts for a machine without a network: cut to size, in order of worth, checked when unpacked."""

import os
import zipfile
from pathlib import Path

import pytest

from benchmarks.real_cards.pack import (
    MIB,
    PART_MIB,
    Group,
    PackError,
    Stack,
    main,
    pack,
    read_stack,
    unpack,
)

STACK = Stack(
    python="3.12",
    leave_out=("vllm/_fa2*.so", "*/tests/*"),
    groups=(
        Group("engine", ("vllm==1",)),
        Group("ray", ("ray==2",)),
        Group("experts", (), takes=("vllm/_moe*.so",)),
    ),
)


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as written:
        for file, content in files.items():
            written.writestr(file, content)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    wheel(
        folder / "engine",
        "vllm",
        {
            "vllm/__init__.py": b"version = 1",
            "vllm/_fa3.so": os.urandom(50_000),
            "vllm/_fa2.so": os.urandom(50_000),
            "vllm/_moe_C.so": os.urandom(30_000),
            "vllm/tests/test_a.py": b"",
            "vllm-1.data/purelib/extra.py": b"more = 2",
            "vllm-1.data/scripts/vllm": b"#!",
        },
    )
    wheel(folder / "ray", "ray", {"ray/__init__.py": b"ray = 3", "ray/core.so": os.urandom(60_000)})
    return folder


def test_parts_are_full_and_hold_the_groups_in_order_of_worth(tmp_path: Path, wheels: Path) -> None:
    pieces = pack(STACK, wheels, tmp_path / "out", part_bytes=40_000)
    assert [piece.group for piece in pieces] == ["engine"] * 2 + ["ray"] * 2 + ["experts"] * 2
    sizes: dict[int, int] = {}
    for piece in pieces:
        file = tmp_path / "out" / f"part{piece.part}" / piece.file
        assert file.stat().st_size == piece.size
        sizes[piece.part] = sizes.get(piece.part, 0) + piece.size
    *full, last = sizes.values()
    assert set(full) == {40_000}
    assert 0 < last <= 40_000


def test_a_group_is_there_as_soon_as_its_parts_are(tmp_path: Path, wheels: Path) -> None:
    pieces = pack(STACK, wheels, tmp_path / "out", part_bytes=40_000)
    there = tmp_path / "there"
    site = there / "site"
    last_of_engine = max(piece.part for piece in pieces if piece.group == "engine")
    assert unpack(tmp_path / "out/part1", there) == ([], ["engine", "ray", "experts"])
    assert last_of_engine == 2
    assert unpack(tmp_path / "out/part2", there) == (["engine"], ["ray", "experts"])
    assert (site / "vllm/__init__.py").read_bytes() == b"version = 1"
    assert (site / "extra.py").exists()  # from purelib
    assert not (site / "vllm/_moe_C.so").exists()
    for number in range(3, max(piece.part for piece in pieces) + 1):
        whole, missing = unpack(tmp_path / f"out/part{number}", there)
    assert (whole, missing) == (["engine", "ray", "experts"], [])
    assert (site / "vllm/_moe_C.so").stat().st_size == 30_000
    assert (site / "ray/core.so").exists()
    left_out = ("vllm/_fa2.so", "vllm/tests/test_a.py", "vllm-1.data")
    assert [name for name in left_out if (site / name).exists()] == []


def test_a_part_may_come_twice_and_in_any_order(tmp_path: Path, wheels: Path) -> None:
    pieces = pack(STACK, wheels, tmp_path / "out", part_bytes=40_000)
    numbers = sorted({piece.part for piece in pieces}, reverse=True)
    for number in [*numbers, numbers[0]]:
        whole, _ = unpack(tmp_path / f"out/part{number}", tmp_path / "there")
    assert whole == ["engine", "ray", "experts"]


def test_a_damaged_piece_is_refused_by_name(tmp_path: Path, wheels: Path) -> None:
    pack(STACK, wheels, tmp_path / "out", part_bytes=1 << 20)
    piece = tmp_path / "out/part1/engine.tar.xz.00"
    piece.write_bytes(piece.read_bytes()[:-1] + b"!")
    with pytest.raises(PackError, match=r"engine\.tar\.xz\.00 is damaged: carry part 1 again"):
        unpack(tmp_path / "out/part1", tmp_path / "there")


def test_the_same_wheels_give_the_same_parts(tmp_path: Path, wheels: Path) -> None:
    assert pack(STACK, wheels, tmp_path / "a", 40_000) == pack(STACK, wheels, tmp_path / "b", 40_000)


@pytest.mark.parametrize("content", [None, "[]x", '[{"group": "engine"}]'])
def test_a_folder_that_is_no_part_is_refused(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content:
        (tmp_path / "manifest.json").write_text(content)
    assert main(["unpack", str(tmp_path), "--to", str(tmp_path / "there")]) == 1
    assert "is no part of a stack" in capsys.readouterr().err


def test_the_stack_of_the_project_has_exact_versions_and_ray_after_the_engine() -> None:
    stack = read_stack()
    assert [group.name for group in stack.groups] == ["engine", "ray", "experts"]
    packages = [package for group in stack.groups for package in group.packages]
    assert {"vllm==0.26.0", "ray==2.60.0"} <= set(packages)
    names = [package.split("==")[0] for package in packages]
    assert len(set(names)) == len(names)
    assert not {"torch", "transformers", "numpy"} & set(names)  # the machine has its own


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "cannot read the stack"),
        (
            'python = "3.12"\n[[group]]\nname = "a"\npackages = ["ray"]',
            "'ray' in stack.toml needs an exact",
        ),
        (
            'python = "3.12"\n' + 2 * '[[group]]\nname = "a"\npackages = []\n',
            "two groups of stack.toml have one name",
        ),
    ],
)
def test_a_stack_with_mistakes_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "stack.toml").write_text(text)
    with pytest.raises(PackError, match=said):
        read_stack(tmp_path / "stack.toml")


def test_a_part_and_the_project_fit_into_one_call() -> None:
    assert PART_MIB * MIB + 4.5 * MIB <= 64 * MIB
