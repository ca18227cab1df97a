"""What traces cost: a recipe that sends none beside the same recipe that sends a trace of every answer.

    python -m benchmarks.speed.traces [--pairs 4] [--per-client 8] [--concurrency 32] [--json FILE]

Both are applications of one Ray, over the simulated servers of backends.py, and the same clients ask
them in turns, a block each; every second pair begins with the other one. A collector in a process of
its own takes the traces and throws them away. CPU is of all processes but the clients, the simulated
servers and the collector.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Annotated, Any

import typer

from benchmarks.shared.harness import HOST, Limit, free_port, percentile, report, run
from benchmarks.shared.open_loop import client_process
from benchmarks.shared.others import others_cpu_s
from benchmarks.shared.processes import family, server, snapshot, taken
from benchmarks.speed.backends import calls_of, recipe
from benchmarks.speed.closed_loop import Load, offer, process_of
from benchmarks.speed.overhead_figures import THROUGHPUT_LIMIT
from cluster import ray_runtime
from configs.schema import Recipe
from serve_app.tracing.settings import PREFIX

OFF, ON = "off", "on"


def main(
    *,
    pairs: Annotated[int, typer.Option(min=1, help="Blocks of each.")] = 4,
    per_client: Annotated[int, typer.Option(min=1, help="Requests of each client in a block.")] = 8,
    concurrency: Annotated[int, typer.Option(min=1, help="Clients.")] = 32,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Throughput and CPU with traces and without; takes 3 minutes."""
    with ExitStack() as stack:
        pool = stack.enter_context(client_process())
        servers_url, servers_pid = stack.enter_context(server("benchmarks.speed.backends"))
        sink = stack.enter_context(_sink())
        urls = stack.enter_context(_serving(recipe(servers_url), sink.url))
        not_ours = (servers_pid, process_of(pool), sink.pid)
        found: dict[str, list[dict[str, float]]] = {OFF: [], ON: []}

        def block(name: str, number: int, requests: int) -> dict[str, float]:
            root, label = os.getpid(), f"{name}{number}x"
            before, others_s = family(snapshot(), root, not_ours), others_cpu_s()
            done = offer(pool, Load(urls[name], label, concurrency, requests))
            cpu = taken(before, family(snapshot(), root, not_ours), root)
            asyncio.run(calls_of(servers_url, label))  # or they would gather
            count = len(done.requests)
            first_s = [request.first - request.began for request in done.requests]
            return {
                "requests/s": done.per_s,
                "CPU ms per request": sum(cpu.values()) / count * 1000,
                "of the ingress": cpu["ingress"] / count * 1000,
                "first token ms": percentile(first_s, 0.5) * 1000,
                "other programs, cores": (others_cpu_s() - others_s) / done.wall_s,
            }

        for name in (OFF, ON):  # connections and code paths are warm
            block(name, 0, 2)
        sent = sink.bytes()
        for number in range(1, pairs + 1):
            for name in (OFF, ON) if number % 2 else (ON, OFF):
                found[name].append(block(name, number, per_client))
                print(name, {n: round(figure, 2) for n, figure in found[name][-1].items()}, flush=True)
        sent = sink.bytes() - sent
    _report(found, sent, pairs * per_client * concurrency, json)


def _report(
    found: dict[str, list[dict[str, float]]], sent: int, requests: int, path: Path | None
) -> None:
    medians = {
        name: {figure: median(block[figure] for block in blocks) for figure in blocks[0]}
        for name, blocks in found.items()
    }
    ratios = [
        on["requests/s"] / off["requests/s"] for off, on in zip(found[OFF], found[ON], strict=True)
    ]
    rows = [{"traces": name} | figures for name, figures in medians.items()]
    rows.append({"traces": "on over off"} | {f: medians[ON][f] / medians[OFF][f] for f in medians[ON]})
    print("requests/s, on over off, by pair:", *(f"{ratio:.3f}" for ratio in ratios))
    print(f"bytes of traces per answer: {sent / requests:.0f}")
    limits = [Limit("requests/s with traces over without", median(ratios), THROUGHPUT_LIMIT, True)]
    report(
        f"Traces of every answer, medians of blocks: {len(ratios)}", rows, limits, path, blocks=found
    )


@contextmanager
def _serving(served: Recipe, traces_url: str) -> Iterator[dict[str, str]]:
    """Serve a recipe twice on one Ray, without and with traces; yields the URLs."""
    ports = {OFF: free_port(), ON: free_port()}
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    ray_runtime.connect(None, verbose=False)
    try:
        from serve_app.app import BuildArgs, build

        for name, port in ports.items():
            args = BuildArgs(
                recipe=served,
                app=name,
                follow_nodes=False,
                host=HOST,
                port=port,
                otlp_traces_endpoint=traces_url if name == ON else None,
            )
            ray_runtime.deploy(build(args), name)
        yield {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    finally:
        ray_runtime.disconnect(ON, local=True)


class _Sink:
    """A collector that counts bytes, in a process of its own."""

    def __init__(self, url: str, pid: int, line: "Connection[Any, Any]") -> None:
        self.url = url
        self.pid = pid
        self._line = line

    def bytes(self) -> int:
        """How many bytes of traces have come."""
        self._line.send(None)
        count: int = self._line.recv()
        return count


@contextmanager
def _sink() -> Iterator[_Sink]:
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_collect, args=[there], daemon=True)
    process.start()
    port = here.recv()
    yield _Sink(f"http://{HOST}:{port}/v1/traces", process.pid or 0, here)
    process.terminate()
    process.join()


def _collect(line: "Connection[Any, Any]") -> None:
    counts: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            counts.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    listening = ThreadingHTTPServer((HOST, 0), Handler)
    Thread(target=listening.serve_forever, daemon=True).start()
    line.send(listening.server_port)
    while True:
        line.recv()
        line.send(sum(counts))


if __name__ == "__main__":
    run(main)
