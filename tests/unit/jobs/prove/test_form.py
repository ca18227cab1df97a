"""Where answers stand, told by the right answers of a set."""

from pathlib import Path

import pytest

from jobs.calibrate import right_answers
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
        (["36 km", "10 m²", "90 km/h", "1.200,50 €", "−5.", "1'200", "3 red apples"], "number"),
        (["b", "c)", "(d)", "a. Paris", "B) Rome\nin Italy"], "letter"),
        (["It is the second.\n#### b"], "letter"),
        (["Canberra", "4"], None),
        (["10 Downing Street 5"], None),
        (["a dog"], None),
        (["2024-01-02"], None),
        (["1/2"], None),
        ([], None),
    ],
)
def test_the_form_follows_the_right_answers(answers: list[str], form: str | None) -> None:
    assert find_form([[answer] for answer in answers]) == form


def test_one_of_several_right_answers_is_enough_for_a_form() -> None:
    assert find_form([["four", "4"], ["5"]]) == "number"
    assert right_answers(["four", "4", "4.0"], "number") == {"4"}


def test_the_number_before_a_unit_counts_and_not_that_in_the_unit() -> None:
    assert right_answers(["36 m²"], "number") == {"36"}


def test_empty_answers_are_none() -> None:
    rows = [Row(0, ("q",), references=("",)), Row(1, ("q",)), Row(2, ("q",), references=("0",))]
    assert known_answers(rows) == [("0",)]


def test_the_number_zero_is_a_right_answer(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('{"question": "1 - 1?", "reference": 0}\n', "utf-8")
    assert known_answers(load_set(file).rows) == [("0",)]
