"""What the orchestration costs, beside a hand-written asyncio server in the same run.

    python -m benchmarks.speed.overhead [--runs 3] [--quick] [--profile FILE] [--json FILE]

Both are HTTP servers over the same simulated OpenAI-compatible servers (backends.py): ours through Ray
Serve and the `openai_http` engine, the other (handwritten.py) an aiohttp server that one process runs.
The same client in a process of its own asks both for streamed answers.

At concurrency 1 they take turns request by request, at 32 and 128 block by block. Idle is the time of
a request during which no simulated server works on it: before the first, between proposers and
aggregator, and after the last. The ideal time to the first token (TTFT) is that of the slowest
proposer, and of the aggregator to its first token; the simulated servers note what both really were.
The set pace is what they should have been. CPU is of all processes of an orchestrator: for ours those
of Ray's session and the driver, which this process is. It leaves out the clients and the simulated
servers.

At 32, ours also answers a block whose streams have no proposals (`moa.proposals: false`), to tell what
it costs to show them as reasoning.

All clients of a block begin at once, which is hard on a server; with `--spread` they begin one after
the other over the time of an answer. Each run starts the application anew.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.shared.harness import report, run, serving
from benchmarks.shared.open_loop import client_process
from benchmarks.shared.others import others_cpu_s
from benchmarks.shared.processes import Process, family, server, snapshot, taken
from benchmarks.shared.stacks import sampled
from benchmarks.speed import overhead_figures as figures
from benchmarks.speed.backends import calls_of, recipe
from benchmarks.speed.closed_loop import Load, in_turns, offer, process_of
from benchmarks.speed.overhead_figures import HIDDEN, LOADS, OURS, YARDSTICK, Measured, Run

PROPOSALS_OFF = {"moa": {"proposals": False}}
"""The fields of a request that has no proposals in its stream."""


@dataclass(frozen=True)
class Setup:
    """What runs: URLs of the orchestrators and the simulated servers, the clients, process IDs."""

    pool: ProcessPoolExecutor
    urls: dict[str, str]
    servers_url: str
    servers_pid: int
    yardstick_pid: int

    def processes(self, name: str) -> list[Process]:
        """All of an orchestrator now."""
        if name == YARDSTICK:
            return family(snapshot(), self.yardstick_pid)
        not_ours = (self.servers_pid, self.yardstick_pid, process_of(self.pool))
        return family(snapshot(), os.getpid(), without=not_ours)

    def cpu_s(self, name: str) -> Callable[[], Counter[str]]:
        """Begins to count an orchestrator's CPU seconds; the function that it returns tells them."""
        before = self.processes(name)
        root = os.getpid() if name == OURS else -1
        return lambda: taken(before, self.processes(name), root)

    def servers_s(self) -> float:
        """CPU seconds of the simulated servers so far."""
        return snapshot([self.servers_pid])[self.servers_pid].seconds


def alone(setup: Setup, requests: int, label: str) -> dict[str, Measured]:
    """Both orchestrators at concurrency 1, in turns."""
    names = list(setup.urls)
    loads = tuple(
        Load(url, f"{label}{place}", 1, requests) for place, url in enumerate(setup.urls.values())
    )
    blocks = in_turns(setup.pool, loads)
    return {
        name: Measured(block, asyncio.run(calls_of(setup.servers_url, load.block)))
        for name, load, block in zip(names, loads, blocks, strict=True)
    }


def loaded(setup: Setup, name: str, concurrency: int, requests: int, spread: bool) -> Measured:
    """One block of one orchestrator."""
    label = f"block{time.monotonic_ns()}"
    orchestrator, fields = (OURS, PROPOSALS_OFF) if name == HIDDEN else (name, {})
    load = Load(setup.urls[orchestrator], label, concurrency, requests, spread, fields)
    cpu_s, servers_s, others_s = setup.cpu_s(orchestrator), setup.servers_s(), others_cpu_s()
    block = offer(setup.pool, load)
    cpu, servers_s, others_s = cpu_s(), setup.servers_s() - servers_s, others_cpu_s() - others_s
    return Measured(block, asyncio.run(calls_of(setup.servers_url, label)), cpu, servers_s, others_s)


def measure(setup: Setup, number: int, requests: int, per_client: int, spread: bool) -> Run:
    """One run: both orchestrators under each load, in turns; every second run begins with the other."""
    names = [OURS, YARDSTICK] if number % 2 == 0 else [YARDSTICK, OURS]
    for name in names:
        loaded(setup, name, 32, 2, spread)  # connections and code paths are warm
    by_load = {1: alone(setup, requests, f"alone{number}x")}
    for concurrency in LOADS[1:]:
        by_load[concurrency] = {
            name: loaded(setup, name, concurrency, per_client, spread)
            for name in (*names, *([HIDDEN] if concurrency == figures.SHOWN_AT else []))
        }
    return {
        load: figures.beside({name: figures.figures(by_name[name]) for name in by_name})
        for load, by_name in by_load.items()
    }


def started(stack: ExitStack) -> Setup:
    """Start everything; it ends with the stack."""
    pool = stack.enter_context(client_process())
    servers_url, servers_pid = stack.enter_context(server("benchmarks.speed.backends"))
    by_hand = server("benchmarks.speed.handwritten", servers_url)
    yardstick_url, yardstick_pid = stack.enter_context(by_hand)
    served = stack.enter_context(serving(recipe(servers_url)))
    urls = {OURS: served, YARDSTICK: yardstick_url}
    return Setup(pool, urls, servers_url, servers_pid, yardstick_pid)


def profiled(deployment: str, concurrency: int, path: Path) -> None:
    """A profile of a deployment under load, and the CPU of a request by process."""
    with ExitStack() as stack:
        setup = started(stack)
        loaded(setup, OURS, 32, 2, spread=False)
        with sampled(deployment, path):
            measured = loaded(setup, OURS, concurrency, 8, spread=False)
    print("CPU ms per request, with the profiler's slowing:")
    for name, seconds in measured.cpu_s.most_common():
        print(f"{seconds / len(measured.block.requests) * 1000:6.1f}  {name}")


def main(
    *,
    quick: Annotated[bool, typer.Option(help="Few requests: that it runs, not how fast.")] = False,
    runs: Annotated[int, typer.Option(min=1, help="The figures are medians of so many.")] = 1,
    requests: Annotated[int, typer.Option(min=1, help="At concurrency 1.")] = 30,
    per_client: Annotated[int, typer.Option(min=1, help="Of each client at 32 and 128.")] = 8,
    spread: Annotated[bool, typer.Option(help="Clients begin one after the other.")] = False,
    profile: Annotated[
        Path | None, typer.Option(help="Only write a profile under load here (py-spy, raw).")
    ] = None,
    profile_of: Annotated[str, typer.Option(help="The deployment, as model-aggregator.")] = "ingress",
    profile_concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 32,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Orchestration overhead beside a hand-written asyncio server; takes 3 minutes per run."""
    if profile is not None:
        profiled(profile_of, profile_concurrency, profile)
        return
    if quick:
        runs, requests, per_client = 1, 4, 2
    others_s, began = others_cpu_s(), time.monotonic()
    found: list[Run] = []
    for number in range(runs):
        with ExitStack() as stack:
            found.append(measure(started(stack), number, requests, per_client, spread))
    others = (others_cpu_s() - others_s) / (time.monotonic() - began)
    typical = figures.medians(found)
    print("\n".join(figures.details(found)))
    print(f"other programs meanwhile: {others:.2f} of {os.cpu_count()} cores")
    title = f"Idle time, time to the first token, throughput and CPU; median of runs: {runs}"
    more = {"runs": found, "medians": typical, "other programs, cores": others, "spread": spread}
    report(title, figures.rows(typical), figures.limits(typical), json, **more)


if __name__ == "__main__":
    run(main)
