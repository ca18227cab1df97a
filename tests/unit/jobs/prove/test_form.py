"""Where answers stand, told by the right answers of a set."""

from pathlib import Path

import pytest

from jobs.prove.form import find_form, known_answers
from jobs.records import Row
from jobs.sets import load_set


@pytest.mark.parametrize(
    ("answers", "form"),
    [
        (["18", "1,200", "$3.50", "-4", "25%"], "number"),
        (["Two and two are four.\n#### 4"], "number"),
        (["A", "(b)".upper(), "C."], "letter"),
        (["so \\boxed{x+1}"], "boxed"),
        (["Canberra", "4"], None),
        ([], None),
    ],
)
def test_the_form_follows_the_right_answers(answers: list[str], form: str | None) -> None:
    assert find_form(answers) == form


def test_empty_answers_are_none() -> None:
    rows = [Row(0, ("q",), references=("",)), Row(1, ("q",)), Row(2, ("q",), references=("0",))]
    assert known_answers(rows) == ["0"]


def test_the_number_zero_is_a_right_answer(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('{"question": "1 - 1?", "reference": 0}\n', "utf-8")
    assert known_answers(load_set(file).rows) == ["0"]
