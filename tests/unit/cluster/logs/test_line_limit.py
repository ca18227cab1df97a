"""A flood of the same is a few lines and a count."""

from cluster.logs.limit import MOST_THINGS, LeftOut, LineLimit


def test_a_flood_is_a_few_lines_and_a_count() -> None:
    limit = LineLimit(lines=5, window_s=10)
    assert [limit.allows("a", 0.1 * n) for n in range(50)] == [True] * 5 + [False] * 45
    assert limit.allows("b", 3.0)
    assert limit.ended(9.9) == []
    assert limit.ended(10.0) == [LeftOut("a", 45, 10.0)]
    assert limit.allows("a", 10.0)
    assert limit.ended(100.0) == []


def test_many_different_things_are_a_flood_too() -> None:
    limit = LineLimit(lines=1, window_s=10)
    allowed = [limit.allows(n, 0.0) for n in range(10 * MOST_THINGS)]
    assert sum(allowed) == MOST_THINGS + 1
    assert limit.ended(10.0) == [LeftOut(None, 9 * MOST_THINGS - 1, 10.0)]
