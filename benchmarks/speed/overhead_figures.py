"""The figures of `overhead`: pure functions of what clients, servers and the kernel noted."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.shared.harness import Limit, percentile
from benchmarks.speed.backends import AGGREGATOR, IDEAL_FIRST_S, MODELS, PROPOSERS, Call
from benchmarks.speed.closed_loop import Block, Request

OURS, YARDSTICK = "slimmoa", "hand-written"
HIDDEN = "slimmoa, proposals off"
"""Ours, without the proposals in its streams."""
LOADS = (1, 32, 128)
SHOWN_AT = 32
"""The load at which ours is measured with and without the proposals."""
IDLE_LIMIT_MS, FIRST_ALONE_LIMIT = 10, 1.02
THROUGHPUT_LIMIT, FIRST_LIMIT, CPU_LIMIT_MS = 0.98, 1.05, 25
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """One orchestrator under one load in one run.

    cpu_s: its CPU seconds by what the process is, empty where orchestrators take turns by request;
    servers_s: those of the simulated servers; others_s: those of other programs.
    """

    block: Block
    calls: Mapping[int, Sequence[Call]]
    cpu_s: Counter[str] = field(default_factory=Counter)
    servers_s: float = float("nan")
    others_s: float = float("nan")


def idle(request: Request, calls: Collection[Call]) -> Figures:
    """The time in which no simulated server worked on a request, in milliseconds, by part."""
    if sorted(call.model for call in calls) != sorted(MODELS):
        raise RuntimeError(f"request {request.number} made calls of {[call.model for call in calls]}")
    between, last = 0.0, request.began
    gaps = []
    for call in sorted(calls, key=lambda call: call.began):
        gaps.append(max(0.0, call.began - last))
        last = max(last, call.stopped)
    before, between = gaps[0], sum(gaps[1:])
    after = max(0.0, request.ended - last)
    parts = {"idle": before + between + after, "before": before, "between": between, "after": after}
    return {part: seconds * 1000 for part, seconds in parts.items()}


def ideal_first_s(calls: Collection[Call]) -> float:
    """Time to the first token, if only the simulated servers took time, as they really were."""
    by_model = {call.model: call for call in calls}
    slowest = max(by_model[name].stopped - by_model[name].began for name in PROPOSERS)
    return slowest + by_model[AGGREGATOR].wrote[0] - by_model[AGGREGATOR].began


def figures(measured: Measured) -> Figures:
    """The figures of an orchestrator under a load: medians of its requests, milliseconds, ratios."""
    block, calls = measured.block, measured.calls
    idles = [idle(request, calls[request.number]) for request in block.requests]
    firsts = [(r.first - r.began, ideal_first_s(calls[r.number])) for r in block.requests]
    found = {f"{part} ms": percentile([i[part] for i in idles], 0.5) for part in idles[0]}
    found["idle p95 ms"] = percentile([i["idle"] for i in idles], 0.95)
    found["TTFT ms"] = percentile([first_s * 1000 for first_s, _ in firsts], 0.5)
    found["TTFT over ideal"] = percentile([first_s / ideal_s for first_s, ideal_s in firsts], 0.5)
    found["TTFT over set pace"] = found["TTFT ms"] / IDEAL_FIRST_S / 1000
    if measured.cpu_s:
        count = len(block.requests)
        found["requests/s"] = block.per_s
        found["CPU ms"] = sum(measured.cpu_s.values()) / count * 1000
        found |= {f"CPU ms, {name}": s / count * 1000 for name, s in measured.cpu_s.most_common()}
        found["CPU ms, simulated servers"] = measured.servers_s / count * 1000
        found["load client, cores"] = block.cpu_s / block.wall_s
        found["simulated servers, cores"] = measured.servers_s / block.wall_s
        found["other programs, cores"] = measured.others_s / block.wall_s
    return found


def beside(by_orchestrator: dict[str, Figures]) -> dict[str, Figures]:
    """The figures with those of each orchestrator over the hand-written one's, of the same run."""
    yardstick = by_orchestrator[YARDSTICK]
    for found in by_orchestrator.values():
        found["TTFT over hand-written"] = found["TTFT ms"] / yardstick["TTFT ms"]
        if "requests/s" in found:
            found["over hand-written"] = found["requests/s"] / yardstick["requests/s"]
    if (hidden := by_orchestrator.get(HIDDEN)) is not None:
        ours = by_orchestrator[OURS]
        ours["requests/s over proposals off"] = ours["requests/s"] / hidden["requests/s"]
        ours["CPU ms over proposals off"] = ours["CPU ms"] - hidden["CPU ms"]
    return by_orchestrator


Run = dict[int, dict[str, Figures]]
"""The figures of one run by load and orchestrator."""


def medians(runs: Sequence[Run]) -> Run:
    """The median of the runs, figure by figure. A process that a run has not is one of 0 in it."""
    found: Run = {}
    for load, by_name in runs[0].items():
        found[load] = {}
        for name in by_name:
            each = [run[load][name] for run in runs]
            keys = dict.fromkeys(key for figures in each for key in figures)
            found[load][name] = {key: median(f.get(key, 0.0) for f in each) for key in keys}
    return found


COLUMNS = {
    "idle ms": "idle ms",
    "idle p95 ms": "p95",
    "before ms": "before",
    "between ms": "between",
    "after ms": "after",
    "TTFT over ideal": "TTFT/ideal",
    "requests/s": "req/s",
    "over hand-written": "over h-w",
    "CPU ms": "CPU ms",
}
"""The figures of the table, and what they are called in its head."""


def rows(run: Run) -> list[dict[str, Any]]:
    """The table."""
    return [
        {"at once": load, "orchestrator": name}
        | {head: found.get(figure, "") for figure, head in COLUMNS.items()}
        for load, by_name in run.items()
        for name, found in by_name.items()
    ]


def details(runs: Sequence[Run]) -> list[str]:
    """A line for each figure: the median, and the value of each run."""
    lines = []
    for load, by_name in medians(runs).items():
        for name, found in by_name.items():
            lines.append(f"{name} at {load}:")
            for figure, value in found.items():
                each = ", ".join(f"{run[load][name].get(figure, 0.0):.4g}" for run in runs)
                lines.append(f"  {value:8.4g}  {figure} ({each})")
    return lines


def limits(run: Run) -> list[Limit]:
    """What ours may be. The ideal is of the simulated servers as they really were."""
    alone, loaded = run[1][OURS], run[32][OURS]
    throughput = loaded["over hand-written"]
    return [
        Limit("idle ms of a request at 1, p50", alone["idle ms"], IDLE_LIMIT_MS),
        Limit("TTFT over the ideal at 1, p50", alone["TTFT over ideal"], FIRST_ALONE_LIMIT),
        Limit("requests/s over hand-written at 32", throughput, THROUGHPUT_LIMIT, at_least=True),
        Limit("TTFT over the ideal at 32, p50", loaded["TTFT over ideal"], FIRST_LIMIT),
        Limit("CPU ms of a request at 32", loaded["CPU ms"], CPU_LIMIT_MS),
        Limit(
            "requests/s at 32, proposals shown over off",
            loaded["requests/s over proposals off"],
            THROUGHPUT_LIMIT,
            at_least=True,
        ),
    ]
