"""The conclusion of a report: did the mixture beat its best member?"""

import random

import pytest

from jobs.records import Verdict
from jobs.report.answer import COVERS_CHOICE, NOT_COMPARED, Conclusion, from_grades, from_pairs
from jobs.scores.preferences import Preferences
from jobs.scores.score import score

ROWS = 200


def verdicts_on(name: str, above: float, *, rows: int = ROWS, baseline: str = "base") -> Preferences:
    """Random verdicts on a generator; the difficulty of each row is the same for all generators.

    Args:
        name: The generator's name.
        above: How much the mean preference is above that of a draw, 1.5.
        rows: Number of rows.
        baseline: The baseline's name.
    """
    values = []
    for row in range(rows):
        hard, own = random.Random(row).uniform(-0.2, 0.2), random.Random(f"{name} {row}")
        values.append(1.5 + hard + above + own.uniform(-0.1, 0.1))
    lengths = (100,) * rows
    return Preferences(name, tuple(range(rows)), tuple(values), lengths, lengths, "judge", baseline)


def conclude(*found: Preferences, members: tuple[str, ...] = ("one", "two")) -> Conclusion | None:
    """The conclusion for the mixture `moa` from these verdicts."""
    scores = {each.generator: score(each, None, None) for each in found}
    return from_pairs("moa", members, {each.generator: each for each in found}, scores, ROWS)


def test_better_than_the_best_member() -> None:
    found = conclude(verdicts_on("moa", 0.1), verdicts_on("one", -0.1), verdicts_on("two", 0.05))
    assert found is not None
    assert found.outcome == "better"
    assert found.sentence.startswith("Yes: moa beats its best member, two, by ")
    assert "points of win rate (95% interval +" in found.sentence
    assert found.sentence.endswith(", 200 rows).")
    assert found.basis.startswith("Judge judge, baseline base. moa wins ")
    assert COVERS_CHOICE in found.basis


def test_worse_than_the_best_member() -> None:
    found = conclude(verdicts_on("moa", -0.1), verdicts_on("one", 0.1))
    assert found is not None
    assert found.outcome == "worse"
    assert found.sentence.startswith("No: moa falls short of its best member, one, by ")
    assert "95% interval −" in found.sentence
    assert COVERS_CHOICE not in found.basis  # with one member there is no choice


def test_an_interval_that_holds_zero_is_no_answer() -> None:
    found = conclude(verdicts_on("moa", 0.0), verdicts_on("one", 0.0))
    assert found is not None
    assert found.outcome == "open"
    assert found.sentence.startswith("Not shown: moa is ")
    assert "the interval holds zero (95% interval −" in found.sentence


def test_without_a_judged_member_the_question_stays_open_and_the_win_rate_is_given() -> None:
    found = conclude(verdicts_on("moa", 0.1))
    assert found is not None
    assert found.outcome == "unknown"
    assert found.sentence.startswith("moa wins 59.0% against base (95% interval 57.3 to 60.8")
    assert found.sentence.endswith(f", 200 rows). {NOT_COMPARED}")


def test_a_member_that_is_the_baseline_draws_with_itself() -> None:
    found = conclude(verdicts_on("moa", 0.1, baseline="one"), verdicts_on("two", -0.2, baseline="one"))
    assert found is not None
    assert found.sentence.startswith("Yes: moa beats its best member, one, by ")
    assert "one 50.0%" in found.basis


def test_without_verdicts_on_the_mixture_there_is_no_conclusion() -> None:
    none = Preferences("moa", (0,), (None,), (1,), (1,), "judge", "base")
    assert conclude(verdicts_on("one", 0.1)) is None
    assert conclude(none, verdicts_on("one", 0.1)) is None


def test_too_few_rows_say_so() -> None:
    found = conclude(verdicts_on("moa", 0.1, rows=1), verdicts_on("one", 0.1))
    assert found is not None
    assert (found.outcome, found.sentence) == (
        "unknown",
        "Too few rows are judged to compare moa and one.",
    )


def grades_of_rows(name: str, *means: float) -> list[Verdict]:
    """Grades of a generator for two turns of each row, with these means."""
    return [
        Verdict("judge", "grade", name, "", row, turn, mean + (turn - 0.5))
        for row, mean in enumerate(means)
        for turn in (0, 1)
    ]


def test_grades_are_compared_row_by_row() -> None:
    grades = [
        *grades_of_rows("moa", 7, 8, 6, 9),
        *grades_of_rows("one", 6, 7.5, 5, 8),
        *grades_of_rows("two", 2, 2, 2, 2),
    ]
    found = from_grades("moa", ["one", "two"], grades)
    assert found is not None
    assert found.outcome == "better"
    # Differences 1, 0.5, 1, 1: mean 0.875, standard deviation 0.25, so 1.96 * 0.25 / 2 beside it.
    assert found.sentence == (
        "Yes: moa beats its best member, one, by 0.88 points of grade "
        "(95% interval +0.63 to +1.12, 4 rows)."
    )


@pytest.mark.parametrize(
    ("grades", "start"),
    [
        ([*grades_of_rows("moa", 7, 8)], "moa has a mean grade of 7.50 (2 rows)."),
        ([*grades_of_rows("one", 7, 8)], None),
        ([], None),
    ],
)
def test_grades_that_do_not_compare(grades: list[Verdict], start: str | None) -> None:
    found = from_grades("moa", ["one"], grades)
    assert (found and found.outcome) == (start and "unknown")
    assert start is None or (found is not None and found.sentence.startswith(start))
