"""Tells how far a run is. A job may work on the run meanwhile: the run's store is only read."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jobs.folder_lock import read_owner
from jobs.progress import Speed, SpeedMeter, format_duration
from jobs.store import Store

SHOWN_FAILURES = 5
"""Most causes of failures that a status has."""


@dataclass(frozen=True, slots=True)
class GeneratorStatus:
    """How far one generator is: a mixture, a model alone, or an imported file."""

    name: str
    kind: str
    """`mixture`, `model` or `file`."""
    answered: int
    """Rows with an answer."""
    failed: int
    """Rows whose last attempt failed."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the last job that answered rows had done when it wrote its last record of progress.

    Only jobs that answer rows write records. So if a judge works on the run, or a job has just started,
    the record is that of an earlier job.
    """

    made: int
    """Calls that engines finished."""
    reused: int
    """Calls whose result was in the store, or that several answers shared."""
    swaps: int
    """How often a keeper of a card ordered a sleeping engine to wake."""
    tokens_per_s: float
    """Tokens that all engines together wrote per second, over the last minute of records."""
    left_s: float | None
    """Seconds until all rows have answers, at the present speed; None if the speed is unknown."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is."""

    folder: str
    dataset: str
    """Name of the set; `no set` if the run has none yet."""
    rows: int
    """How many rows the set has in this run."""
    owner: str
    """The job that works on the run, in words for people; empty if no job works on it."""
    work: Work | None
    """What the job has done; None if no job works on the run, or no record of progress is there."""
    generators: tuple[GeneratorStatus, ...]
    causes: tuple[tuple[str, int, str], ...]
    """The most frequent causes of failures, the most frequent first: the cause, how many failures it
    has, and the message of one of these failures."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> Group:
        """The status for a terminal: facts of the run, a table of generators, causes of failures."""
        lines = [f"{self.folder}: {self.rows} rows of {self.dataset}"]
        lines.append(f"working: {self.owner}" if self.owner else "nobody works on it")
        if (work := self.work) is not None:
            parts = [f"{work.made} calls made, {work.reused} reused", f"{work.swaps} swaps"]
            parts.append(f"{work.tokens_per_s:.0f} tokens/s")
            parts += [f"about {format_duration(work.left_s)} left"] if work.left_s is not None else []
            lines.append(", ".join(parts))
        table = Table("generator", "kind", "answered", "failed", box=None)
        for each in self.generators:
            table.add_row(each.name, each.kind, f"{each.answered}/{self.rows}", str(each.failed))
        causes = [f"  {n} x {cause}, such as: {detail}" for cause, n, detail in self.causes]
        more = [Text("\n".join(["failures:", *causes]))] if causes else []
        return Group(Text("\n".join(lines)), table, *more)


def status(folder: Path) -> Status:
    """Read the status of a run.

    Raises:
        StoreError: the folder holds no run.
    """
    with Store.open(folder, read_only=True) as store:
        owner = read_owner(folder) or ""
        generators = tuple(
            GeneratorStatus(
                generator.name,
                generator.kind,
                store.answered_count(generator.name),
                len(store.failures("generate", generator.name)),
            )
            for generator in store.generators()
        )
        name = store.about().get("set", {}).get("name", "no set")
        work = _work(store) if owner else None
        causes = tuple(_causes(store))
        return Status(str(folder), name, store.row_count(), owner, work, generators, causes)


def _work(store: Store) -> Work | None:
    """The work of the last job that answered rows, from the records of progress."""
    history = store.progress()
    if not history:
        return None
    last = history[-1]
    records = [seen for seen in history if seen.generator == last.generator]
    meter = SpeedMeter(store.about().get("calls_expected", 0))
    speed = Speed(0.0, None)
    for before, seen in pairwise([records[0], *records]):
        if seen.tokens < before.tokens:  # the job was started again
            meter = SpeedMeter(store.about().get("calls_expected", 0))
        speed = meter.speed(seen.at, seen.calls + seen.reused, seen.tokens)
    return Work(last.calls, last.reused, last.swaps, speed.tokens_per_s, speed.left_s)


def _causes(store: Store) -> list[tuple[str, int, str]]:
    counted: dict[str, tuple[int, str]] = {}
    for failure in store.failures():
        cause = f"{failure.stage}: {failure.cause}"
        counted[cause] = counted.get(cause, (0, ""))[0] + 1, failure.detail
    ranked = sorted(counted.items(), key=lambda item: -item[1][0])
    return [(cause, n, detail) for cause, (n, detail) in ranked[:SHOWN_FAILURES]]
