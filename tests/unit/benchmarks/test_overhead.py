"""The figures of the overhead benchmark, on calls that are made up."""

from collections import Counter

import pytest

from benchmarks.speed.backends import Call
from benchmarks.speed.closed_loop import Block, Request
from benchmarks.speed.overhead_figures import (
    HIDDEN,
    OURS,
    SHOWN_AT,
    YARDSTICK,
    Measured,
    beside,
    details,
    figures,
    ideal_first_s,
    idle,
    limits,
    medians,
    rows,
)


def calls(number: int, began: float, late: float = 0.0) -> list[Call]:
    """Calls of a request: `late` seconds before the first, and twice as many between the stages."""
    first = began + late
    return [
        Call(number, "proposer-a", first, [first + 0.3], first + 0.5),
        Call(number, "proposer-b", first + 0.01, [first + 0.3], first + 0.6),
        Call(number, "aggregator", first + 0.6 + 2 * late, [first + 0.8 + 2 * late], first + 1.4),
    ]


def measured(late: float, cpu_s: float = 0.0) -> Measured:
    """One client's two requests."""
    requests = [Request(n, n * 2.0, n * 2.0 + 0.8 + 3 * late, n * 2.0 + 1.5) for n in range(2)]
    by_number = {n: calls(n, n * 2.0, late) for n in range(2)}
    cpu = Counter({"ingress": cpu_s}) if cpu_s else Counter[str]()
    return Measured(Block([requests], 0.35), by_number, cpu, 0.7, 0.0)


def test_idle_is_what_no_server_works() -> None:
    parts = idle(Request(0, 10.0, 10.9, 11.5), calls(0, 10.0, 0.02))
    rounded = {part: round(ms, 3) for part, ms in parts.items()}
    assert rounded == {"idle": 140.0, "before": 20.0, "between": 40.0, "after": 80.0}


def test_servers_that_work_side_by_side_are_no_idle_time() -> None:
    overlapping = [
        Call(0, "proposer-a", 1.0, [1.0], 3.0),
        Call(0, "proposer-b", 1.5, [1.5], 2.0),
        Call(0, "aggregator", 2.5, [2.5], 4.0),
    ]
    assert idle(Request(0, 1.0, 2.5, 4.0), overlapping)["idle"] == 0


@pytest.mark.parametrize("more", [[], calls(0, 0.0)])
def test_a_request_without_exactly_its_calls_is_an_error(more: list[Call]) -> None:
    with pytest.raises(RuntimeError, match="request 0 made calls of"):
        idle(Request(0, 0.0, 1.0, 2.0), [*calls(0, 0.0)[:2], *more])


def test_the_ideal_is_the_slowest_proposer_and_the_aggregators_first_token() -> None:
    assert ideal_first_s(calls(0, 10.0, 0.5)) == pytest.approx(0.59 + 0.2)


def test_figures_are_per_request_and_of_all_processes() -> None:
    found = figures(measured(0.0, cpu_s=0.05))
    assert found["CPU ms"] == found["CPU ms, ingress"] == pytest.approx(25)
    assert found["requests/s"] == pytest.approx(2 / 3.5)
    assert found["load client, cores"] == pytest.approx(0.1)
    assert found["simulated servers, cores"] == pytest.approx(0.2)


def test_clients_that_work_one_after_the_other_do_not_lower_the_rate() -> None:
    one, later = ([Request(0, at, at + 1, at + 2)] for at in (0.0, 1.0))
    assert Block([one, later], 0.0).per_s == pytest.approx(1.0)


def run(late: float, cpu_s: float) -> dict[int, dict[str, dict[str, float]]]:
    return {
        load: beside(
            {OURS: figures(measured(late, cpu)), YARDSTICK: figures(measured(0.0, cpu and 0.01))}
            | ({HIDDEN: figures(measured(0.0, 0.02))} if load == SHOWN_AT else {})
        )
        for load, cpu in ((1, 0.0), (32, cpu_s))
    }


def test_limits_hold_and_each_can_be_missed() -> None:
    good, bad = run(0.0, 0.04), run(0.05, 0.06)
    assert good[32][OURS]["CPU ms over proposals off"] == pytest.approx(10)
    bad[32][OURS] |= {"over hand-written": 0.97, "requests/s over proposals off": 0.97}
    for found in (good, bad):
        found[1][OURS]["idle ms"] -= 100  # what the made up requests have after their last call
    assert [limit.held for limit in limits(good)] == [True] * 6
    assert [limit.held for limit in limits(bad)] == [False] * 6


def test_medians_are_of_each_figure_and_details_have_every_run() -> None:
    runs = [run(0.0, cpu_s) for cpu_s in (0.02, 0.06, 0.04)]
    assert medians(runs)[32][OURS]["CPU ms"] == pytest.approx(20)
    assert "CPU ms (10, 30, 20)" in "\n".join(details(runs))
    assert [(row["at once"], row["orchestrator"]) for row in rows(medians(runs))] == [
        (1, OURS),
        (1, YARDSTICK),
        (32, OURS),
        (32, YARDSTICK),
        (32, HIDDEN),
    ]
