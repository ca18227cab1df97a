"""Files of outputs become answers of a generator, or are refused as a whole."""

import json
from pathlib import Path

import pytest

from jobs.records import Answer, Generator, Row
from jobs.sets import SetError, load_set
from jobs.sets.output_shapes import OutputColumns
from jobs.sets.outputs import ImportSummary, import_outputs, load_outputs
from jobs.store import Store
from tests.unit.jobs.sets.set_files import DATA, needs_data, write_file


def store_with(folder: Path, *prompts: str) -> Store:
    """A new store with a row for each prompt."""
    store = Store.open(folder)
    store.add_rows(Row(index, (prompt,)) for index, prompt in enumerate(prompts))
    return store


@pytest.mark.parametrize(
    "outputs",
    [
        [{"instruction": "b", "output": "B"}, {"instruction": "a", "output": ""}],
        [{"index": 0, "output": ""}, {"index": 1, "output": "B"}, {"index": 2, "output": "C"}],
    ],
)
def test_outputs_become_answers_of_a_generator(
    tmp_path: Path, outputs: list[dict[str, object]]
) -> None:
    path = write_file(
        tmp_path, "o.json", json.dumps([{**each, "generator": "gpt"} for each in outputs])
    )
    with store_with(tmp_path, "a", "b") as store:
        done = ImportSummary(2, 2, (), len(outputs) - 2, 0)
        assert import_outputs(store, path, "base") == done
        assert import_outputs(store, path, "base") == done
        assert list(store.answers("base")) == [Answer("base", 0, 0, ""), Answer("base", 1, 0, "B")]
        found = store.generator("base")
        assert isinstance(found, Generator)
        assert (found.kind, found.about) == ("file", {"file": "o.json", "generators": ["gpt"]})


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            '{"index": 7, "output": "A"}',
            "no output for any of the 2 rows: the first output is for row 7, the first row has the "
            "prompt 'a' and no id",
        ),
        (
            '{"index": 0, "output": "A"}\n{"index": 0, "output": "B"}',
            "several outputs for row 0: o.jsonl",
        ),
        (
            '{"index": 0, "output": "A"}\n{"instruction": "a", "output": "B"}',
            "several outputs for row 0",
        ),
        (
            '{"instruction": "a", "output": 3}',
            "line 1: the field 'output' must be a text, it is 3",
        ),
        ('{"instruction": "a"}', "line 1: the field 'output' must be a text, it is missing"),
        ('{"instruction": "a", "output": null}', "has 1 outputs, and none of them has a text"),
        ('{"index": 0.5, "output": "A"}', "the field 'index' must be a whole number, it is 0.5"),
        ("", "o.jsonl has no outputs"),
        ('{"output": "A"}', "line 1: the field 'instruction' or 'index' is needed"),
    ],
)
def test_outputs_that_do_not_fit_are_refused_as_a_whole(
    tmp_path: Path, outputs: str, message: str
) -> None:
    with store_with(tmp_path, "a", "b") as store:
        with pytest.raises(SetError, match=message):
            import_outputs(store, write_file(tmp_path, "o.jsonl", outputs), "base")
        assert store.generators() == []


def test_rows_without_an_output_are_counted_and_stay_unanswered(tmp_path: Path) -> None:
    outputs = [
        {"instruction": "c ", "output": "C"},  # white space is no difference
        {"instruction": "of another set", "index": 0, "output": "X"},
        {"instruction": "a", "output": None},
    ]
    path = write_file(tmp_path, "o.json", json.dumps(outputs))
    with store_with(tmp_path, "a", "b", "c") as store:
        done = import_outputs(store, path, "base")
        assert done == ImportSummary(3, 1, (0, 1), 1, 1)
        assert str(done) == (
            "1 answers; 2 of 3 rows have none (0, 1); 1 outputs have no text; 1 outputs are of no row"
        )
        assert list(store.answers("base")) == [Answer("base", 2, 0, "C")]


def test_a_row_whose_turns_are_not_all_answered_counts_as_missing(tmp_path: Path) -> None:
    path = write_file(tmp_path, "o.jsonl", '{"index": 0, "output": "A"}\n{"index": 1, "output": "B"}')
    with Store.open(tmp_path) as store:
        store.add_rows([Row(0, ("a", "b")), Row(1, ("c",))])
        assert import_outputs(store, path, "base").missing == (0,)
        assert list(store.answers("base")) == [Answer("base", 1, 0, "B")]


def test_equal_prompts_get_their_outputs_in_order(tmp_path: Path) -> None:
    lines = [json.dumps({"instruction": "a", "output": text}) for text in ("1", "2")]
    with store_with(tmp_path, "a", "a") as store:
        import_outputs(store, write_file(tmp_path, "two.jsonl", "\n".join(lines)), "two")
        assert [answer.text for answer in store.answers("two")] == ["1", "2"]
        import_outputs(store, write_file(tmp_path, "one.jsonl", lines[0]), "one")
        assert [answer.text for answer in store.answers("one")] == ["1", "1"]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("index,output\n1,B\n", OutputColumns()),
        ("frage;antwort\nb;B\n", OutputColumns("frage", "antwort")),
        ("nummer\tantwort\n1\tB\n", OutputColumns("nummer", "antwort")),
        ("prompt|response\nb|B\n", OutputColumns()),
    ],
)
def test_tables_of_outputs_may_name_their_columns(
    tmp_path: Path, text: str, columns: OutputColumns
) -> None:
    with store_with(tmp_path, "a", "b") as store:
        done = import_outputs(store, write_file(tmp_path, "o.csv", text), "base", columns)
        assert done.missing == (0,)
        assert list(store.answers("base")) == [Answer("base", 1, 0, "B")]


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_file(tmp_path, "o.csv", "frage,antwort\nb,B\n")
    with store_with(tmp_path, "b") as store:
        for columns in (OutputColumns("fragen", "antwort"), OutputColumns("frage", "antworten")):
            with pytest.raises(SetError, match=r"line 2 has no column '(fragen|antworten)' \(--"):
                import_outputs(store, path, "base", columns)


@needs_data
def test_the_published_outputs_fit_the_set(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.add_rows(load_set(DATA / "alpaca_eval_805.jsonl", 40).rows)
        path = DATA / "baseline_gpt4_1106_preview.jsonl.gz"
        assert import_outputs(store, path, "gpt4_1106").unused == 765
        assert store.answered_count("gpt4_1106") == 40
        first = store.answer("gpt4_1106", 0)
        assert first is not None
        assert first.text == load_outputs(path)[0].text
