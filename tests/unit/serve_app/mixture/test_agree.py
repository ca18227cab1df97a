"""Answers found in texts, and which of them are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.methods import AnswerForm, AnswerPattern
from serve_app.mixture.agree import find_answer, groups
from serve_app.mixture.events import Call, ProposalDone
from serve_app.mixture.vote import vote


def proposal(place: int, text: str, model: str = "a", confidence: float | None = None) -> ProposalDone:
    return ProposalDone(
        1, place, model, text, 1.0, Call(model, "proposer", 1, 1, 0.0), confidence=confidence
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("5 + 6 = 11 eggs\n#### 11", "11"),
        ("#### $1,200.00 in all", "1200"),
        (r"so \boxed{42} of the 50", "42"),
        (r"\boxed{\$18}", "18"),
        ("The answer is 7. It was 9 before.", "7"),
        ("**Answer:** −3.50", "-3.5"),
        ("I first thought the answer is 4, but the answer is 5.", "5"),
        ("She makes 9 * 2 = $18 every day.", "18"),
        ("It costs 0.50", "0.5"),
        ("５０ apples", "50"),
        ("007", "7"),
        ("-0", "0"),
        ("1,234,567", "1234567"),
        ("It is 4,5", "4.5"),
        ("It is 0,125", "0.125"),
        ("1.200,50 €", "1200.5"),
        (r"\boxed{12{,}000}", "12000"),
        (r"12\,000", "12000"),
        ("12\u202f000 or 1'200", "1200"),
        ("no digits", None),
        ("", None),
    ],
)
def test_the_number_of_a_text(text: str, answer: str | None) -> None:
    assert find_answer(text, "number") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The correct answer is (B) because A is wrong.", "B"),
        ("Answer: C", "C"),
        ("B. The sky is blue.", "B"),
        ("**D**\n\nThat follows from the text.", "D"),
        ("It must be the second.\n\nB", "B"),
        (r"\boxed{\text{C}}", "C"),
        ("#### A", "A"),
        ("A man walks in.", None),
        ("I think so.", None),
        ("b", "B"),
        ("b) The sky is blue.", "B"),
        ("Answer: **b**", "B"),
        ("The answer is (c), because a is wrong.", "C"),
        ("The answer is option D.", "D"),
        ("#### b", "B"),
        (r"\boxed{\mathrm{c}}", "C"),
        ("The answer is a dog.", None),
        ("a man walks in.", None),
    ],
)
def test_the_letter_of_a_text(text: str, answer: str | None) -> None:
    assert find_answer(text, "letter") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ 1,000 }", "1000"),
        (r"\boxed{\text{Paris}}", "paris"),
        (r"\boxed{never closed", None),
        ("no box", None),
    ],
)
def test_what_stands_in_the_last_box(text: str, answer: str | None) -> None:
    assert find_answer(text, "boxed") == answer


@pytest.mark.parametrize(
    ("pattern", "text", "answer"),
    [
        (r"Final: (\w+)", "Final: red\nFinal: Blue.", "blue"),
        (r"yes|no", "yes, no, yes", "yes"),
        (r"(\d+) km|never", "12 km, or never", "12"),
        (r"x(\d*)", "x", None),
        (r".*", "12 km", "12 km"),
        (r"\d*", "12 km", "12"),
        (r"Answer: (.*)", "Answer: “The  Hague”.", "“the hague”"),
    ],
)
def test_what_an_expression_finds(pattern: str, text: str, answer: str | None) -> None:
    assert find_answer(text, AnswerPattern(regex=pattern)) == answer


@given(st.text(), st.sampled_from(["number", "letter", "boxed", AnswerPattern(regex="(a+)")]))
def test_any_text_has_an_answer_or_none(text: str, form: AnswerForm) -> None:
    found = find_answer(text, form)
    assert found is None or found


@pytest.mark.parametrize("form", ["number", "letter", "boxed"])
def test_a_very_long_text_is_searched_at_once(form: AnswerForm) -> None:
    assert find_answer("the answer is " * 50_000 + r"\boxed{" * 1000, form) is None


def test_groups_are_the_largest_first_and_then_the_most_trusted() -> None:
    texts = ["3", "about 4", "4.0", "3", "none", "5"]
    found = groups([proposal(n, text) for n, text in enumerate(texts)][::-1], "number")
    assert [[p.place for p in group.proposals] for group in found] == [[0, 3], [1, 2], [5]]


def test_the_surest_model_wins_though_others_have_more_samples() -> None:
    ones = [proposal(n, str(9 if n < 2 else n), "unsure") for n in range(5)]
    twos = [proposal(5 + n, "7", "sure") for n in range(2)]
    found = vote([*ones, *twos], "number")
    assert found is not None
    assert (found.proposal.place, found.own, found.of_own, found.in_all) == (5, 2, 2, 2)
    assert found.why == "2 of 2 samples of 'sure' agree on the answer, and 2 of all samples"


def test_with_one_sample_each_the_majority_wins_and_then_trust() -> None:
    majority = [proposal(0, "1", "a"), proposal(1, "2", "b"), proposal(2, "2", "c")]
    found = vote(majority, "number")
    assert found is not None
    assert found.proposal.place == 1
    tie = vote(majority[:2], "number")
    assert tie is not None
    assert tie.proposal.place == 0
    assert vote([proposal(0, "none")], "number") is None


def test_of_samples_that_agree_the_likeliest_is_the_answer() -> None:
    samples = [proposal(0, "so 4", confidence=-0.9), proposal(1, "it is 4", confidence=-0.2)]
    found = vote([*samples, proposal(2, "5", confidence=-0.1)], "number")
    assert found is not None
    assert found.proposal.place == 1


def test_a_sample_without_an_answer_makes_its_model_less_sure() -> None:
    half = [proposal(n, text, "half") for n, text in enumerate(["4", "4", "I cannot say"])]
    whole = [proposal(n, "5", "whole") for n in (3, 4)]
    found = vote([*half, *whole], "number")
    assert found is not None
    assert (found.proposal.model, found.surety) == ("whole", 1.0)
    found = vote(half, "number")
    assert found is not None
    assert found.surety == 0.5


def test_a_model_with_a_single_sample_is_never_sure() -> None:
    """Nothing agrees or disagrees with the single sample. So it outvotes neither two samples that agree
    nor a more trusted model whose samples differ."""
    single = proposal(3, "7", "single")
    several = [proposal(n, text, "several") for n, text in enumerate(["4", "4", "5"])]
    found = vote([*several, single], "number")
    assert found is not None
    assert (found.proposal.place, found.own, found.of_own) == (0, 2, 3)
    differing = [proposal(n, text, "several") for n, text in enumerate(["4", "5", "6"])]
    found = vote([*differing, single], "number")
    assert found is not None
    assert (found.proposal.place, found.surety) == (0, 0.0)
    found = vote([*differing, proposal(3, "6", "single")], "number")  # the plain majority
    assert found is not None
    assert (found.proposal.place, found.in_all) == (2, 2)
