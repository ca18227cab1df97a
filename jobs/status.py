"""How far a run is, read from its store while it runs or later."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jobs.owner import owner_of
from jobs.progress import Meter, left
from jobs.store import Store

SHOWN_FAILURES = 5


@dataclass(frozen=True, slots=True)
class GeneratorStatus:
    """failed: rows whose last attempt failed; tokens_per_s: lately, 0 when nothing runs."""

    name: str
    kind: str
    answered: int
    failed: int
    tokens_per_s: float
    swaps: int


@dataclass(frozen=True, slots=True)
class Status:
    """owner: the job that works on the run, empty if none does; causes: of failures, most frequent
    first; left_s: unknown while nothing runs."""

    folder: str
    dataset: str
    rows: int
    owner: str
    generators: tuple[GeneratorStatus, ...]
    causes: tuple[tuple[str, int, str], ...]
    left_s: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> Group:
        """For the terminal."""
        head = f"{self.folder}: {self.rows} rows of {self.dataset}"
        now = f"working: {self.owner}" if self.owner else "nobody works on it"
        if self.left_s is not None:
            now += f"; about {left(self.left_s)} left"
        table = Table("generator", "kind", "answered", "failed", "tokens/s", "swaps", box=None)
        for each in self.generators:
            done = f"{each.answered}/{self.rows}"
            speed = f"{each.tokens_per_s:.0f}" if self.owner else "-"
            table.add_row(each.name, each.kind, done, str(each.failed), speed, str(each.swaps))
        causes = [f"  {n} x {cause}, such as: {detail}" for cause, n, detail in self.causes]
        more = [Text("\n".join(["failures:", *causes]))] if causes else []
        return Group(Text(head), Text(now), table, *more)


def status(folder: Path) -> Status:
    """Look at a run.

    Raises:
        StoreError: there is none.
    """
    with Store.open(folder, read_only=True) as store:
        rows, owner = store.row_count(), owner_of(folder) or ""
        generators, lefts = [], []
        for generator in store.generators():
            answered = store.answered(generator.name)
            history = store.progress(generator.name)[-60:]
            meter, speed = Meter(0), None
            for seen in history if owner and answered < rows else []:
                speed = meter.speed(seen.at, seen.calls + seen.reused, seen.tokens)
            failed = len(store.failures("generate", generator.name))
            swaps = history[-1].swaps if history else 0
            tokens_per_s = speed.tokens_per_s if speed else 0.0
            generators.append(
                GeneratorStatus(generator.name, generator.kind, answered, failed, tokens_per_s, swaps)
            )
            if speed and len(history) > 1 and answered > history[0].rows:
                rate = (answered - history[0].rows) / max(1e-9, time.time() - history[0].at)
                lefts.append((rows - answered) / rate)
        name = store.about().get("set", {}).get("name", "no set")
        causes = tuple(_causes(store))
        return Status(
            str(folder), name, rows, owner, tuple(generators), causes, max(lefts, default=None)
        )


def _causes(store: Store) -> list[tuple[str, int, str]]:
    counted: dict[str, tuple[int, str]] = {}
    for failure in store.failures():
        cause = f"{failure.stage}: {failure.cause}"
        counted[cause] = counted.get(cause, (0, ""))[0] + 1, failure.detail
    ranked = sorted(counted.items(), key=lambda item: -item[1][0])
    return [(cause, n, detail) for cause, (n, detail) in ranked[:SHOWN_FAILURES]]
