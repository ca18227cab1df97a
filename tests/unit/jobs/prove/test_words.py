"""The sentences of a proof: what they say, and what they never claim."""

import pytest

from jobs.prove.compare import compare
from jobs.prove.facts import Proof, WayFacts
from jobs.prove.prices import Price
from jobs.prove.ways import Way
from jobs.prove.words import headline, others, seconds

MIX = Price(3, 300, 200, 3.0, 4.0)
ONE = Price(1, 50, 50, 1.0, 1.0)


def proof(gained: int, lost: int, same: int, *, pick: tuple[int, int, int] | None = None) -> Proof:
    def against(kind: str, price: Price, counts: tuple[int, int, int]) -> WayFacts:
        won = dict(enumerate([1] * counts[0] + [-1] * counts[1] + [0] * counts[2]))
        way = Way(kind, kind, "a" if kind == "member" else "")  # type: ignore[arg-type]
        return WayFacts(way, len(won), None, 0, compare(won), price, 5)

    n = gained + lost + same
    ways = [WayFacts(Way("mixture", "mix"), n, None, 0, None, MIX, 5)]
    ways.append(against("member", ONE, (gained, lost, same)))
    if pick is not None:
        ways.append(against("pick", MIX, pick))
    return Proof("mix", "mine", n, True, tuple(ways), "a", None, None, (), 0, ())


def test_a_gain_that_is_shown_is_told_with_its_price() -> None:
    found = headline(proof(30, 5, 65))
    assert found.outcome == "better"
    assert found.sentence == (
        "Yes: mix answers better than its best member, a, by 25 questions of 100."
    )
    assert "4.0 times as many tokens" in " ".join(found.basis)


def test_a_loss_that_is_shown_says_to_take_the_member() -> None:
    found = headline(proof(5, 30, 65))
    assert found.sentence.startswith("No: a, the best member of mix, answers better alone")
    assert "So a alone is better and cheaper here." in " ".join(found.basis)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((3, 2, 15), "Here the mixture won 1 more, and chance"),
        ((2, 3, 15), "Here a won 1 more, and chance"),
        ((2, 2, 16), "Here both did equally well."),
        ((0, 0, 4), "These 4 questions are too few to show any difference."),
        ((0, 0, 1), "On the question, both were right or both were wrong. This 1 question is too litt"),
        (
            (0, 1, 19),
            "On 0 questions only the mixture was right, and on 1 question only a. On the other",
        ),
        ((0, 1, 19), "These 20 questions show a difference only if one side wins at least 6 more"),
        ((0, 1, 19), "about 120 questions like these would show it"),
        (
            (3, 2, 15),
            "On average, an answer of mix takes 3.0 to 4.0 s (about 3 times as long), and has 200",
        ),
    ],
)
def test_what_cannot_be_told_is_never_told_as_a_gain(counts: tuple[int, int, int], said: str) -> None:
    found = headline(proof(*counts))
    assert found.outcome == "open"
    assert "nobody can tell" in found.sentence
    basis = " ".join(found.basis)
    assert said in basis
    assert "a alone is the cheaper choice" in basis


def test_each_other_way_has_its_question() -> None:
    (title, found), *rest = others(proof(3, 2, 15, pick=(0, 9, 11)))
    assert rest == []
    assert title == "Is the mixture better than picking one of the proposals?"
    assert (
        found.sentence
        == "No: the proposal that the aggregator picks is better, by 45 questions of 100."
    )


def test_no_sentence_speaks_of_zero_other_questions() -> None:
    assert "other 0 questions" not in " ".join(headline(proof(6, 6, 0)).basis)


def test_an_open_comparison_names_the_mixture() -> None:
    (_, found), *_ = others(proof(3, 2, 15, pick=(2, 2, 16)))
    assert "the mixture may be better or worse than the proposal" in found.sentence


def test_seconds_are_a_range_where_order_matters() -> None:
    assert seconds(MIX) == "3.0 to 4.0"
    assert seconds(ONE) == "1.0"
