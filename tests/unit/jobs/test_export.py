"""Exports in each form: what is in them, and what they refuse."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.engine import Delta, Message
from jobs import export as exporting
from jobs.export import ExportSummary, export
from jobs.export_answers import ExportError
from jobs.records import Answer, Generator, Row, StoredCall, UsedCall
from jobs.store import Store, StoreError

RowsOf = Callable[[Path], list[int]]

MISSING = {"model": "n", "why": "late"}
RECORD = {
    "row": 0,
    "id": 7,
    "generator": "moa",
    "dataset": "set",
    "category": "math",
    "before": [{"role": "system", "content": "s"}],
    "turns": ["one", "two"],
    "answers": ["Grüße 👋", "zwei"],
    "finish_reasons": ["stop", "length"],
    "proposals": [
        {"turn": 0, "layer": 1, "place": 0, "model": "m", "text": "text of k1", "tokens": 5},
        {"turn": 0, "layer": 2, "place": 1, "model": "m", "text": "text of k2", "tokens": 5},
    ],
    "missing": [{"turn": 1, **MISSING}],
}


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    """A store with one row of two turns. `moa` answered the first turn with two proposals, and the
    second turn, degraded, without any."""
    with Store.open(tmp_path) as store:
        before = (Message(role="system", content="s"),)
        store.add_rows([Row(0, ("one", "two"), before, "set", "math", id=7)])
        store.add_generator(Generator("moa", "mixture", "a1"))
        for key in (b"k0", b"k1", b"k2"):
            await store.keep_call(
                StoredCall(key, "m", 0, Delta(f"text of {key.decode()}", completion_tokens=5))
            )
        used = (UsedCall(0, 0, "m", b"k0"), UsedCall(1, 0, "m", b"k1"), UsedCall(2, 1, "m", b"k2"))
        await store.keep_answer(Answer("moa", 0, 0, "Grüße 👋", used))
        await store.keep_answer(Answer("moa", 0, 1, "zwei", (), (MISSING,), "length"))
        yield store


def answered(folder: Path, rows: list[Row], answers: list[Answer]) -> Store:
    store = Store.open(folder / "run")
    store.add_rows(rows)
    store.add_generator(Generator("moa", "mixture", "a1"))
    store.add_answers(answers)
    return store


def two_of_three(folder: Path) -> Store:
    rows = [Row(index, (f"prompt {index}",), dataset="d") for index in range(3)]
    return answered(folder, rows, [Answer("moa", index, 0, f"answer {index}") for index in (2, 0)])


def test_alpaca_eval_gets_its_fields_in_official_order(tmp_path: Path) -> None:
    with two_of_three(tmp_path) as store:
        store.add_answers([Answer("moa", 1, 0, "Grüße")])
        assert export(store, "moa", tmp_path / "o.json", "alpaca_eval") == ExportSummary(3, 0)
    found = json.loads((tmp_path / "o.json").read_text("utf-8"))
    assert [each["output"] for each in found] == ["answer 0", "Grüße", "answer 2"]
    assert found[1] == {
        "instruction": "prompt 1",
        "output": "Grüße",
        "generator": "moa",
        "dataset": "d",
    }
    assert list(found[1]) == ["instruction", "output", "generator", "dataset"]


def json_rows(path: Path) -> list[int]:
    return [int(each["instruction"].split()[1]) for each in json.loads(path.read_text())]


def jsonl_rows(path: Path) -> list[int]:
    return [json.loads(line)["row"] for line in path.read_text().splitlines()]


def parquet_rows(path: Path) -> list[int]:
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    return list(table.column("row").to_pylist())


FORMS = [("alpaca_eval", json_rows), ("jsonl", jsonl_rows), ("parquet", parquet_rows)]


@pytest.mark.parametrize(("form", "rows_of"), FORMS)
def test_rows_without_an_answer_are_left_out_only_if_that_is_allowed(
    tmp_path: Path, form: str, rows_of: RowsOf
) -> None:
    out = tmp_path / "out"
    with two_of_three(tmp_path) as store:
        with pytest.raises(ExportError, match="'moa' has no answer to 1 of 3 rows"):
            export(store, "moa", out, form)
        assert not out.exists()
        assert export(store, "moa", out, form, allow_partial=True) == ExportSummary(2, 1)
    assert rows_of(out) == [0, 2]


@pytest.mark.parametrize(("form", "rows_of"), FORMS)
def test_nothing_answered_gives_an_empty_file(tmp_path: Path, form: str, rows_of: RowsOf) -> None:
    with answered(tmp_path, [Row(0, ("a",))], []) as store:
        assert export(store, "moa", tmp_path / "o", form, allow_partial=True) == ExportSummary(0, 1)
    assert rows_of(tmp_path / "o") == []


def test_a_row_with_some_of_its_turns_answered_is_left_out(tmp_path: Path) -> None:
    rows = [Row(0, ("a", "b")), Row(1, ("a", "b"))]
    answers = [Answer("moa", 0, 0, "A"), Answer("moa", 1, 0, "A"), Answer("moa", 1, 1, "B")]
    with answered(tmp_path, rows, answers) as store:
        assert export(store, "moa", tmp_path / "o", "jsonl", allow_partial=True) == ExportSummary(1, 1)
    assert jsonl_rows(tmp_path / "o") == [1]


def test_jsonl_holds_all_proposals(store: Store, tmp_path: Path) -> None:
    assert export(store, "moa", tmp_path / "o.jsonl", "jsonl") == ExportSummary(1, 0)
    assert json.loads((tmp_path / "o.jsonl").read_text("utf-8")) == RECORD


def test_parquet_holds_the_same_columns(store: Store, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    export(store, "moa", tmp_path / "o.parquet", "parquet")
    (found,) = parquet.read_table(tmp_path / "o.parquet").to_pylist()
    assert [json.loads(who) for who in found["missing"]] == RECORD["missing"]
    assert {**found, "missing": RECORD["missing"]} == {**RECORD, "id": "7"}


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with (
        two_of_three(tmp_path) as store,
        pytest.raises(ExportError, match=r"slimmoa\[bench\]"),
    ):
        export(store, "moa", tmp_path / "o.parquet", "parquet", allow_partial=True)
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "row", [Row(0, ("a", "b")), Row(0, ("a",), (Message(role="system", content="s"),))]
)
def test_alpaca_eval_refuses_what_it_cannot_hold(tmp_path: Path, row: Row) -> None:
    out = tmp_path / "o.json"
    out.write_text("as it was")
    answers = [Answer("moa", 0, turn, "A") for turn in range(len(row.turns))]
    with (
        answered(tmp_path, [row], answers) as store,
        pytest.raises(ExportError, match=r"row 0 has .*: export jsonl"),
    ):
        export(store, "moa", out, "alpaca_eval")
    assert out.read_text() == "as it was"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["o.json", "run"]


def test_a_file_is_in_place_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o.jsonl"
    seen: list[bool] = []

    def watched(_: Store, found: Iterator[object], file: Any) -> int:
        file.write(b"half")
        file.flush()
        seen.append(out.exists())
        return len(list(found))

    monkeypatch.setitem(exporting._FORMS, "jsonl", watched)
    with two_of_three(tmp_path) as store:
        export(store, "moa", out, "jsonl", allow_partial=True)
    assert seen == [False]
    assert out.read_bytes() == b"half"


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with two_of_three(tmp_path) as store:
        with pytest.raises(ExportError, match="no form 'xml'; there are alpaca_eval, fastchat, arena"):
            export(store, "moa", tmp_path / "o", "xml")
        with pytest.raises(StoreError, match="no generator 'moo'"):
            export(store, "moo", tmp_path / "o", "jsonl")
