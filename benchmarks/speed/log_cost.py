"""What the log's lines and the memory of recent requests cost: throughput with them and without.

    python -m benchmarks.speed.log_cost [--pairs 7] [--at-once] [--quick] [--json FILE]

One process serves the same mixture at two ports, over scripted engines in the process. At one port it
writes a line for each answer into a file, and remembers recent requests for `/v1/state`, as
`slimmoa serve` does. At the other port it does neither. `/metrics` is off at both ports, because
`metrics_cost` measures its cost. Clients in a process of their own ask for streamed answers, 32 at a
time, in pairs of blocks: one block at each port. Every second pair begins with the other port.

The engines have the latencies of `backends.py`, as in `metrics_cost` and `traces`. With `--at-once`
they take no time. Then the serving process is never idle, and its CPU ratio is that of its work without
engines, connections to replicas and waits. So a real server loses a smaller share.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import typer
from fastapi import FastAPI

from actors.engine import NONE, Delta, Message, collect_answer
from actors.replica import Replica, ReplicaStats
from benchmarks.shared.harness import Limit, report, run
from benchmarks.shared.open_loop import client_process
from benchmarks.speed.backends import AGGREGATOR, MODELS, SERVED_NAME
from benchmarks.speed.closed_loop import Load, offer
from cluster.logs.setup import NOT_SHOWN, log_to
from configs.schema import Recipe, Sampling
from serve_app.http.api import create_api
from serve_app.http.listener import Listener
from serve_app.log_lines import LogLines
from serve_app.observe import Observers

CONCURRENCY = 32
LEAST = 0.98
"""Least throughput with the observers, as a share of that without."""


def recipe(at_once: bool) -> Recipe:
    """The mixture of `overhead`, over scripted engines.

    Args:
        at_once: whether the engines take no time.
    """
    models = {
        name: {
            "engine": "scripted",
            "first_token_s": 0 if at_once else model.first_token_s,
            "token_s": 0 if at_once else model.token_s,
            "tokens": model.tokens,
            "context_tokens": 100_000,
            "concurrency": 64,
        }
        for name, model in MODELS.items()
    }
    return Recipe.model_validate(
        {
            "name": SERVED_NAME,
            "models": models,
            "layers": [{"proposers": [{"model": name} for name in MODELS if name != AGGREGATOR]}],
            "aggregator": {"model": AGGREGATOR},
            "limits": {"queue": 1000},
            "access": {"metrics": "off"},
        }
    )


class Engines:
    """The recipe's models as replicas in this process."""

    def __init__(self, mixture: Recipe) -> None:
        self._replicas = {name: Replica(name, model, 1000) for name, model in mixture.models.items()}

    async def start(self) -> None:
        await asyncio.gather(*(replica.start() for replica in self._replicas.values()))

    def stream(self, model: str, messages: Any, sampling: Sampling, streamed: bool = True) -> Any:
        return self._replicas[model].stream(messages, sampling, streamed)

    async def complete(self, model: str, messages: Any, sampling: Sampling) -> Delta:
        return await collect_answer(self.stream(model, messages, sampling, streamed=False))

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return await self._replicas[model].count_tokens(messages, template)

    async def token_ends(self, model: str, texts: Any) -> list[list[int]]:
        return await self._replicas[model].token_ends(texts)

    async def is_alive(self, _model: str) -> bool:
        return True

    async def stats(self, model: str) -> ReplicaStats:
        return await self._replicas[model].stats()


@dataclass(frozen=True, slots=True)
class Speed:
    """What came of a block: answers per second, and CPU milliseconds for each answer."""

    per_s: float
    cpu_ms: float


async def _measure(
    pool: ProcessPoolExecutor, mixture: Recipe, pairs: int, requests: int
) -> list[tuple[Speed, Speed]]:
    """The speeds without and with the observers, for each pair of blocks."""
    engines = Engines(mixture)
    await engines.start()
    observed = Listener(create_api(mixture, engines, observers=[LogLines(mixture)]), "127.0.0.1", 0)
    bare = Listener(_bare_api(mixture, engines), "127.0.0.1", 0)
    for listener in (observed, bare):
        await listener.start()
    loop = asyncio.get_running_loop()

    async def speed(listener: Listener, block: str, count: int) -> Speed:
        load = Load(f"http://127.0.0.1:{listener.port}", block, CONCURRENCY, count)
        cpu_s = time.process_time()
        found = await loop.run_in_executor(None, offer, pool, load)
        cpu_s = time.process_time() - cpu_s
        return Speed(found.per_s, 1000 * cpu_s / len(found.requests))

    found = []
    for listener in (bare, observed):
        await speed(listener, "warm", 2)
    for number in range(pairs):
        order = [bare, observed] if number % 2 == 0 else [observed, bare]
        speeds = {each: await speed(each, f"block{number}", requests) for each in order}
        found.append((speeds[bare], speeds[observed]))
    for listener in (observed, bare):
        await listener.stop(0)
    return found


def _bare_api(mixture: Recipe, engines: Engines) -> FastAPI:
    """The API without any observer: `create_api` always has one of its own."""
    with patch("serve_app.http.api.Observers", lambda _: Observers(())):
        return create_api(mixture, engines)


def main(
    *,
    quick: Annotated[bool, typer.Option(help="Few requests: that it runs, not how fast.")] = False,
    at_once: Annotated[bool, typer.Option(help="Engines take no time.")] = False,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of blocks.")] = 7,
    requests: Annotated[int, typer.Option(min=1, help="Of each client in a block.")] = 5,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """What a line for each answer costs; takes two minutes, and half a minute with `--at-once`."""
    if quick:
        pairs, requests = 1, 2
    os.environ.setdefault(*NOT_SHOWN)
    with tempfile.TemporaryDirectory() as folder, client_process() as pool:
        log_to(Path(folder, "slimmoa.log"), "ingress", "text")
        found = asyncio.run(_measure(pool, recipe(at_once), pairs, requests))
        lines = Path(folder, "slimmoa.log").read_text("utf-8").count(" answer ")
    assert lines == CONCURRENCY * (pairs * requests + 2), lines
    rows = [
        {
            "pair": number,
            "without, answers/s": bare.per_s,
            "with, answers/s": observed.per_s,
            "ratio": observed.per_s / bare.per_s,
            "without, CPU ms": bare.cpu_ms,
            "with, CPU ms": observed.cpu_ms,
            "CPU ratio": observed.cpu_ms / bare.cpu_ms,
        }
        for number, (bare, observed) in enumerate(found, 1)
    ]
    speed, cpu = (
        statistics.median(float(row[name]) for row in rows) for name in ("ratio", "CPU ratio")
    )
    print(f"CPU with / without, median of pairs: {cpu:.3f}")
    limits = [Limit("throughput with / without, median of pairs", speed, LEAST, at_least=True)]
    report(f"A line for each answer, {CONCURRENCY} at a time", rows, limits, json)


if __name__ == "__main__":
    run(main)
