"""How long engines work on for clients that leave, while others stay.

    python -m benchmarks.speed.leaving [--leavings 200] [--json FILE]

Sixteen clients ask at a time, half of them streamed answers in one part of the run and answers in one
piece in the other. Eight of them close their socket in a phase and ask again at once; the others stay,
and their answers must be whole. The phases are moments after the request: while proposers read, while
they write, while the aggregator reads, while it writes, and any moment. The simulated servers note when
a connection is lost and which tokens they had written by then, so nothing is polled. All clocks are the
machine's monotonic one.

Stopped: the time from the client's leaving until the last of its calls is over. Wasted: the tokens
that all calls of the request have written in that time. Started: calls that reached a server after the
client had left. At any moment a call can be under way to the server, so that row has no limit on calls
started.
"""

import asyncio
import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from benchmarks.shared.harness import Limit, percentile, report, run, serving
from benchmarks.shared.open_loop import client_process
from benchmarks.shared.others import others_cpu_s
from benchmarks.shared.processes import server
from benchmarks.shared.raw_client import Connection, read
from benchmarks.speed.backends import AGGREGATOR, IDEAL_WHOLE_S, MODELS, Call, calls_of, recipe
from benchmarks.speed.closed_loop import question

AT_ONCE = 16
STOPPED_LIMIT_MS, WASTED_LIMIT = 50, 5
ANY = "any moment"
PHASES = {
    "proposers read": 0.2,
    "proposers write": 0.45,
    "aggregator reads": 0.73,
    "aggregator writes": 1.1,
    ANY: None,
}
"""Seconds from the request to the leaving; None: drawn from the time of an ideal answer."""
SETTLE_S = IDEAL_WHOLE_S + 1
"""A call that nobody has stopped is over after so long."""


@dataclass(frozen=True, slots=True)
class Part:
    """The questions of one phase. The simulated servers record them under the name `block`."""

    url: str
    block: str
    streamed: bool
    phase: str
    leavings: int


@dataclass(slots=True)
class Seen:
    """What clients saw: moments of leaving by request, and how many stayed and had whole answers."""

    left: dict[int, float] = field(default_factory=dict)
    early: int = 0
    """Requests that were over before the client's time to leave."""
    stayed: int = 0
    broken: list[str] = field(default_factory=list)
    """Why answers of clients that stayed were not whole."""


def clients(part: Part) -> Seen:
    """All clients of a part, in this process."""
    return uvloop.run(_clients(part))


async def _clients(part: Part) -> Seen:
    seen, draw, numbers = Seen(), random.Random(part.block), iter(range(1_000_000))

    def body(number: int) -> dict[str, Any]:
        return {**question(part.block, number), "stream": part.streamed}

    async def leaver() -> None:
        connection = Connection(part.url)
        while len(seen.left) < part.leavings:
            number, after_s = next(numbers), PHASES[part.phase]
            _, whole = await connection.begin(body(number))
            after_s = draw.uniform(0.01, IDEAL_WHOLE_S) if after_s is None else after_s
            await asyncio.wait([whole], timeout=after_s)
            if whole.done():
                seen.early += 1
            else:
                seen.left[number] = connection.leave()
                await whole

    async def stayer() -> None:
        connection = Connection(part.url)
        while not is_over:
            reply = read(await connection.ask(body(next(numbers))))
            if reply.problem or len(reply.text.split()) != MODELS[AGGREGATOR].tokens:
                seen.broken.append(reply.problem or reply.text)
            elif reply.moa.get("degraded"):
                seen.broken.append("degraded")
            seen.stayed += 1
        connection.close()

    is_over = False
    staying = [asyncio.create_task(stayer()) for _ in range(AT_ONCE // 2)]
    await asyncio.gather(*(leaver() for _ in range(AT_ONCE - AT_ONCE // 2)))
    is_over = True
    await asyncio.gather(*staying)
    return seen


@dataclass(frozen=True, slots=True)
class Leaving:
    """What one client that left has cost."""

    stopped_s: float
    """From its leaving until the last of its calls was over; 0 if all were over before."""
    wasted: int
    started: int


def leaving(left: float, calls: Collection[Call]) -> Leaving:
    """What became of a request's calls after its client had left."""
    stopped_s = max((call.stopped - left for call in calls), default=0.0)
    wasted = sum(at > left for call in calls for at in call.wrote)
    return Leaving(max(0.0, stopped_s), wasted, sum(call.began > left for call in calls))


def row(part: Part, seen: Seen, calls: Mapping[int, Sequence[Call]]) -> dict[str, Any]:
    """The figures of a part."""
    found = [leaving(at, calls.get(number, ())) for number, at in seen.left.items()]
    stopped_ms = [each.stopped_s * 1000 for each in found]
    wasted = [each.wasted for each in found]
    return {
        "clients left while": part.phase,
        "answer": "streamed" if part.streamed else "one piece",
        "left": len(found),
        "stopped p50 ms": percentile(stopped_ms, 0.5),
        "p99 ms": percentile(stopped_ms, 0.99),
        "max ms": max(stopped_ms),
        "wasted p50": percentile(wasted, 0.5),
        "p99": percentile(wasted, 0.99),
        "max": max(wasted),
        "started": sum(each.started for each in found),
        "stayed": seen.stayed,
        "broken": len(seen.broken),
    }


def limits(rows: Sequence[dict[str, Any]]) -> list[Limit]:
    """What the rows may show: the worst of them counts."""
    started = sum(row["started"] for row in rows if row["clients left while"] != ANY)
    return [
        Limit("ms until engines stop, p99", max(row["p99 ms"] for row in rows), STOPPED_LIMIT_MS),
        Limit("tokens wasted per client that left, p99", max(r["p99"] for r in rows), WASTED_LIMIT),
        Limit("calls started after the client had left, in the set phases", started, 0),
        Limit("answers of those who stayed that are not whole", sum(r["broken"] for r in rows), 0),
    ]


def measure(url: str, servers: str, leavings: int) -> list[dict[str, Any]]:
    """Every phase, streamed and in one piece."""
    rows = []
    with client_process() as pool:
        pool.submit(clients, Part(url, "warm", True, "aggregator writes", 16)).result()
        for streamed in (True, False):
            for phase in PHASES:
                part = Part(url, f"leaving{time.monotonic_ns()}", streamed, phase, leavings)
                seen = pool.submit(clients, part).result()
                time.sleep(SETTLE_S)
                rows.append(row(part, seen, asyncio.run(calls_of(servers, part.block))))
                if seen.broken:
                    print(f"{phase}: {seen.broken[0]}")
    return rows


def main(
    *,
    leavings: Annotated[int, typer.Option(min=1, help="Clients that leave, per phase.")] = 200,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """How long engines work on for clients that leave; takes 4 minutes."""
    others_s, began = others_cpu_s(), time.monotonic()
    with server("benchmarks.speed.backends") as (servers, _), serving(recipe(servers)) as url:
        rows = measure(url, servers, leavings)
    others = (others_cpu_s() - others_s) / (time.monotonic() - began)
    print(f"other programs meanwhile: {others:.2f} cores")
    title = f"Half of {AT_ONCE} clients leave"
    report(title, rows, limits(rows), json, **{"other programs, cores": others})


if __name__ == "__main__":
    run(main)
