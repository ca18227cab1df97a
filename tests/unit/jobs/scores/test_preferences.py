"""Reading judgements, difficulties and gamed rows."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.scores import preferences
from jobs.scores.preferences import (
    Gamed,
    Preferences,
    PreferencesError,
    read_difficulty,
    read_gamed,
    read_preferences,
)

HEAD = "generator,index,row,preference,len_1,len_2\n"
GAMED = "preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline,model\n"
TEXT = HEAD + "a,9,1,1.25,10,20\nb,0,0,2,1,2\na,3,0,,11,21\n"
A = Preferences("a", (0, 1), (None, 1.25), (11, 10), (21, 20), "J", "B")
B = Preferences("b", (0,), (2.0,), (1,), (2,), "J", "B")


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
def test_judgements_come_by_generator_in_row_order(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT.encode()) if name.endswith(".gz") else TEXT.encode())
    assert read_preferences(path, judge="J", baseline="B") == {"a": A, "b": B}


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert read_preferences(path, judge="J", baseline="B") == {"a": A, "b": B}


def test_without_a_verdict_there_is_no_win() -> None:
    assert A.wins() == [0.25]


@pytest.mark.parametrize("head", ["index,instruction_difficulty", ",instruction_difficulty"])
def test_difficulties_come_by_index(tmp_path: Path, head: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(f"{head}\n0,0.5\n2,-1e-3\n0,0.5\n")  # the gamed file names each index twice
    assert read_difficulty(path) == {0: 0.5, 2: -0.001}


def test_gamed_rows_are_called_by_their_file_unless_it_is_the_official_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.csv"
    path.write_text(GAMED + "0.25,0,-1.5,0.75,False,m\n")
    columns = (0.25,), (-1.5,), (0.75,)
    assert read_gamed(path) == Gamed("g.csv", *columns)
    assert read_gamed(path, "reconstruction") == Gamed("reconstruction", *columns)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(preferences, "OFFICIAL_GAMED_SHA256", checksum)
    assert read_gamed(path).source == "official file"


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_preferences, "generator,row\na,1\n", "no column 'preference', 'len_1', 'len_2' among ["),
        (read_preferences, "", "no column 'generator'"),
        (read_preferences, HEAD, "no lines below its header"),
        (
            read_preferences,
            HEAD + "a,0,0,1,1,1\na,1,1,2.5,1,1\n",
            "line 3, column 'preference': '2.5' is not a number from 1 to 2",
        ),
        (read_preferences, HEAD + "a,0,0,0.9,1,1\n", "'0.9' is not a number from 1 to 2"),
        (read_preferences, HEAD + "a,0,0,nan,1,1\n", "'nan' is not a number from 1 to 2"),
        (read_preferences, HEAD + "a,0,0,m,1,1\n", "column 'preference': 'm' is not a number"),
        (read_preferences, HEAD + ",0,0,1,1,1\n", "line 2, column 'generator': '' is not a name"),
        (read_preferences, HEAD + "a,0,-1,1,1,1\n", "column 'row': '-1' is not a whole number"),
        (read_preferences, HEAD + "a,0,0,1,1.5,1\n", "column 'len_1': '1.5' is not a whole number"),
        (read_preferences, HEAD + "a,0,0,1,1\n", "column 'len_2': '' is not a whole number"),
        (
            read_preferences,
            HEAD + "a,0,7,1,1,1\na,1,7,1,1,1\n",
            "line 3, column 'row': '7' is not a row that the generator does not have yet",
        ),
        (read_preferences, HEAD + 'a,"0"x,0,1,1,1\n', "line 2: not CSV"),
        (
            read_difficulty,
            "index,instruction_difficulty\n3,1\n3,2\n",
            "line 3, column 'instruction_difficulty': '2' is not index 3's value above, 1.0",
        ),
        (read_difficulty, "index,instruction_difficulty\n3,inf\n", "'inf' is not a finite number"),
        (read_gamed, GAMED + "1.5,0,0,0,False,m\n", "'1.5' is not a number from 0 to 1"),
        (read_gamed, GAMED + "1,0,0,0,True,m\n", "column 'not_gamed_baseline': 'True' is not False"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, read: Callable[[Path], object], text: str, message: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(PreferencesError) as caught:
        read(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("none.csv", None),
        ("x.csv.gz", b"generator"),
        ("x.csv.gz", gzip.compress(TEXT.encode())[:-20]),
        ("x.csv", b"\xff\xfe"),
    ],
    ids=["missing", "no gzip", "cut", "no UTF-8"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PreferencesError, match=f"cannot read .*{name}"):
        read_preferences(path)
