"""The figures of clients that leave, of gaps between tokens and of an idle server, on made up data."""

import pytest

from benchmarks.speed import idle, token_gaps
from benchmarks.speed.backends import Call
from benchmarks.speed.leaving import ANY, Leaving, Part, Seen, leaving, limits, row

A, B, AGGREGATOR = "proposer-a", "proposer-b", "aggregator"


def test_calls_that_were_over_cost_nothing() -> None:
    assert leaving(5.0, [Call(0, A, 1.0, [2.0], ended=3.0)]) == Leaving(0.0, 0, 0)
    assert leaving(5.0, []) == Leaving(0.0, 0, 0)


def test_the_last_call_counts_and_the_tokens_of_all() -> None:
    calls = [
        Call(0, A, 1.0, [4.9, 5.01, 5.02], lost=5.025),
        Call(0, B, 1.0, [4.9, 5.03], ended=5.04),
    ]
    found = leaving(5.0, calls)
    assert found.stopped_s == pytest.approx(0.04)
    assert (found.wasted, found.started) == (3, 0)


def test_a_call_that_reaches_a_server_later_was_started() -> None:
    assert leaving(5.0, [Call(0, AGGREGATOR, 5.01, [], lost=5.02)]).started == 1


def test_a_call_that_goes_on_never_stops() -> None:
    assert leaving(5.0, [Call(0, AGGREGATOR, 4.0)]).stopped_s == float("inf")


def part(phase: str) -> Part:
    return Part("http://x", "b", True, phase, 2)


def test_limits_hold_and_each_can_be_missed() -> None:
    prompt = {n: [Call(n, A, 1.0, [2.0], lost=5.01)] for n in range(2)}
    good = row(part("proposers write"), Seen({0: 5.0, 1: 5.0}, stayed=3), prompt)
    assert (good["left"], good["stayed"], good["wasted p50"]) == (2, 3, 0)
    assert [limit.held for limit in limits([good])] == [True] * 4
    late = Call(1, AGGREGATOR, 5.2, [5.3 + n / 100 for n in range(6)], lost=6.0)
    seen = Seen({0: 5.0, 1: 5.0}, stayed=3, broken=["why"])
    bad = row(part("proposers write"), seen, {**prompt, 1: [late]})
    assert [limit.held for limit in limits([good, bad])] == [False] * 4
    at_any = row(part(ANY), seen, {**prompt, 1: [late]})
    assert [limit.held for limit in limits([at_any])] == [False, False, True, False]


def test_gaps_are_within_an_answer_and_chunks_are_counted() -> None:
    answers = [
        token_gaps.Answer([0.0, 0.005, 0.010], [0.1, 0.106, 0.112], 3),
        token_gaps.Answer([5.0, 5.005, 5.010], [5.1, 5.106], 3),
    ]
    found = token_gaps.row("engine", answers)
    assert found["engine gap p50 ms"] == pytest.approx(5)
    assert found["client gap p50 ms"] == pytest.approx(6)
    assert (found["tokens"], found["chunks"], found["moments"]) == (6, 5, 5)
    assert [limit.held for limit in token_gaps.limits(found)] == [True, False]


def test_the_recipe_with_scripted_engines_has_the_servers_pace() -> None:
    recipe = token_gaps.scripted()
    assert {name: model.engine for name, model in recipe.models.items()} == dict.fromkeys(
        (A, B, AGGREGATOR), "scripted"
    )


def test_an_idle_servers_processes_are_ranked_and_summed() -> None:
    table = idle.rows({"raylet": 0.5, "ingress": 1.0}, 50.0, {"raylet": 1, "ingress": 2})
    assert [(r["process"], r["processes"], r["% of a core"]) for r in table] == [
        ("ingress", 2, 2.0),
        ("raylet", 1, 1.0),
        ("all", 3, 3.0),
    ]
