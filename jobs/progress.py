"""Shows the progress of answering and judging at a terminal or in a log.

The progress of answering is stored too, for `bench status`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from jobs import records
from jobs.generate import GenerateProgress
from jobs.judges.verdicts import JudgeSummary
from jobs.store import Store
from jobs.stored_calls import CallCounts

LOG_INTERVAL_S = 10.0
"""Time between two lines of a log."""

STALL_S = 5.0
"""Seconds without the end of a call after which the progress says for which models the run waits."""

LOOK_INTERVAL_S = 0.5
"""Time between two looks at the figures."""

FIRST_INTERVAL_S = 2.0
"""Minimum time between two records of a generator in the store, as long as the run is young; see
MOST_RECORDS."""

MOST_RECORDS = 500
"""After n seconds, records of a generator are at least n / MOST_RECORDS seconds apart, so that even a
long run stores only a few thousand records of each generator."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a run is, over the last minute or so."""

    tokens_per_s: float
    """Tokens that all engines together wrote per second."""

    left_s: float | None
    """Seconds until the run ends at this speed; None if no call was finished lately."""


class SpeedMeter:
    """Computes a speed from totals that grow.

    The time left is computed from calls, not from rows: where models take turns, no row is finished for
    a long time, and then all rows are finished at once.
    """

    WINDOW_S = 60.0
    """Seconds that a speed looks back, at least, once the run has lasted so long."""

    def __init__(self, calls_expected: int) -> None:
        """A meter for a run that takes `calls_expected` calls in all."""
        self._expected = calls_expected
        self._totals: list[tuple[float, int, int]] = []

    def speed(self, now: float, calls: int, tokens: int) -> Speed:
        """Add the totals of one moment, and return the speed since about WINDOW_S before it.

        Args:
            now: The moment, in seconds of any clock.
            calls: Number of calls that are done so far.
            tokens: Number of tokens that are written so far.
        """
        self._totals.append((now, calls, tokens))
        while len(self._totals) > 2 and self._totals[1][0] <= now - self.WINDOW_S:
            self._totals.pop(0)
        first, first_calls, first_tokens = self._totals[0]
        if now <= first:
            return Speed(0.0, None)
        calls_per_s = (calls - first_calls) / (now - first)
        remaining = max(0, self._expected - calls)
        left_s = remaining / calls_per_s if calls_per_s else None
        return Speed((tokens - first_tokens) / (now - first), left_s)


class Reporter:
    """Shows the progress of one run of `generate`, and stores it."""

    def __init__(
        self,
        store: Store,
        names: Sequence[str],
        calls_expected: int,
        counts: CallCounts,
        swaps: Callable[[], Awaitable[int]],
        console: Console,
    ) -> None:
        """A reporter that has shown nothing yet.

        Args:
            store: The store that gets the records of progress.
            names: Names of the generators that answer.
            calls_expected: Number of calls that all of the remaining answers take.
            counts: Counts of the run's calls, which grow while the run goes on.
            swaps: Returns the number of swaps since the application started.
            console: Where to show the progress.
        """
        self._store = store
        self._names = names
        self._counts = counts
        self._count_swaps = swaps
        self._console = console
        self._meter = SpeedMeter(calls_expected)
        answered = sum(store.answered_count(name) for name in names)
        self._progress = GenerateProgress(store.row_count() * len(names), answered)
        self._began = time.monotonic()
        self._swaps_before = 0
        self._swaps = 0
        self._bar: tuple[Progress, TaskID] | None = None
        self._ended_calls = 0
        self._ended_at = self._began
        """When the number of calls that have ended was seen to grow for the last time."""

    def update(self, progress: GenerateProgress) -> None:
        """Take over the new progress; to be called after each row that was answered or failed."""
        self._progress = progress

    @contextmanager
    def show_bar(self) -> Iterator[None]:
        """Show a bar during the block if the console is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        with Progress(*columns, console=self._console) as bar:
            self._bar = bar, bar.add_task("rows", total=None, note="")
            yield
            self._show(time.monotonic())
        self._bar = None

    async def watch(self) -> None:
        """Show and store the progress again and again, until cancelled.

        The progress is shown on the bar if there is a bar, and otherwise as a line of a log.
        """
        self._swaps_before = await self._count_swaps()
        stored_at = -LOG_INTERVAL_S
        logged_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now - stored_at >= max(FIRST_INTERVAL_S, (now - self._began) / MOST_RECORDS):
                await self.keep_progress()
                stored_at = now
            if self._bar is not None or now - logged_at >= LOG_INTERVAL_S:
                self._show(now)
                logged_at = now
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def keep_progress(self) -> None:
        """Store a record for each generator."""
        self._swaps = await self._count_swaps() - self._swaps_before
        for name in self._names:
            record = records.Progress(
                at=time.time(),
                generator=name,
                rows=self._store.answered_count(name),
                failed=len(self._store.failures("generate", name)),
                tokens=self._counts.tokens,
                calls=self._counts.made,
                reused=self._counts.reused,
                swaps=self._swaps,
            )
            await self._store.keep_progress(record)

    def _show(self, now: float) -> None:
        progress, counts = self._progress, self._counts
        speed = self._meter.speed(now, counts.made + counts.reused, counts.tokens)
        parts = [f"{progress.failed} failed"] * bool(progress.failed)
        parts += [f"{speed.tokens_per_s:.0f} tokens/s", f"{self._swaps} swaps"]
        parts += [f"{format_duration(speed.left_s)} left"] if speed.left_s is not None else []
        parts += self._stall(now, counts.made + counts.reused)
        note = ", ".join(parts)
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, total=progress.rows or None, completed=progress.answered, note=note)
        else:
            line = f"{progress.answered}/{progress.rows} rows, {note}"
            self._console.print(line, highlight=False, soft_wrap=True)

    def _stall(self, now: float, ended: int) -> list[str]:
        """For which models the run waits, if no call has ended for long."""
        if ended != self._ended_calls:
            self._ended_calls, self._ended_at = ended, now
        waits = [f"{model} ({count})" for model, count in sorted(self._counts.in_work.items()) if count]
        if not waits or now - self._ended_at < STALL_S:
            return []
        return [f"waiting for {', '.join(waits)} since {now - self._ended_at:.0f} s"]


def format_duration(seconds: float) -> str:
    """A duration for people, such as `5 min 07 s` or `3 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@contextmanager
def verdict_progress(
    console: Console, generator: str, rows: int
) -> Iterator[Callable[[JudgeSummary], None]]:
    """Show a bar over the verdicts on one generator if the console is a terminal.

    Yields the function that is to be called after each case with the summary so far.

    Args:
        console: Where to show the bar.
        generator: Name of the generator.
        rows: The number of cases at which the bar is full.
    """
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"judging {generator}", total=rows)

        def update(summary: JudgeSummary) -> None:
            judged = summary.judged + summary.identical + summary.unusable
            bar.update(task, completed=judged + summary.failed + summary.missing)

        yield update
