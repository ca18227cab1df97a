"""How many replicas a model gets as its load grows and falls."""

from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.follow_load import CALLS, FollowLoad


def context(reports: dict[str, float] | None, target: int = 2, least: int = 1, most: int = 4) -> Any:
    """What Serve tells a policy: each replica's calls on average, and the number of replicas now."""
    return SimpleNamespace(
        aggregated_metrics=None if reports is None else {CALLS: reports},
        target_num_replicas=target,
        capacity_adjusted_min_replicas=least,
        capacity_adjusted_max_replicas=most,
        policy_state={"kept": 1},
    )


@pytest.mark.parametrize(
    ("calls", "count"),
    [(0, 0), (0.5, 1), (3.2, 1), (3.3, 2), (6.4, 2), (6.5, 3), (32, 10)],
)
def test_it_counts_the_replicas_that_the_calls_need(calls: float, count: int) -> None:
    assert FollowLoad(target=3.2).count(calls) == count


def test_the_rounding_of_an_average_adds_no_replica() -> None:
    assert FollowLoad(target=8).count(16 + 1e-9) == 2


@pytest.mark.parametrize(
    ("reports", "wanted"),
    [
        ({"r1": 0.0, "r2": 0.0}, 1),  # not below the least
        ({"r1": 5.0, "r2": 1.0}, 2),  # the sum counts, whichever replica has the calls
        ({"r1": 9.0, "r2": 0.0}, 3),
        ({"r1": 99.0, "r2": 99.0}, 4),  # not above the most
        ({"r1": 9.0}, 3),  # a replica that has just started has not reported
    ],
)
def test_serve_gets_the_number_within_the_range(reports: dict[str, float], wanted: int) -> None:
    assert FollowLoad(target=4)(context(reports)) == (wanted, {"kept": 1})


@pytest.mark.parametrize("reports", [None, {}])
def test_without_a_report_the_number_stays(reports: dict[str, float] | None) -> None:
    assert FollowLoad(target=4)(context(reports, target=3)) == (3, {"kept": 1})
