"""How far a generation is: for people at a terminal, for a log, and in the store for `bench status`."""

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

LOG_EVERY_S = 10.0
FIRST_S, MOST_RECORDS = 2.0, 500
"""How far apart records are at least; farther the longer a run lasts, so that it has few thousands."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What a generation does per second, over its last minute or so, and what is left of it."""

    tokens_per_s: float
    left_s: float | None


class Meter:
    """Speed from totals that grow. Calls are counted, not rows: in turns, rows end all at once."""

    WINDOW_S = 60.0

    def __init__(self, calls: int) -> None:
        self._expected = calls
        self._seen: list[tuple[float, int, int]] = []

    def speed(self, now: float, calls: int, tokens: int) -> Speed:
        """calls: that are done, of all that are expected; tokens: written so far."""
        self._seen.append((now, calls, tokens))
        while len(self._seen) > 2 and self._seen[1][0] <= now - self.WINDOW_S:
            self._seen.pop(0)
        then, calls_then, tokens_then = self._seen[0]
        if now <= then:
            return Speed(0.0, None)
        rate = (calls - calls_then) / (now - then)
        left = max(0, self._expected - calls)
        return Speed((tokens - tokens_then) / (now - then), left / rate if rate else None)


class Reporter:
    """Keeps and shows the progress of one generation.

    names: of the generators; calls: expected in all; swaps: asks how many there were since the
    application started.
    """

    def __init__(
        self,
        store: Store,
        names: Sequence[str],
        calls: int,
        counts: CallCounts,
        swaps: Callable[[], Awaitable[int]],
        console: Console,
    ) -> None:
        self._store, self._names, self._counts, self._swaps = store, names, counts, swaps
        self._console = console
        self._meter = Meter(calls)
        answered = sum(store.answered(name) for name in names)
        self._at = GenerateProgress(store.row_count() * len(names), answered)
        self._began = time.monotonic()
        self._swapped, self._swapped_before = 0, 0
        self._bar: tuple[Progress, TaskID] | None = None

    def note(self, at: GenerateProgress) -> None:
        """An answer is kept, or a row failed."""
        self._at = at

    @contextmanager
    def shown(self) -> Iterator[None]:
        """A bar, where the console is a terminal; elsewhere a line now and then."""
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
        """Until it is cancelled: look at the swaps, show and keep how things stand."""
        self._swapped_before = await self._swaps()
        kept_at, logged_at = -LOG_EVERY_S, time.monotonic()
        while True:
            now = time.monotonic()
            if now - kept_at >= max(FIRST_S, (now - self._began) / MOST_RECORDS):
                await self.keep()
                kept_at = now
            if self._bar is not None or now - logged_at >= LOG_EVERY_S:
                self._show(now)
                logged_at = now
            await asyncio.sleep(0.5)

    async def keep(self) -> None:
        """A record for each generator."""
        self._swapped = await self._swaps() - self._swapped_before
        counts = self._counts
        for name in self._names:
            rows = self._store.answered(name)
            failed = len(self._store.failures("generate", name))
            record = records.Progress(
                time.time(),
                name,
                rows,
                failed,
                counts.tokens,
                counts.made,
                counts.reused,
                self._swapped,
            )
            await self._store.keep_progress(record)

    def _show(self, now: float) -> None:
        at, counts = self._at, self._counts
        speed = self._meter.speed(now, counts.made + counts.reused, counts.tokens)
        parts = [f"{at.failed} failed"] * bool(at.failed)
        parts += [f"{speed.tokens_per_s:.0f} tokens/s", f"{self._swapped} swaps"]
        parts += [f"{left(speed.left_s)} left"] if speed.left_s is not None else []
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, total=at.rows or None, completed=at.answered, note=", ".join(parts))
        else:
            line = f"{at.answered}/{at.rows} rows, {', '.join(parts)}"
            self._console.print(line, highlight=False, soft_wrap=True)


def left(seconds: float) -> str:
    """A time to wait, for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


@contextmanager
def verdict_progress(
    console: Console, generator: str, rows: int
) -> Iterator[Callable[[JudgeSummary], None]]:
    """A bar over the verdicts on one generator, where the console is a terminal."""
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"judging {generator}", total=rows)

        def note(so_far: JudgeSummary) -> None:
            done = so_far.judged + so_far.identical + so_far.unusable + so_far.failed + so_far.missing
            bar.update(task, completed=done)

        yield note
