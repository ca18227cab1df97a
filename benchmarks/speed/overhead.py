"""What the orchestration costs, beside a hand-written asyncio orchestrator in the same run.

    python -m benchmarks.speed.overhead [--quick] [--profile FILE] [--json FILE]

Both call the same simulated OpenAI-compatible servers (backends.py), ours through Ray Serve
and the `openai_http` engine over its HTTP API, the other from this process without a server of its own.
At concurrency 1, request by request in turns: the time of a request during which no backend works,
split into before the first backend, between proposers and aggregator, and after the last. At
concurrency 32, block by block in turns: requests per second.
"""

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import aiohttp
import typer

from benchmarks.shared.harness import QUESTIONS, Limit, ask, free_port, percentile, report, run, serving
from benchmarks.shared.stacks import cpu_counted, sampled
from benchmarks.speed.backends import MODELS
from benchmarks.speed.handwritten import Handwritten
from configs.schema import Recipe

IDLE_LIMIT_MS = 20
THROUGHPUT_LIMIT = 0.85
SERVED_NAME = "mixture"

Answerer = Callable[[str], Awaitable[None]]
Idle = dict[str, float]


def recipe(url: str) -> Recipe:
    """Two proposers and an aggregator on the simulated servers."""
    models = {
        name: {"engine": "openai_http", "base_url": f"{url}/{name}/v1", "model": name}
        | {"context_tokens": 32768, "concurrency": 64}
        for name in MODELS
    }
    proposers = [
        {"model": name, "sampling": {"max_tokens": MODELS[name].tokens}}
        for name in ("proposer-a", "proposer-b")
    ]
    aggregator = {"model": "aggregator", "sampling": {"max_tokens": MODELS["aggregator"].tokens}}
    return Recipe.model_validate(
        {"name": SERVED_NAME, "models": models, "aggregator": aggregator}
        | {"layers": [{"proposers": proposers}]}
    )


async def idle(answerer: Answerer, session: aiohttp.ClientSession, url: str, number: int) -> Idle:
    """Seconds of one request during which no backend worked on it, by where they fell."""
    mark = uuid.uuid4().hex
    began = time.monotonic()
    await answerer(f"{QUESTIONS[number % len(QUESTIONS)]} [request {mark}]")
    ended = time.monotonic()
    async with session.get(f"{url}/busy/{mark}") as response:
        intervals = sorted(await response.json())
    if len(intervals) != len(MODELS):
        raise RuntimeError(f"{len(intervals)} backend calls for one request")
    between, last = 0.0, intervals[0][1]
    for start, end in intervals[1:]:
        between += max(0.0, start - last)
        last = max(last, end)
    parts = {"before": intervals[0][0] - began, "between": between, "after": ended - last}
    return {"total": sum(parts.values()), **parts}


async def throughput(answerer: Answerer, requests: int, concurrency: int) -> float:
    """Requests per second with so many at a time, always."""
    numbers = iter(range(requests))

    async def client() -> None:
        for number in numbers:
            await answerer(QUESTIONS[number % len(QUESTIONS)])

    began = time.monotonic()
    async with asyncio.TaskGroup() as clients:
        for _ in range(concurrency):
            clients.create_task(client())
    return requests / (time.monotonic() - began)


@dataclass
class Figures:
    """Of each orchestrator: the idle times of its requests, and its requests per second by block."""

    idles: dict[str, list[Idle]]
    rates: dict[str, list[float]]


async def measure(served: str, url: str, requests: int, blocks: int, profile: Path | None) -> Figures:
    """Both orchestrators in turns."""
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        answerers = {"slimmoa": ours(session, served), "hand-written": theirs(session, url)}
        for answerer in answerers.values():
            await throughput(answerer, 64, 32)  # connections and code paths are warm
        idles: dict[str, list[Idle]] = {name: [] for name in answerers}
        for number in range(requests):
            for name, answerer in answerers.items():
                idles[name].append(await idle(answerer, session, url, number))
        rates: dict[str, list[float]] = {name: [] for name in answerers}
        for _ in range(blocks):
            for name, answerer in answerers.items():
                rates[name].append(await throughput(answerer, requests * 8, 32))
        if profile is not None:
            with cpu_counted(requests * 8), sampled("ingress", profile):
                await throughput(answerers["slimmoa"], requests * 8, 32)
    return Figures(idles, rates)


def ours(session: aiohttp.ClientSession, served: str) -> Answerer:
    """Asks SlimMoA; raises if the answer is not whole."""

    async def answerer(question: str) -> None:
        answer = await ask(session, served, SERVED_NAME, question)
        words = len(answer.text.split())
        if words != MODELS["aggregator"].tokens or answer.moa["degraded"]:
            raise RuntimeError(f"status {answer.status}, {words} words: {answer.error}")

    return answerer


def theirs(session: aiohttp.ClientSession, url: str) -> Answerer:
    """Asks the hand-written orchestrator; raises if the answer is not whole."""
    handwritten = Handwritten(session, url)

    async def answerer(question: str) -> None:
        words = [word async for word in handwritten.answer(question)]
        if len(words) != MODELS["aggregator"].tokens:
            raise RuntimeError(f"{len(words)} words")

    return answerer


def main(
    *,
    quick: Annotated[bool, typer.Option(help="Few requests: that it runs, not how fast.")] = False,
    requests: Annotated[int, typer.Option(help="At concurrency 1; 8 times as many per block.")] = 30,
    blocks: Annotated[int, typer.Option(help="Blocks per orchestrator at concurrency 32.")] = 3,
    profile: Annotated[
        Path | None, typer.Option(help="Write a profile of the ingress under load here (py-spy, raw).")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Orchestration overhead beside a hand-written asyncio orchestrator; takes 2 to 3 minutes."""
    if quick:
        requests, blocks = 4, 1
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    backends = subprocess.Popen([sys.executable, "-m", "benchmarks.speed.backends", str(port)])
    try:
        with serving(recipe(url)) as served:
            figures = asyncio.run(measure(served, url, requests, blocks, profile))
    finally:
        backends.terminate()
        backends.wait()
    summarise(figures, json)


def summarise(figures: Figures, json: Path | None) -> None:
    """One row per orchestrator, and the limits."""
    rows: list[dict[str, Any]] = []
    for name, idles in figures.idles.items():
        parts = {part: [i[part] * 1000 for i in idles] for part in idles[0]}
        rows.append(
            {"orchestrator": name}
            | {f"{part} ms": percentile(values, 0.5) for part, values in parts.items()}
            | {"p95 ms": percentile(parts["total"], 0.95)}
            | {"requests/s": median(figures.rates[name])}
            | {"by block": [round(rate, 1) for rate in figures.rates[name]]}
        )
    ratio = median(figures.rates["slimmoa"]) / median(figures.rates["hand-written"])
    limits = [
        Limit("idle ms of a request at concurrency 1, p50", rows[0]["total ms"], IDLE_LIMIT_MS),
        Limit("throughput over hand-written at concurrency 32", ratio, THROUGHPUT_LIMIT, at_least=True),
    ]
    title = "Time of a request without a working backend (p50) at concurrency 1; throughput at 32"
    report(title, rows, limits, json)


if __name__ == "__main__":
    run(main)
