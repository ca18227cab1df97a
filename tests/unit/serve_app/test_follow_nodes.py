"""How many replicas a model gets as nodes come and go."""

from types import SimpleNamespace

import pytest

from serve_app import follow_nodes
from serve_app.follow_nodes import FollowNodes

GPU = {"CPU": 8.0, "GPU": 2.0}


def policy(joining: int = 2) -> FollowNodes:
    """The plan has two replicas on n1, two on n2 and none on n3."""
    planned = {"n1": 2, "n2": 2, "n3": 0}
    return FollowNodes(replicas=planned, joining=joining, resource="GPU", amount=2)


@pytest.mark.parametrize(
    ("alive", "count"),
    [
        ({"n1": GPU, "n2": GPU, "n3": GPU}, 4),
        ({"n1": GPU, "n3": GPU}, 2),
        ({"n1": GPU, "n2": GPU, "new": GPU}, 6),
        ({"n1": GPU, "new": {"CPU": 8.0}, "small": {"GPU": 1.0}}, 2),
        ({"n3": GPU}, 0),
    ],
)
def test_it_counts_the_replicas_of_the_present_nodes(
    alive: dict[str, dict[str, float]], count: int
) -> None:
    assert policy().count(alive) == count


def test_a_node_that_joins_counts_for_nothing_if_it_gets_no_replica_of_the_model() -> None:
    assert policy(joining=0).count({"n1": GPU, "new": GPU}) == 2


def test_serve_gets_the_count_and_the_nodes_are_not_asked_at_every_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = iter([{"n1": GPU, "n2": GPU, "new": GPU}, {"n1": GPU}])
    now = iter([100.0, 100.5, 103.0])
    monkeypatch.setattr(follow_nodes, "_resources_by_node", lambda: next(seen))
    monkeypatch.setattr(follow_nodes, "time", SimpleNamespace(monotonic=lambda: next(now)))
    context = SimpleNamespace(capacity_adjusted_min_replicas=1, policy_state={"kept": 1})
    ask = policy()
    assert [ask(context) for _ in range(3)] == [(n, {"kept": 1}) for n in (6, 6, 2)]
