"""What people are told of a run's progress, and what is stored of it."""

import asyncio
import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from jobs.generate import GenerateProgress
from jobs.judges.verdicts import JudgeSummary
from jobs.progress import (
    FIRST_INTERVAL_S,
    MOST_RECORDS,
    Reporter,
    Speed,
    SpeedMeter,
    format_duration,
    verdict_progress,
)
from jobs.records import Failure, Generator, Progress, Row
from jobs.store import Store
from jobs.stored_calls import CallCounts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 min 00 s"),
        (59.4, "0 min 59 s"),
        (59.6, "1 min 00 s"),
        (307, "5 min 07 s"),
        (3599.6, "1 h 00 min"),
        (3 * 3600 + 5 * 60 + 59, "3 h 05 min"),
        (100 * 3600, "100 h 00 min"),
    ],
)
def test_a_duration_is_told_in_minutes_or_in_hours(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_one_look_tells_no_speed() -> None:
    meter = SpeedMeter(100)
    assert meter.speed(5, 10, 1000) == Speed(0.0, None)
    assert meter.speed(5, 20, 2000) == Speed(0.0, None)


def test_speed_and_time_left_are_those_since_the_first_look() -> None:
    meter = SpeedMeter(100)
    meter.speed(1000, 10, 500)
    assert meter.speed(1010, 30, 900) == Speed(tokens_per_s=40, left_s=35)
    assert meter.speed(1020, 60, 900) == Speed(tokens_per_s=20, left_s=16)


def test_only_the_last_minute_counts() -> None:
    meter = SpeedMeter(1000)
    for second in range(0, 601, 10):
        meter.speed(second, 5 * second // 10, 100 * second)
    after_a_minute = [meter.speed(600 + second, 300, 60_000) for second in (20, 40, 60, 80)]
    assert [speed.tokens_per_s for speed in after_a_minute] == pytest.approx([200 / 3, 100 / 3, 0, 0])
    assert after_a_minute[-1].left_s is None, "no call ends any more"


def test_a_look_after_a_long_silence_is_compared_with_the_one_before_it() -> None:
    meter = SpeedMeter(10)
    meter.speed(0, 0, 0)
    meter.speed(10, 1, 10)
    assert meter.speed(1010, 6, 510) == Speed(tokens_per_s=0.5, left_s=800)


def test_more_calls_than_expected_leave_no_time() -> None:
    meter = SpeedMeter(10)
    meter.speed(0, 0, 0)
    assert meter.speed(10, 20, 0) == Speed(0.0, 0.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        opened.add_rows(Row(index, (f"q{index}",)) for index in range(4))
        for name in ("mix", "a"):
            opened.add_generator(Generator(name, "model", name))
        yield opened


class Run:
    """A run whose figures a test sets, its reporter, and what the reporter printed."""

    def __init__(self, store: Store, *, terminal: bool = False) -> None:
        self.counts = CallCounts()
        self.swaps = 100
        self.printed = io.StringIO()
        console = Console(file=self.printed, force_terminal=terminal, width=200, color_system=None)
        self.reporter = Reporter(store, ["mix", "a"], 24, self.counts, self._count_swaps, console)

    async def _count_swaps(self) -> int:
        return self.swaps

    def lines(self) -> list[str]:
        return self.printed.getvalue().splitlines()


@pytest.fixture
async def records(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Progress]]:
    """The records that reporters store, with their times; clocks jump with the event loop."""
    kept: list[tuple[float, Progress]] = []
    loop = asyncio.get_running_loop()
    clock = SimpleNamespace(monotonic=loop.time, time=lambda: 1e9 + loop.time())
    monkeypatch.setattr("jobs.progress.time", clock)

    async def keep(_store: Store, record: Progress) -> None:
        kept.append((loop.time(), record))

    monkeypatch.setattr(Store, "keep_progress", keep)
    return kept


@pytest.mark.virtual_time
@pytest.mark.usefixtures("written_at_once")
async def test_a_run_in_which_no_call_ends_says_for_which_models_it_waits(
    store: Store, records: list[tuple[float, Progress]]
) -> None:
    run = Run(store)
    watch = asyncio.create_task(run.reporter.watch())
    run.counts.in_work.update({"b": 2, "a": 1, "idle": 0})
    await asyncio.sleep(10.2)
    assert run.lines()[-1].endswith("0 swaps, waiting for a (1), b (2) since 10 s")
    run.counts.made = 1
    await asyncio.sleep(10)
    assert "waiting" not in run.lines()[-1]
    await asyncio.sleep(10)
    assert "waiting for a (1), b (2) since 10 s" in run.lines()[-1]
    run.counts.in_work.clear()
    await asyncio.sleep(10)
    assert "waiting" not in run.lines()[-1]
    watch.cancel()
    assert records


@pytest.mark.virtual_time
@pytest.mark.usefixtures("written_at_once")
async def test_a_record_holds_the_figures_of_each_generator_and_of_all_calls(
    store: Store, records: list[tuple[float, Progress]]
) -> None:
    run = Run(store)
    watch = asyncio.create_task(run.reporter.watch())
    await asyncio.sleep(1)
    await store.keep_failure(Failure("generate", "a", 3, "engine_error", "broken"))
    await store.keep_failure(Failure("judge", "mix", 3, "engine_error", "broken"))
    run.counts.made, run.counts.reused, run.counts.tokens = 7, 3, 500
    run.swaps = 105
    await asyncio.sleep(1.5)
    watch.cancel()
    first, last = records[:2], records[-2:]
    assert [record for _, record in first] == [
        Progress(1e9, "mix", 0, 0, 0, 0, 0, 0),
        Progress(1e9, "a", 0, 0, 0, 0, 0, 0),
    ]
    assert [record for _, record in last] == [
        Progress(1e9 + 2, "mix", 0, 0, 500, 7, 3, 5),
        Progress(1e9 + 2, "a", 0, 1, 500, 7, 3, 5),
    ]


@pytest.mark.virtual_time
async def test_records_come_farther_apart_the_longer_a_run_lasts(
    store: Store, records: list[tuple[float, Progress]]
) -> None:
    watch = asyncio.create_task(Run(store).reporter.watch())
    lasts_s = 4 * FIRST_INTERVAL_S * MOST_RECORDS
    await asyncio.sleep(lasts_s)
    watch.cancel()
    times = sorted({at for at, _ in records})
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[:100] == [FIRST_INTERVAL_S] * 100
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(lasts_s / MOST_RECORDS, abs=0.5)
    assert len(times) < 3 * MOST_RECORDS


@pytest.mark.virtual_time
@pytest.mark.usefixtures("records")
async def test_a_log_gets_a_line_every_ten_seconds(store: Store) -> None:
    run = Run(store)
    run.reporter.update(GenerateProgress(rows=8, answered=1))
    with run.reporter.show_bar():
        watch = asyncio.create_task(run.reporter.watch())
        await asyncio.sleep(9)
        assert run.lines() == []
        await asyncio.sleep(2)
        run.reporter.update(GenerateProgress(rows=8, answered=3, failed=2))
        run.counts.made, run.counts.reused, run.counts.tokens = 3, 1, 250
        run.swaps = 103
        await asyncio.sleep(10)
        watch.cancel()
    assert run.lines() == [
        "1/8 rows, 0 tokens/s, 0 swaps",
        "3/8 rows, 2 failed, 25 tokens/s, 3 swaps, 0 min 50 s left",
    ]


@pytest.mark.virtual_time
@pytest.mark.usefixtures("records")
async def test_a_terminal_gets_a_bar(store: Store) -> None:
    run = Run(store, terminal=True)
    with run.reporter.show_bar():
        watch = asyncio.create_task(run.reporter.watch())
        run.reporter.update(GenerateProgress(rows=8, answered=8, failed=0))
        await asyncio.sleep(1)
        watch.cancel()
    assert "8/8 0 tokens/s, 0 swaps" in run.printed.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_over_verdicts_counts_every_outcome(terminal: bool) -> None:
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=terminal, width=100, color_system=None)
    with verdict_progress(console, "mix", 20) as update:
        update(JudgeSummary("j", judged=3, identical=2, unusable=4, failed=5, missing=1, reused=9))
    assert ("judging mix" in printed.getvalue()) is terminal
    assert ("15/20" in printed.getvalue()) is terminal
