"""Answers in the forms of FastChat and Arena-Hard, with the ids that the set has."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.engine import Message
from jobs.export import export
from jobs.export_answers import ExportError
from jobs.records import Answer, Generator, Row
from jobs.sets.outputs import ImportSummary, import_outputs
from jobs.store import Store


def answered(folder: Path, *rows: Row) -> Store:
    """A store in which `org/model` has answered every turn of these rows."""
    store = Store.open(folder)
    store.add_rows(rows)
    store.add_generator(Generator("org/model", "model", "1"))
    store.add_answers(
        Answer("org/model", row.index, turn, f"answer {row.index}.{turn}", at=12.5)
        for row in rows
        for turn in range(len(row.turns))
    )
    return store


def written(store: Store, path: Path, form: str) -> list[dict[str, Any]]:
    export(store, "org/model", path, form)
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


TWO_TURNS = (Row(0, ("a", "b"), id=81), Row(1, ("c", "d"), id=82))
ONE_TURN = Row(0, ("Grüße?",), (Message(role="system", content="s"),), id="3f0a")


def test_fastchat_gets_all_turns_under_the_questions_ids(tmp_path: Path) -> None:
    with answered(tmp_path / "run", *TWO_TURNS) as store:
        first, second = written(store, tmp_path / "m.jsonl", "fastchat")
        assert written(store, tmp_path / "m.jsonl", "fastchat")[0]["answer_id"] == first["answer_id"]
    assert len(first.pop("answer_id")) == 22
    assert first == {
        "question_id": 81,
        "model_id": "org/model",
        "choices": [{"index": 0, "turns": ["answer 0.0", "answer 0.1"]}],
        "tstamp": 12.5,
    }
    assert list(second) == ["question_id", "answer_id", "model_id", "choices", "tstamp"]


def test_arena_hard_gets_the_conversation(tmp_path: Path) -> None:
    with answered(tmp_path / "run", ONE_TURN) as store:
        (line,) = written(store, tmp_path / "m.jsonl", "arena_hard")
        (old,) = written(store, tmp_path / "m.jsonl", "arena_hard_turns")
    assert line.pop("ans_id") == old.pop("answer_id")
    assert line == {
        "uid": "3f0a",
        "model": "org/model",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "Grüße?"},
            {"role": "assistant", "content": {"answer": "answer 0.0"}},
        ],
        "tstamp": 12.5,
    }
    assert old["question_id"] == "3f0a"
    assert old["choices"] == [{"index": 0, "turns": [{"content": "answer 0.0"}]}]


@pytest.mark.parametrize("form", ["fastchat", "arena_hard", "arena_hard_turns", "jsonl"])
def test_what_is_written_comes_back(tmp_path: Path, form: str) -> None:
    rows = (ONE_TURN,) if form == "arena_hard" else TWO_TURNS
    with answered(tmp_path / "run", *rows) as store:
        path = tmp_path / "m.jsonl"
        export(store, "org/model", path, form)
        assert import_outputs(store, path, "again") == ImportSummary(len(rows), len(rows), (), 0, 0)
        pairs = zip(store.answers("org/model"), store.answers("again"), strict=True)
        assert all(ours.text == theirs.text for ours, theirs in pairs)


def test_what_the_tools_could_not_find_is_not_written(tmp_path: Path) -> None:
    with answered(tmp_path / "run", Row(0, ("a",)), Row(1, ("b", "c"), id=1)) as store:
        for form, message in (
            ("fastchat", "row 0 has no id, by which FastChat and Arena-Hard find an answer"),
            ("arena_hard", "row 0 has no id"),
        ):
            with pytest.raises(ExportError, match=message):
                export(store, "org/model", tmp_path / "m.jsonl", form)
    with (
        answered(tmp_path / "two", *TWO_TURNS) as store,
        pytest.raises(ExportError, match="holds one turn; row 0 has 2: export fastchat"),
    ):
        export(store, "org/model", tmp_path / "m.jsonl", "arena_hard")
    assert not (tmp_path / "m.jsonl").exists()
