"""Files as people have them: other endings, delimiters, encodings and compressions, doubled names."""

import bz2
import gzip
import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.records import Row
from jobs.sets import SetError, load_set
from tests.unit.jobs.sets.set_files import write_file

ROWS = [Row(0, ('a "ü"; b,\tc',), id="1"), Row(1, ("two\nlines",), id="2")]
LINES = '{"prompt": "a \\"ü\\"; b,\\tc", "id": "1"}\n{"prompt": "two\\nlines", "id": "2"}\n'


def table(delimiter: str, line_end: str = "\n") -> str:
    """ROWS as a table of text."""
    lines = [["prompt", "id"], ['"a ""ü""; b,\tc"', "1"], ['"two\nlines"', "2"]]
    return "".join(delimiter.join(line) + line_end for line in lines)


def test_a_set_reads_alike_whatever_its_file_is(tmp_path: Path) -> None:
    contents: dict[str, str | bytes] = {
        "s.ndjson": LINES,
        "s.jsonlines": LINES,
        "S.JSONL": LINES,
        "windows.jsonl": LINES.replace("\n", "\r\n"),
        "lines.json": LINES,
        "list.jsonl": json.dumps([json.loads(line) for line in LINES.splitlines()], indent=1),
        "pandas.json": json.dumps(
            {"prompt": {r.index: r.turns[0] for r in ROWS}, "id": {0: "1", 1: "2"}}
        ),
        "wrapped.json": json.dumps({"version": 1, "data": [json.loads(x) for x in LINES.splitlines()]}),
        "commas.csv": table(","),
        "semicolons.csv": table(";", "\r\n"),
        "excel.csv": "\ufeffsep=;\r\n" + table(";", "\r\n"),
        "tabs.csv": table("\t"),
        "tabs.tsv": table("\t", "\r\n"),
        "commas.tsv": table(","),
        "mac.csv": table(",", "\r"),
        "spaces.csv": table(",").replace("prompt,id", " prompt , id"),
        "excel16.csv": table("\t").encode("utf-16"),
        "plain16.jsonl": LINES.encode("utf-16-le"),
        "big32.jsonl": LINES.encode("utf-32"),
        "s.jsonl.bz2": bz2.compress(LINES.encode()),
        "s.csv.xz": lzma.compress(table(";").encode()),
        "s.tsv.gz": gzip.compress(table("\t").encode()),
        "unnamed.jsonl": gzip.compress(LINES.encode()),
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        assert list(load_set(path).rows) == ROWS, name


@pytest.mark.parametrize("name", ["s.jsonl.zst", "unnamed.jsonl"])
def test_zstandard_is_read_by_pyarrow(tmp_path: Path, name: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / name
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write(LINES.encode())
    assert list(load_set(path).rows) == ROWS


def test_without_pyarrow_zstandard_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SetError, match=r"Zstandard needs pyarrow: .*slimmoa\[bench\].*zstd -d"):
        load_set(write_file(tmp_path, "s.jsonl.zst", "x"))


def doubled_parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    columns = pyarrow.Table.from_arrays([["a"], ["b"]], names=["prompt", "prompt"])
    pytest.importorskip("pyarrow.parquet").write_table(columns, path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.csv", "prompt,id,prompt\na,1,b\n", "s.csv has 2 columns 'prompt'; rename all but one"),
        ("s.tsv", "prompt\tid\t id\na\t1\t2\n", "s.tsv has 2 columns 'id'"),
        ("s.jsonl", '{"prompt": "a"}\n{"prompt": "b", "prompt": "c"}', "line 2: .* 'prompt' twice"),
        ("s.json", '[{"messages": [{"role": "user", "role": "user"}]}]', "the field 'role' twice"),
        ("s.parquet", doubled_parquet, "several columns 'prompt'"),
    ],
    ids=["csv", "tsv", "jsonl", "json", "parquet"],
)
def test_two_values_of_one_name_are_refused(
    tmp_path: Path, name: str, content: str | Callable[[Path], None], message: str
) -> None:
    path = tmp_path / name
    path.write_text(content) if isinstance(content, str) else content(path)
    with pytest.raises(SetError, match=message):
        load_set(path)


@pytest.mark.parametrize("name", ["question_id", "uid", "custom_id"])
def test_two_prompts_of_one_id_are_refused(tmp_path: Path, name: str) -> None:
    text = "".join(json.dumps({name: 7, "prompt": prompt}) + "\n" for prompt in "ab")
    with pytest.raises(
        SetError, match=f"s.jsonl, line 2, field '{name}': 7 is the id of s.jsonl, line 1"
    ):
        load_set(write_file(tmp_path, "s.jsonl", text))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.csv", "prompt\nü\n".encode("latin-1"), "not text in UTF-8 or UTF-16 .*iconv"),
        ("s.jsonl", b'{"prompt": "half \\ud800"}', "has '.ud800', half of a character, at 5"),
        ("s.jsonl", b"[" * 100_000, "nested too deeply"),
        ("s.json", b'{"a": 1, "b": 2}', r"holds one dict \('a', 'b'\); a list of objects is needed"),
        ("s.jsonl.bz2", b"no", "cannot read .*s.jsonl.bz2"),
        ("s.jsonl.xz", b"no", "cannot read .*s.jsonl.xz"),
    ],
    ids=["latin-1", "surrogate", "deep", "object", "bz2", "xz"],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SetError, match=message):
        load_set(tmp_path / name)


@pytest.mark.parametrize(
    ("value", "turns"),
    [("Was?", ("Was?",)), (["a", "b"], ("a", "b")), ([{"role": "user", "content": "x"}], ("x",))],
)
def test_a_column_of_any_name_can_hold_the_prompts(
    tmp_path: Path, value: object, turns: tuple[str, ...]
) -> None:
    path = write_file(tmp_path, "s.json", json.dumps([{"frage": value, "prompt": "another"}]))
    assert list(load_set(path, column="frage").rows) == [Row(0, turns)]
    quoted = json.dumps(value).replace('"', '""') if isinstance(value, list) else value
    path = write_file(tmp_path, "s.csv", f'frage,prompt\n"{quoted}",another\n')
    assert list(load_set(path, column="frage").rows) == [Row(0, turns)]


def test_rows_after_an_offset_keep_their_positions(tmp_path: Path) -> None:
    path = write_file(tmp_path, "s.csv", "prompt\na\nb\nc\nd\n")
    assert list(load_set(path, 2, offset=1).rows) == [Row(1, ("b",)), Row(2, ("c",))]
    assert load_set(path, offset=3).count == 1
    with pytest.raises(SetError, match="has no rows from --offset 4 on"):
        load_set(path, offset=4)
