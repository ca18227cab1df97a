"""Methods over stored proposals: trying another way to an answer costs no proposer's call."""

from typing import Any

import pytest

from jobs.identity import to_generator
from jobs.variants import mixture
from tests.unit.jobs.answering import Bench, recipe, says
from tests.unit.scripts import Asked, Step
from tests.unit.serve_app.mixture.comparing import is_short, tokens

IDENTITIES = dict.fromkeys("abcyz", "1")

pytestmark = [pytest.mark.virtual_time, pytest.mark.usefixtures("written_at_once")]


def z(asked: Asked) -> list[Step]:
    return [tokens({"1": 0.9, "2": 0.1})] if is_short(asked) else says(asked)


METHODS: list[tuple[dict[str, Any], int, bool]] = [
    ({"aggregator": {"model": "z", "method": "select", "margin": 0.0}}, 2, True),
    ({"aggregator": {"model": "z", "method": "select_or_merge"}}, 2, False),  # and the merge is stored
    ({"aggregator": {"model": "z", "method": "vote", "answer": "number"}}, 0, True),
    ({"aggregator": {"model": "z", "guard": True}}, 1, False),  # all agree, so the merge is stored
    ({"exit": {"answer": "number"}}, 0, True),
]


@pytest.mark.parametrize(("parts", "calls", "is_proposal"), METHODS)
async def test_another_method_asks_no_proposer_again(
    bench: Bench, parts: dict[str, Any], calls: int, is_proposal: bool
) -> None:
    bench.models.scripts |= {"a": ["it is 7"], "b": ["I say 7"], "z": z}
    bench.ask("q0", "q1")
    await bench.run()
    assert bench.asked == {"a": 2, "b": 2, "z": 2}
    other = mixture(recipe(name="other", **parts))
    await bench.run(other)
    assert bench.asked == ({"z": 2 * calls} if calls else {})
    for answer in bench.answers("other"):
        assert (0 not in {used.layer for used in answer.used}) == is_proposal
        assert len(answer.used) == (2 if is_proposal else 3)
        assert (answer.text in ("it is 7", "I say 7")) == is_proposal
        assert answer.missing == ()
    await bench.run(other)
    assert bench.asked == {}


@pytest.mark.parametrize("parts", [parts for parts, *_ in METHODS])
def test_a_method_is_part_of_a_mixtures_identity(parts: dict[str, Any]) -> None:
    plain = to_generator(mixture(recipe()), IDENTITIES, 0).identity
    assert to_generator(mixture(recipe(**parts)), IDENTITIES, 0).identity != plain


def test_the_set_of_a_calibration_is_no_part_of_a_mixtures_identity() -> None:
    one, other = (
        to_generator(mixture(recipe(first={"tau": -1, "calibrated_on": name})), IDENTITIES, 0).identity
        for name in ("one", "other")
    )
    assert one == other
