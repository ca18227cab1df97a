"""Files of outputs become answers of a generator, or are refused as a whole."""

import json
from pathlib import Path

import pytest

from jobs.records import Answer, Generator, Row
from jobs.sets import SetError, load_set
from jobs.sets.outputs import import_outputs, load_outputs
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
        assert import_outputs(store, path, "base") == len(outputs) - 2
        assert import_outputs(store, path, "base") == len(outputs) - 2
        assert list(store.answers("base")) == [Answer("base", 0, 0, ""), Answer("base", 1, 0, "B")]
        found = store.generator("base")
        assert isinstance(found, Generator)
        assert (found.kind, found.about) == ("file", {"file": "o.json", "generators": ["gpt"]})


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            '{"index": 0, "output": "A"}\n{"index": 7, "output": "A"}',
            r"1 of 2 rows \(1\), and 1 outputs",
        ),
        ('{"index": 0, "output": "A"}\n{"index": 0, "output": "A"}', "several outputs for row 0"),
        (
            '{"instruction": "a", "output": null}',
            "line 1: the field 'output' must be a text, it is None",
        ),
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


def test_outputs_answer_single_turns_only(tmp_path: Path) -> None:
    path = write_file(tmp_path, "o.jsonl", '{"index": 0, "output": "A"}')
    with Store.open(tmp_path) as store:
        store.add_rows([Row(0, ("a", "b"))])
        with pytest.raises(SetError, match="row 0 has 2 turns"):
            import_outputs(store, path, "base")


@needs_data
def test_the_published_outputs_fit_the_set(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.add_rows(load_set(DATA / "alpaca_eval_805.jsonl", 40).rows)
        path = DATA / "baseline_gpt4_1106_preview.jsonl.gz"
        assert import_outputs(store, path, "gpt4_1106") == 765
        assert store.answered_count("gpt4_1106") == 40
        first = store.answer("gpt4_1106", 0)
        assert first is not None
        assert first.text == load_outputs(path)[0].text
