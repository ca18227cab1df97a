"""Work over time, from the stored progress of a run."""

import pytest

from jobs.records import Progress
from jobs.report.work import BINS, work_over_time


def at(second: float, tokens: int, *, name: str = "moa", rows: int = 0, swaps: int = 0) -> Progress:
    """The progress of a generator at a second."""
    return Progress(second, name, rows, 0, tokens, calls=tokens // 10, reused=0, swaps=swaps)


@pytest.mark.parametrize("kept", [[], [at(5, 0)], [at(5, 0), at(5, 0)]])
def test_too_little_gives_nothing(kept: list[Progress]) -> None:
    assert work_over_time(kept) is None


def test_a_session_is_drawn_as_it_was() -> None:
    done = work_over_time([at(100, 0), at(110, 100, rows=2, swaps=1), at(120, 400, rows=8, swaps=1)])
    assert done is not None
    assert done.edges == (0, 10, 20)
    assert done.tokens_per_s == (10, 30)
    assert done.rows == (2, 8)
    assert done.swaps == (1, 1)
    assert done.resumed == ()
    assert (done.tokens, done.calls, done.seconds) == (400, 40, 20)


def test_the_night_between_two_sessions_takes_no_time_and_counters_add_up() -> None:
    done = work_over_time(
        [
            at(0, 0),
            at(10, 100, rows=5, swaps=2),
            at(40_000, 0, rows=5),
            at(40_010, 300, rows=9, swaps=1),
        ]
    )
    assert done is not None
    assert done.seconds == 20
    assert done.resumed == (10,)
    assert (done.tokens, done.calls) == (400, 40)
    assert (done.rows[-1], done.swaps[-1]) == (9, 3)
    assert sum(rate * 20 / 3 for rate in done.tokens_per_s) == pytest.approx(400)


def test_a_long_silence_within_a_session_was_work() -> None:
    done = work_over_time([at(0, 0), at(10, 100), at(4000, 200)])
    assert done is not None
    assert (done.seconds, done.resumed) == (4000, ())


def test_generators_share_the_counters_and_add_their_rows() -> None:
    done = work_over_time(
        [
            at(0, 0, name="a"),
            at(0.001, 0, name="b"),
            at(10, 100, name="a", rows=3),
            at(10.001, 100, name="b", rows=4),
        ]
    )
    assert done is not None
    assert done.tokens == 100
    assert done.rows[-1] == pytest.approx(7)


def test_a_long_run_is_drawn_in_bins() -> None:
    done = work_over_time([at(second, 10 * second) for second in range(10_000)])
    assert done is not None
    assert len(done.rows) == len(done.tokens_per_s) == BINS
    assert done.tokens_per_s == pytest.approx([10] * BINS)
