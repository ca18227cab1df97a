"""What a number of won questions shows, and what it does not."""

import pytest

from jobs.prove.compare import compare, compare_with_best, smallest_shown


def won(gained: int, lost: int, same: int) -> dict[int, int]:
    return dict(enumerate([1] * gained + [-1] * lost + [0] * same))


@pytest.mark.parametrize(
    ("gained", "lost", "same", "outcome"),
    [
        (6, 0, 14, "better"),
        (5, 0, 15, "open"),  # chance alone splits five questions so with p = 0.06
        (0, 6, 14, "worse"),
        (12, 8, 0, "open"),
        (60, 30, 110, "better"),
        (0, 0, 20, "open"),
        (1, 0, 0, "open"),
    ],
)
def test_the_outcome_needs_interval_and_exact_test(
    gained: int, lost: int, same: int, outcome: str
) -> None:
    found = compare(won(gained, lost, same))
    assert found.outcome == outcome
    assert found.low <= found.difference <= found.high


def test_the_smallest_difference_is_the_first_one_that_is_called_one() -> None:
    assert smallest_shown(20, 0) == 6 / 20
    assert smallest_shown(5, 0) == 1.0
    assert smallest_shown(20, 7) == 7 / 20
    assert smallest_shown(100, 20) == 10 / 100


def test_more_questions_are_needed_for_a_smaller_difference() -> None:
    assert compare(won(0, 0, 20)).needed is None
    few, many = compare(won(3, 1, 16)).needed, compare(won(11, 9, 0)).needed
    assert few is not None
    assert many is not None
    assert 20 < few < many
    assert compare(won(0, 1, 19)).needed == 120  # fewer than six lost questions show nothing
    assert compare(won(0, 6, 114)).outcome == "worse"
    assert compare(won(1001, 1000, 0)).needed is None  # more than anybody asks


def test_the_interval_of_the_best_member_covers_its_choice() -> None:
    one = {row: 1 if row < 10 else 0 for row in range(40)}
    other = {row: 1 if row >= 30 else 0 for row in range(40)}
    plain, covered = compare(one), compare_with_best({"a": one, "b": other}, "a")
    assert (covered.gained, covered.lost) == (plain.gained, plain.lost)
    assert covered.low < plain.low
    assert covered.high >= plain.high
    assert compare_with_best({"a": one}, "a") == plain
