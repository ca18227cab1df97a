"""How many replicas a model gets as nodes come and go."""

import pytest

from serve_app.follow_nodes import FollowNodes

GPU = {"CPU": 8.0, "GPU": 2.0}


def policy(joining: int = 2) -> FollowNodes:
    """n1 and n2 have two seats each, n3 has none."""
    return FollowNodes({"n1": 2, "n2": 2, "n3": 0}, joining, "GPU", 2)


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
def test_it_counts_the_seats_of_the_nodes_that_are_there(
    alive: dict[str, dict[str, float]], count: int
) -> None:
    assert policy().count(alive) == count


def test_where_a_node_that_joins_has_no_seat_of_the_model_it_counts_for_nothing() -> None:
    assert policy(joining=0).count({"n1": GPU, "new": GPU}) == 2
