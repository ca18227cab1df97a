"""Sets from files of every kind, and what an invalid file is refused with."""

import json
import os
import sys
from pathlib import Path

import pytest

from actors.engine import Message
from jobs.records import Row
from jobs.sets import PUBLIC_SETS, SetError, load_set
from jobs.sets.files import BATCH_ROWS
from tests.unit.jobs.sets.set_files import DATA, needs_data, write_file


def load_rows(path: Path) -> list[Row]:
    return list(load_set(path).rows)


@needs_data
@pytest.mark.parametrize(
    ("file", "column", "first"),
    [
        (
            "alpaca_eval_805",
            "instruction",
            Row(
                0,
                ("What are the names of some famous actors that started their careers on Broadway?",),
                dataset="helpful_base",
            ),
        ),
        (
            "mt_bench",
            "turns",
            Row(
                0,
                (
                    "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting "
                    "cultural experiences and must-see attractions.",
                    "Rewrite your previous response. Start every sentence with the letter A.",
                ),
                category="writing",
                id=81,
                temperature=0.7,
            ),
        ),
        (
            "arena_hard_v0.1",
            "prompt",
            Row(
                0,
                ("Use ABC notation to write a melody in the style of a folk tune.",),
                category="arena-hard-v0.1",
                id="328c149ed45a41c0b9d6f14659e63599",
            ),
        ),
    ],
)
def test_the_public_sets_load_as_they_are(file: str, column: str, first: Row) -> None:
    loaded = load_set(DATA / f"{file}.jsonl")
    rows = list(loaded.rows)
    named = next(hub for name, hub in PUBLIC_SETS.items() if file.startswith(name))
    assert (loaded.name, loaded.column, loaded.count) == (file, column, named.count)
    assert rows[0] == first
    assert [row.index for row in rows] == list(range(named.count))
    assert {len(row.turns) for row in rows} == {len(first.turns)}


@needs_data
def test_mt_bench_has_reference_answers_for_both_turns() -> None:
    rows = load_rows(DATA / "mt_bench.jsonl")
    assert sum(len(row.references) == 2 for row in rows) == 39
    assert sum(not row.references for row in rows) == 41


@pytest.mark.parametrize("name", ["s.json", "s.jsonl", "s.csv", "s.parquet", "s.jsonl.gz", "s.csv.gz"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    prompts = ['two\nlines, "quoted"', "Grüße 👋", "long " * 40_000]
    records = [{"prompt": prompt, "dataset": "d"} for prompt in prompts]
    path = tmp_path / name
    if name.endswith("parquet"):
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(records), path)
    elif ".csv" in name:
        quoted = (prompt.replace('"', '""') for prompt in prompts)
        write_file(tmp_path, name, "prompt,dataset\r\n" + "".join(f'"{q}",d\r\n' for q in quoted))
    elif name == "s.json":
        write_file(tmp_path, name, "\ufeff" + json.dumps(records))
    else:
        write_file(tmp_path, name, "".join(json.dumps(record) + "\n" for record in records) + "\n")
    loaded = load_set(path)
    assert loaded.name == "s"
    assert list(loaded.rows) == [Row(n, (prompt,), dataset="d") for n, prompt in enumerate(prompts)]
    first = write_file(tmp_path, "t.json", json.dumps(records))
    assert loaded.identity == load_set(first).identity


def test_parquet_is_read_in_batches_and_with_lists(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    table = pyarrow.Table.from_pylist([{"messages": messages}] * (BATCH_ROWS + 1))
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "s.parquet")
    rows = load_rows(tmp_path / "s.parquet")
    assert len(rows) == BATCH_ROWS + 1
    assert rows[-1] == Row(BATCH_ROWS, ("u",), (Message(role="system", content="s"),))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SetError, match=r"slimmoa\[bench\]"):
        load_set(write_file(tmp_path, "s.parquet", "x"))


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        ({"turns": ["a", "b"]}, ("a", "b")),
        ({"turns": [{"content": "a"}]}, ("a",)),
        ({"prompt": ["a", "b"]}, ("a", "b")),
        ({"question": "a"}, ("a",)),
        ({"messages": [{"role": "user", "content": "a"}]}, ("a",)),
        ({"instruction": "a", "input": ""}, ("a",)),
        ({"instruction": "Add.", "input": "2 and 2"}, ("Add.\n\n2 and 2",)),
        ({"Question": "a", "Answer": "b"}, ("a",)),
        ({"query": "a", "label": 1}, ("a",)),
        ({"input": [{"role": "user", "content": "a"}], "ideal": "b"}, ("a",)),
        ({"prompt": "a", "input": "x"}, ("a",)),
    ],
)
def test_prompts_are_taken_from_the_known_columns(
    tmp_path: Path, record: dict[str, object], turns: tuple[str, ...]
) -> None:
    assert load_rows(write_file(tmp_path, "s.json", json.dumps([record])))[0].turns == turns


@pytest.mark.parametrize(
    ("fields", "references"),
    [
        ({"answer": "4"}, ("4",)),
        ({"Expected": 4.0}, ("4.0",)),
        ({"target": 1e21}, ("1000000000000000000000",)),
        ({"label": True}, ("true",)),
        ({"reference": float("nan"), "answer": "4"}, ("4",)),
        ({"reference": "", "gold": 0}, ("0",)),
        ({"answers": ["4", "four"]}, ("4", "four")),
        ({"answers": {"text": ["4"], "answer_start": [7]}}, ("4",)),
        ({"ideal": '["4", "four"]'}, ("4", "four")),
        ({"answer": '["cut'}, ('["cut',)),
        ({"answer": None, "output": "a model's answer"}, ()),
    ],
)
def test_right_answers_are_found_under_their_usual_names(
    tmp_path: Path, fields: dict[str, object], references: tuple[str, ...]
) -> None:
    path = write_file(tmp_path, "s.json", json.dumps([{"question": "2 + 2?"} | fields]))
    assert load_rows(path)[0].references == references


def test_rows_of_delimiters_alone_are_no_rows(tmp_path: Path) -> None:
    path = write_file(tmp_path, "s.csv", "Question;Answer\r\n2 + 2?;4\r\n;\r\n \r\n;\r\n")
    assert list(load_set(path).rows) == [Row(0, ("2 + 2?",), references=("4",))]


def test_earlier_messages_come_before_the_turn(tmp_path: Path) -> None:
    said = [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "last")]
    messages = [{"role": role, "content": content} for role, content in said]
    quoted = json.dumps(messages).replace('"', '""')
    path = write_file(tmp_path, "s.csv", f'messages\n"{quoted}"\n')
    assert load_rows(path)[0] == Row(0, ("last",), tuple(Message(**m) for m in messages[:3]))  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.txt", "x", "must end in .json, .jsonl, .ndjson, .jsonlines, .csv, .tsv, .parquet, or"),
        ("s.json", "{}", "holds one dict"),
        ("s.json", '[{"prompt": "a"}] x', "one object a line is JSONL"),
        ("s.json", '{"prompt": "a"}\n{"prompt": }', "s.json, line 2 is not JSON"),
        ("s.json", "[]", "has no rows"),
        ("s.json", '[{"text": "a", "id": 1}]', "the columns 'text', 'id': one of messages, prompt"),
        (
            "s.json",
            '[{"prompt": "a", "question": "b"}]',
            "prompt and question may all hold the prompts, choose one by --column",
        ),
        ("s.jsonl", '{"prompt": "a"}\n\n{"prompt": }\n', "s.jsonl, line 3 is not JSON"),
        ("s.jsonl", '{"prompt": "a"}\n["b"]\n', "s.jsonl, line 2 is list, not an object"),
        ("s.jsonl", '{"prompt": "a"}\n{"prompt": " "}', "line 2, field 'prompt' must be a text"),
        ("s.jsonl", '{"prompt": "a"}\n{}', "line 2, field 'prompt' must be a text, .* it is None"),
        ("s.json", '[{"prompt": "a"}, {"prompt": 3}]', "s.json, row 2, field 'prompt' must"),
        ("s.json", '[{"turns": []}]', "row 1, field 'turns' must be"),
        ("s.json", '[{"turns": [{"role": "assistant", "content": "a"}]}]', "not of the assistant"),
        ("s.json", '[{"messages": [{"role": "system", "content": "a"}]}]', "end with a message of"),
        ("s.json", '[{"messages": [{"role": "bot", "content": "a"}]}]', "field 'messages': a message"),
        ("s.json", '[{"messages": []}]', "field 'messages' must be a list"),
        ("s.json", '[{"turns": ["a", "b"], "reference": ["x"]}]', "has 1 answers for 2 turns"),
        ("s.json", '[{"prompt": "a", "reference": "\\ud800"}]', "field 'reference' has .* half of a"),
        ("s.json", '[{"prompt": "a", "references": [null]}]', "field 'references' must"),
        ("s.csv", "prompt,id\na,1\nb\n", "s.csv, line 3 has not as many fields"),
        ("s.csv", 'prompt\n"a\n', "is not CSV"),
        ("s.csv", "turns\na\n", "line 2, field 'turns' must be a list, in CSV as JSON"),
        ("s.parquet", "nothing", "is not Parquet"),
    ],
)
def test_an_unsound_file_is_refused_with_place_and_field(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(SetError, match=message):
        load_set(write_file(tmp_path, name, text))


@pytest.mark.parametrize(("name", "content"), [("s.jsonl", b"\xff"), ("s.jsonl.gz", b"no gzip")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SetError, match=f"cannot read .*{name}"):
        load_set(tmp_path / name)


def test_one_of_several_columns_can_be_chosen(tmp_path: Path) -> None:
    path = write_file(tmp_path, "s.json", '[{"prompt": "a", "question": "b"}]')
    assert list(load_set(path, column="question").rows) == [Row(0, ("b",))]
    with pytest.raises(SetError, match="has the columns 'prompt', 'question': --column 'turns' is not"):
        load_set(path, column="turns")


def test_a_limit_takes_the_first_rows_and_does_not_read_on(tmp_path: Path) -> None:
    path = write_file(tmp_path, "s.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\nnonsense\n')
    loaded = load_set(path, 2)
    assert loaded.count == 2
    assert list(loaded.rows) == list(loaded.rows) == [Row(0, ("a",)), Row(1, ("b",))]
    assert loaded.identity != load_set(path, 1).identity


def test_a_pipe_or_a_folder_is_told_to_be_no_set(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(SetError, match="can be read twice, as a set is: save it as a file first"):
            load_set(path)


def test_an_unknown_set_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        SetError,
        match="no set 'alpaca': there is no such file, and the public sets are alpaca_eval, mt_bench",
    ):
        load_set("alpaca")


def test_a_set_that_cannot_be_fetched_says_how_to_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    with pytest.raises(SetError, match=r"'mt_bench' .*lmsys/mt-bench\): no network; .* --set PATH"):
        load_set("mt_bench")
    kept = write_file(tmp_path, "question.jsonl", '{"turns": ["a", "b"]}\n')
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(kept))
    assert load_set("mt_bench", limit=1).name == "mt_bench"
    with pytest.raises(SetError, match="has 1 rows, mt_bench has 80"):
        load_set("mt_bench")
