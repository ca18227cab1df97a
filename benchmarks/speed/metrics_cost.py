"""What `/metrics` costs: requests per second and CPU with and without it, and the time of one scrape.

    python -m benchmarks.speed.metrics_cost [--pairs 10] [--json FILE]

Two applications run on one Ray over the same simulated servers (backends.py). They differ in
`access.metrics` alone: `keys` counts, `off` does not. The same 32 clients ask both, block by block in
turns, so that other programs of the machine slow both; the first block of a pair is that of each
application in turns. Every block of the application that counts is scraped once, as Prometheus would do
every few seconds. CPU is that of the ingress alone, in which requests are counted.

A scrape of a server with 10 models and 20 keys is timed in this process.
"""

import asyncio
import gzip
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx
import psutil
import typer

from benchmarks.shared.harness import HOST, Limit, free_port, report, run
from benchmarks.shared.open_loop import client_process
from benchmarks.shared.others import others_cpu_s
from benchmarks.shared.processes import server
from benchmarks.speed.backends import recipe
from benchmarks.speed.closed_loop import Block, Load, offer
from cluster import ray_runtime
from configs.schema import Recipe

APPS = {"with": "keys", "without": "off"}
"""The applications, and what their recipe says of metrics."""
CONCURRENCY = 32
LIMIT = 0.98
MODELS, KEYS, SCRAPES = 10, 20, 20


@dataclass(frozen=True, slots=True)
class Measured:
    """One block of one application."""

    per_s: float
    """Requests per second."""
    cpu_ms: float
    """CPU of the ingress per request, in milliseconds."""


@contextmanager
def served(servers_url: str) -> Iterator[dict[str, str]]:
    """The URL of each application."""
    ray_runtime.connect(None, verbose=False)
    try:
        from serve_app.app import BuildArgs, build

        urls = {}
        for name, metrics in APPS.items():
            data = recipe(servers_url).model_dump(mode="json", exclude_unset=True)
            made = Recipe.model_validate(data | {"access": {"metrics": metrics}})
            port = free_port()
            arguments = BuildArgs(recipe=made, app=name, follow_nodes=False, host=HOST, port=port)
            ray_runtime.deploy(build(arguments), name)
            urls[name] = f"http://{HOST}:{port}"
        yield urls
    finally:
        ray_runtime.disconnect("with", local=True)


def ingress_of(name: str) -> psutil.Process:
    """The process of an application's ingress."""
    title = f"ServeReplica:{name}:ingress"
    found = [p for p in psutil.process_iter() if any(title in part for part in p.cmdline())]
    (process,) = found
    return process


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def scrape_seconds() -> dict[str, float]:
    """The time, lines and bytes of one scrape of a server with many models and keys, in this process:
    without the way over the network, and without the answers of replicas and keepers."""
    from actors.replica import ReplicaStats
    from serve_app.http.metrics import written
    from serve_app.metrics.server_metrics import ServerMetrics
    from serve_app.observe import Asked, Ended

    model = {"engine": "scripted", "context_tokens": 32768}
    names = [f"model-{number}" for number in range(MODELS)]
    many = Recipe.model_validate(
        {
            "name": "mix",
            "models": dict.fromkeys(names, model),
            "layers": [{"proposers": [{"model": name} for name in names[1:]]}],
            "aggregator": {"model": names[0]},
        }
    )

    async def stats(_model: str) -> list[ReplicaStats | None]:
        return [ReplicaStats(0, 0, 0, 0, 0, 0, 0)]

    metrics = ServerMetrics(many, ask_stats=stats)
    for number in range(KEYS):
        asked = Asked("r", f"key-{number}", "mix", is_mixture=True, is_stream=True, traceparent=None)
        metrics.observer.begin(asked).end(Ended(1.0))
    times, body = [], b""
    for _ in range(SCRAPES):
        began = time.perf_counter()
        families = asyncio.run(metrics.collect())
        body, _kind = written(families, "", is_zipped=True)
        times.append(time.perf_counter() - began)
    lines = gzip.decompress(body).count(b"\n")
    return {"seconds": median(times), "lines": lines, "zipped bytes": len(body)}


def main(
    *,
    pairs: Annotated[int, typer.Option(min=1, help="Blocks of each application.")] = 10,
    per_client: Annotated[int, typer.Option(min=1, help="Requests of each client in a block.")] = 4,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """What `/metrics` costs; takes 3 minutes."""
    scrape = scrape_seconds()
    others_s, began = others_cpu_s(), time.monotonic()
    found: dict[str, list[Measured]] = {name: [] for name in APPS}
    with ExitStack() as stack:
        pool = stack.enter_context(client_process())
        servers_url, _ = stack.enter_context(server("benchmarks.speed.backends"))
        urls = stack.enter_context(served(servers_url))
        ingresses = {name: ingress_of(name) for name in APPS}

        def block(name: str, label: str, requests: int) -> Measured:
            before = cpu_s(ingresses[name])
            measured: Block = offer(pool, Load(urls[name], label, CONCURRENCY, requests))
            if APPS[name] == "keys":
                httpx.get(f"{urls[name]}/metrics").raise_for_status()
            cpu_ms = (cpu_s(ingresses[name]) - before) * 1000 / len(measured.requests)
            return Measured(measured.per_s, cpu_ms)

        for name in APPS:
            block(name, f"warm{name}", 2)
        for number in range(pairs):
            for name in sorted(APPS, reverse=number % 2 == 1):
                found[name].append(block(name, f"{name}{number}", per_client))
    others = (others_cpu_s() - others_s) / (time.monotonic() - began)
    ratios = [a.per_s / b.per_s for a, b in zip(found["with"], found["without"], strict=True)]
    cpu = [a.cpu_ms / b.cpu_ms for a, b in zip(found["with"], found["without"], strict=True)]
    rows: list[dict[str, Any]] = [
        {
            "metrics": name,
            "requests/s": median(each.per_s for each in blocks),
            "ingress CPU ms": median(each.cpu_ms for each in blocks),
        }
        for name, blocks in found.items()
    ]
    print("requests/s, with over without:", " ".join(f"{ratio:.3f}" for ratio in sorted(ratios)))
    print("CPU of the ingress, with over without:", " ".join(f"{ratio:.3f}" for ratio in sorted(cpu)))
    print(f"median of the CPU ratios: {median(cpu):.3f}")
    print(f"one scrape with {MODELS} models and {KEYS} keys: {scrape}")
    print(f"other programs meanwhile: {others:.2f} cores")
    limit = Limit("requests/s with over without, median", median(ratios), LIMIT, at_least=True)
    title = f"The cost of /metrics at {CONCURRENCY} requests at a time, {pairs} pairs of blocks"
    report(title, rows, [limit], json, ratios=ratios, cpu=cpu, scrape=scrape, others=others)


if __name__ == "__main__":
    run(main)
