"""The figures of the overload benchmark, on outcomes that are made up."""

from benchmarks.shared.outcome import HUNG, Attempt, Outcome
from benchmarks.speed.overload import figures, limits_of


def ended(wall_s: float, status: int = 200, retry_after: str | None = None) -> Outcome:
    return Outcome(0, 10.0, 10.0 + wall_s, (Attempt(status, 10.0, 10.0 + wall_s, retry_after),))


def missed(below: list[Outcome], above: list[Outcome]) -> set[str]:
    limits = limits_of(figures(9, below), figures(30, above))
    return {limit.name for limit in limits if not limit.held}


def test_a_server_that_refuses_at_once_and_keeps_its_time_holds_all_limits() -> None:
    assert missed([ended(2)] * 9, [ended(2.9), ended(0.01, 429, "1")]) == set()


def test_each_limit_can_be_missed() -> None:
    below = [ended(2), ended(0.01, 429, "1"), ended(9, 503)]
    above = [ended(3.1), ended(0.2, 429), ended(20, HUNG)]
    assert missed(below, above) == {
        "p99 of accepted requests, above capacity over below it",
        "seconds, p99 of refusals",
        "refused below capacity",
        "refusals without Retry-After",
        "requests that failed otherwise",
        "requests that hung",
    }
    assert missed([ended(2)], [ended(2)]) == {"refused above capacity"}
