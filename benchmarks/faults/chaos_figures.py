"""What a chaos run has shown: figures by kind of process, and a picture of its time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.chaos_cluster import HOLD_CONNECTIONS, KINDS, NODE, Killed
from benchmarks.faults.chaos_models import Oracle
from benchmarks.shared.harness import percentile
from benchmarks.shared.open_loop import is_streamed
from benchmarks.shared.outcome import Outcome
from configs.schema import Recipe

DYING_S = 3.0
"""The processes of a node outlive its raylet by up to so long, and take requests."""
BIN_S = 2.0
HEADROOM = 1.4  # over the bars, for the names of what was killed
COLOURS = {"whole": "#2a7f62", "degraded": "#e0a030", "failed": "#c0392b"}


@dataclass(frozen=True, slots=True)
class Blow:
    """A kill and what came of it. whole_at: when all was up again, None if it never was; until: when
    the next one came, or the end."""

    killed: Killed
    whole_at: float | None
    until: float

    def bad_s(self, found: Sequence[Outcome]) -> float:
        """Recovery: from the kill to the end of the last attempt that failed, or was answered degraded,
        of a request that was due before all was whole again; 0 if none was."""
        whole_at = self.until if self.whole_at is None else self.whole_at
        ends = [end for o in found if o.due < whole_at and (end := last_bad(o)) is not None]
        return max((end - self.killed.at for end in ends if end > self.killed.at), default=0.0)

    def concerns(self, outcome: Outcome) -> bool:
        """Whether it is the last kill that a request could have felt."""
        return self.killed.at < outcome.ended <= self.until


def last_bad(outcome: Outcome) -> float | None:
    """When the last attempt of a request ended that did not bring a whole answer."""
    if not outcome.is_answered or outcome.is_degraded:
        return outcome.ended
    return outcome.attempts[-2].ended if len(outcome.attempts) > 1 else None


def cut(found: Sequence[Outcome], blows: Sequence[Blow], *, explained: bool) -> list[Outcome]:
    """Streams that were cut: by the kill of a process that held their connection, which was open then,
    or for no such reason. No library of a client asks again for a stream that has begun."""
    killers = [blow for blow in blows if blow.killed.kind in HOLD_CONNECTIONS]
    return [o for o in found if o.cut and any(_cuts(blow, o) for blow in killers) == explained]


def _cuts(blow: Blow, outcome: Outcome) -> bool:
    gone_at = blow.killed.at + (DYING_S if blow.killed.kind == NODE else 0)
    return outcome.attempts[-1].began < gone_at and blow.concerns(outcome)


def row(name: str, found: Sequence[Outcome], blows: Sequence[Blow]) -> dict[str, Any]:
    """The figures of the requests that were due in a part of the run, and of its kills.

    raw and retried: shares that were answered at the first attempt, and at last; cut: streams
    that broke.
    """
    walls = [outcome.wall_s for outcome in found if outcome.is_answered]
    row: dict[str, Any] = {"killed": name, "times": len(blows), "requests": len(found)}
    row["raw"] = share(found, lambda o: o.is_answered and len(o.attempts) == 1)
    row["retried"] = share(found, lambda o: o.is_answered)
    row["cut"] = share(found, lambda o: o.cut)
    row["degraded"] = share(found, lambda o: o.is_degraded)
    row |= {f"p{n} s": percentile(walls, n / 100) if walls else "" for n in (50, 99)}
    bad = [blow.bad_s(found) for blow in blows]
    whole = [(b.whole_at or b.until) - b.killed.at for b in blows]
    for what, spans in {"good s": bad, "whole s": whole}.items():
        row[f"{what} p50"] = percentile(spans, 0.5) if spans else ""
        row[f"{what} max"] = max(spans, default="")
    return row


def share(found: Sequence[Outcome], has: Any) -> float:
    """Of the requests, 0 to 1; of none it is 1."""
    return sum(map(has, found)) / len(found) if found else 1.0


def rows(found: Sequence[Outcome], blows: Sequence[Blow]) -> list[dict[str, Any]]:
    """One for each kind that was killed, with the requests that ended between such a kill and the next
    one; one for the whole run, and two for its parts."""
    table = []
    for kind in KINDS:
        own = [blow for blow in blows if blow.killed.kind == kind]
        if own:
            table.append(row(kind, [o for o in found if any(b.concerns(o) for b in own)], own))
    table.append(row("all", found, blows))
    for name, streamed in {"all, streamed": True, "all, not streamed": False}.items():
        table.append(row(name, [o for o in found if is_streamed(o.number) == streamed], ()))
    return table


async def wrong(found: Sequence[Outcome], mixture: Recipe) -> list[Outcome]:
    """Answers whose text is not what the mixture makes of this request and the proposals that came."""
    oracle = Oracle(mixture)
    await oracle.start()
    wrong = []
    for outcome in found:
        if outcome.is_answered:
            missing = {missing["model"] for missing in outcome.moa["missing"]}
            right = await oracle.says(outcome.number, missing)
            if not (right.startswith(outcome.text) if outcome.moa["cut"] else right == outcome.text):
                wrong.append(outcome)
    return wrong


def draw(file: Path, found: Sequence[Outcome], blows: Sequence[Blow], began: float) -> None:
    """Answers per second over the time at which they were due, and the kills. The file's ending says
    whether it is SVG or PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots()
    kinds = {"whole": [o for o in found if o.is_answered and not o.is_degraded]}
    kinds |= {"degraded": [o for o in found if o.is_degraded]}
    kinds |= {"failed": [o for o in found if not o.is_answered]}
    last = max(o.due for o in found) - began
    edges = [n * BIN_S for n in range(int(last / BIN_S) + 2)]
    axes.hist(
        [[o.due - began for o in group] for group in kinds.values()],
        bins=edges,
        weights=[[1 / BIN_S] * len(group) for group in kinds.values()],
        stacked=True,
        label=list(kinds),
        color=list(COLOURS.values()),
    )
    top = HEADROOM * axes.get_ylim()[1]
    for blow in blows:
        at = blow.killed.at - began
        axes.axvline(at, color="#444444", linewidth=0.6)
        axes.text(at, top, blow.killed.kind, rotation=90, fontsize=8, va="top", ha="right")
    axes.set(
        xlabel="seconds",
        ylabel="requests per second, after retries",
        xlim=(0, edges[-1]),
        ylim=(0, top),
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    figure.savefig(file)
