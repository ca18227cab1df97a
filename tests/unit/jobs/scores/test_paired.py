"""Shares, differences and tests of paired answers, against published or computed numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.scores.paired import Split, auroc, share, smallest_difference

answers = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


def test_a_share_has_wilsons_interval() -> None:
    """81 of 263: Newcombe (1998), table I, method 3."""
    found = share([True] * 81 + [False] * 182)
    assert [found.low, found.high] == pytest.approx([0.2553, 0.3662], abs=5e-5)
    none = share([False] * 20)
    assert [none.low, none.high] == pytest.approx([0, 0.1611], abs=5e-5)
    assert (share([]).low, share([]).high) == (0, 1)


def test_mcnemar_is_the_binomial_test_of_the_questions_that_differ() -> None:
    one = [True] * 9 + [False] * 1 + [True] * 40
    other = [False] * 9 + [True] * 1 + [True] * 40
    assert Split.of(one, other).p == pytest.approx(2 * (1 + 10) / 2**10)
    assert Split.of(one, one).p == 1


@given(answers)
def test_a_difference_turns_its_sign_with_its_sides(pairs: list[tuple[bool, bool]]) -> None:
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = Split.of(one, other).difference, Split.of(other, one).difference
    assert there.value == pytest.approx(-back.value)
    assert there.low == pytest.approx(-back.high)
    assert there.low <= there.value <= there.high or not pairs
    assert Split.of(one, other).p == Split.of(other, one).p


def test_what_few_questions_can_show() -> None:
    """The figures of the notes on honest measuring: 1.96 * sqrt(0.2 / n)."""
    found = [round(100 * smallest_difference(n), 1) for n in (60, 100, 200, 500)]
    assert found == [11.3, 8.8, 6.2, 3.9]


def test_how_well_scores_tell_right_from_wrong() -> None:
    assert auroc([-0.1, -0.2, -0.9], [True, True, False]) == 1
    assert auroc([-0.1, -0.2], [False, True]) == 0
    assert auroc([-0.5, -0.5], [False, True]) == 0.5
    assert auroc([-0.5], [True]) is None
