"""Reading judgements, difficulties and gamed rows."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.scores import preferences
from jobs.scores.columns import PreferencesError
from jobs.scores.preferences import Gamed, Preferences, read_gamed, read_preferences

HEAD = "generator,index,row,preference,len_1,len_2\n"
GAMED = "preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline,model\n"
TEXT = HEAD + "a,9,1,1.25,10,20\nb,0,0,2,1,2\na,3,0,,11,21\n"
NO_SET = ("set: the file does not tell its instructions",)
A = Preferences("a", (0, 1), (None, 1.25), (11, 10), (21, 20), "J", "B", reasons=NO_SET)
B = Preferences("b", (0,), (2.0,), (1,), (2,), "J", "B", reasons=NO_SET)


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
def test_judgements_come_by_generator_in_row_order(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXT.encode()) if name.endswith(".gz") else TEXT.encode())
    assert read_preferences(path, judge="J", baseline="B") == [A, B]


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert read_preferences(path, judge="J", baseline="B") == [A, B]


def test_without_a_verdict_there_is_no_win() -> None:
    assert A.wins() == [0.25]


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
        (read_preferences, "generator,row\na,1\n", "no column 'preference' among ["),
        (read_preferences, "preference,row\n1,1\n", "no column 'generator', 'len_1', 'len_2' among ["),
        (read_preferences, "preference,generator,len_1,len_2\n1,a,1,1\n", "no column 'row' among ["),
        (read_preferences, "", "no lines below its header"),
        (read_preferences, HEAD.replace("index", "row"), "has 2 columns 'row'"),
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
        (read_preferences, HEAD + "a,0,0,1,1,\n", "column 'len_2': '' is not a whole number"),
        (read_preferences, HEAD + "a,0,0,1,1\n", "line 2 has not as many fields as the first line"),
        (
            read_preferences,
            HEAD + "a,0,7,1,1,1\na,1,7,1,1,1\n",
            "line 3, column 'row': '7' is not a row that the generator does not have yet",
        ),
        (read_preferences, HEAD + 'a,"0"x,0,1,1,1\n', "line 2 is not CSV"),
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
        ("x.csv", b"generator\xff\xff"),
    ],
    ids=["missing", "no gzip", "cut", "no UTF-8"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PreferencesError, match=f"cannot read .*{name}"):
        read_preferences(path)
