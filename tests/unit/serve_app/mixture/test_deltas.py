"""Deltas that are joined at once say the same as deltas that are added one by one."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from actors.engine import Delta
from serve_app.mixture.deltas import join_deltas

DELTAS = st.builds(
    Delta,
    text=st.text(max_size=3),
    reasoning=st.text(max_size=3),
    finish_reason=st.sampled_from([None, "stop", "length"]),
    prompt_tokens=st.integers(0, 5),
    completion_tokens=st.integers(0, 5),
    logprobs=st.lists(st.just({"token": "a"}), max_size=2).map(tuple),
    engine_s=st.sampled_from([0.0, 0.25, 1.5]),
    last=st.booleans(),
)


@given(st.lists(DELTAS, max_size=6))
def test_joined_deltas_are_their_sum(deltas: list[Delta]) -> None:
    assert join_deltas(deltas) == reduce(Delta.plus, deltas, Delta())
