"""The sentences that say what each model of a mixture does."""

import pytest

from jobs.prove.team import describe
from tests.unit.jobs.answering import recipe


def test_several_layers_are_told_as_rounds() -> None:
    said = describe(recipe(["a", "b"], ["c"]))
    assert said[:3] == (
        "The models propose in 2 rounds, one after another.",
        "In round 1, a writes 1 proposal and b writes 1 proposal.",
        "In round 2, c writes 1 proposal, with the proposals of round 1 in sight.",
    )


@pytest.mark.parametrize(
    ("aggregator", "said"),
    [
        ({"method": "select"}, "Then the aggregator, z, says which proposal is the best"),
        ({"method": "vote", "answer": "number"}, "The proposals vote"),
    ],
)
def test_the_method_is_told_in_words(aggregator: dict[str, str], said: str) -> None:
    own = recipe(["a", "b", "c"], aggregator={"model": "z"} | aggregator)
    assert describe(own)[-1].startswith(said)
