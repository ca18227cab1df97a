"""How far a run is, read from its store while it runs or later."""

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


@dataclass(frozen=True, slots=True)
class GeneratorStatus:
    """failed: rows whose last attempt failed."""

    name: str
    kind: str
    answered: int
    failed: int


@dataclass(frozen=True, slots=True)
class Work:
    """What the job has done since it started. made: engine calls; reused: calls that were stored;
    tokens_per_s: over the last minute; left_s: None while it cannot be told."""

    made: int
    reused: int
    swaps: int
    tokens_per_s: float
    left_s: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """owner: the job that works on the run, empty if none does, and then there is no work; causes: of
    failures, the most frequent first: cause, how many, one detail."""

    folder: str
    dataset: str
    rows: int
    owner: str
    work: Work | None
    generators: tuple[GeneratorStatus, ...]
    causes: tuple[tuple[str, int, str], ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> Group:
        """For the terminal."""
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
    """Look at a run.

    Raises:
        StoreError: there is none.
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
    """From the last records of progress; all generators' are alike in this."""
    history = store.progress()
    if not history:
        return None
    last = history[-1]
    mine = [seen for seen in history if seen.generator == last.generator]
    meter = SpeedMeter(store.about().get("calls_expected", 0))
    speed = Speed(0.0, None)
    for before, seen in pairwise([mine[0], *mine]):
        if seen.tokens < before.tokens:  # another start
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
