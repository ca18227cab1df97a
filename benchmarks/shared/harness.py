"""What the benchmarks share: the app under test, a client of its API, figures and how to print them."""

import json
import os
import platform
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import typer
from rich.console import Console
from rich.table import Table

from actors.replica import ReplicaStats
from cluster import ray_runtime
from cluster.cards.card import this_machine
from configs.schema import Recipe

HOST = "127.0.0.1"

# Of the kind that AlpacaEval asks, written for this project.
QUESTIONS = (
    "What are three habits that help a new manager earn the trust of a team?",
    "Explain to a ten-year-old why the sky is blue at noon and red in the evening.",
    "I have rice, eggs, spinach and soy sauce. Suggest a dinner and how to cook it.",
    "Write a short, polite email that asks a landlord to repair a leaking tap.",
    "What is the difference between weather and climate? Give one example of each.",
)


@contextmanager
def serving(recipe: Recipe) -> Iterator[str]:
    """Serve a recipe as `slimmoa serve` does, on a Ray of its own; yields the base URL."""
    port = free_port()
    ray_runtime.connect(None, verbose=False)
    try:
        # Not before `connect`: Ray reads its settings when it is imported.
        from serve_app.app import BuildArgs, build

        graph = build(BuildArgs(recipe=recipe, follow_nodes=False, host=HOST, port=port))
        ray_runtime.deploy(graph, ray_runtime.APP_NAME)
        yield f"http://{HOST}:{port}"
    finally:
        ray_runtime.disconnect(ray_runtime.APP_NAME, local=True)


def free_port() -> int:
    """A TCP port that nobody listens on now.

    The port is none that the system gives to whoever asks for any port (from 32768 on), and none of
    Ray's workers (10002 to 19999). Otherwise Ray could take the port before the benchmark does.
    """
    while True:
        port = random.SystemRandom().randint(20_000, 29_999)
        with socket.socket() as sock, suppress(OSError):
            sock.bind((HOST, port))
            return port


async def told(deployment: str, method: str) -> Any:
    """What a deployment of the app under test answers."""
    from ray import serve

    handle: Any = serve.get_deployment_handle(deployment, ray_runtime.APP_NAME)
    return await getattr(handle, method).remote()


async def stats(model: str) -> ReplicaStats:
    """What the replica of a model says that its engine has done."""
    counts: ReplicaStats = await told(f"model-{model}", "stats")
    return counts


@dataclass(slots=True)
class Answer:
    """One answer as a client sees it. Times are of the monotonic clock, which all processes share."""

    status: int
    began: float
    ended: float = 0.0
    first: float | None = None
    text: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    moa: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    retry_after: str | None = None

    @property
    def wall_s(self) -> float:
        """From the request to the end of the answer."""
        return self.ended - self.began


async def ask(
    session: aiohttp.ClientSession,
    base_url: str,
    model: str,
    question: str,
    *,
    stream: bool = True,
    **more: Any,
) -> Answer:
    """Ask one question over HTTP; `more` goes into the request."""
    messages = [{"role": "user", "content": question}]
    body: dict[str, Any] = {"model": model, "messages": messages, **more}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    began = time.monotonic()
    async with session.post(f"{base_url}/v1/chat/completions", json=body) as response:
        answer = Answer(response.status, began, retry_after=response.headers.get("Retry-After"))
        if response.status != 200:
            answer.error = await response.text()
        elif stream:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    _take(answer, json.loads(line[6:]))
        else:
            _take(answer, await response.json())
    answer.ended = time.monotonic()
    return answer


def _take(answer: Answer, chunk: dict[str, Any]) -> None:
    answer.usage = chunk.get("usage") or answer.usage
    answer.moa = chunk.get("moa") or answer.moa
    if "error" in chunk:
        answer.error = chunk["error"]["message"]
    for choice in chunk.get("choices", ()):
        if text := (choice.get("delta") or choice.get("message") or {}).get("content"):
            answer.first = answer.first or time.monotonic()
            answer.text += text


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of the values do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -int(-share * len(ranked) // 1) - 1)]


def hardware() -> str:
    """What ran this: for the line under a table of figures."""
    card, model = this_machine(), platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    python = platform.python_version()
    return f"{model}, {card.cores} cores, {card.total_bytes / 2**30:.0f} GiB RAM, Python {python}"


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure and what it may be. at_least: the limit is a lower one."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def held(self) -> bool:
        """Whether the figure is within its limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign, verdict = ">=" if self.at_least else "<=", "ok" if self.held else "MISSED"
        return f"{self.name}: {self.value:.4g} (limit {sign} {self.limit:g}) {verdict}"


def report(
    title: str,
    rows: Sequence[dict[str, Any]],
    limits: Sequence[Limit],
    json_path: Path | None,
    **more: Any,
) -> None:
    """Print a table and the verdicts, write them as JSON if asked to, exit 1 on a missed limit.

    more: figures that only the JSON has.
    """
    console = Console(width=None if os.isatty(1) else 120)
    table = Table(*rows[0], title=title, caption=hardware())
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table)
    for limit in limits:
        console.print(str(limit), style=None if limit.held else "bold red", highlight=False)
    if json_path:
        verdicts = [
            {"name": i.name, "value": i.value, "limit": i.limit, "held": i.held} for i in limits
        ]
        data = {"title": title, "hardware": hardware(), "rows": list(rows), "limits": verdicts} | more
        json_path.write_text(json.dumps(data, indent=1) + "\n", "utf-8")
    if not all(limit.held for limit in limits):
        raise typer.Exit(1)


def spread(values: Sequence[float], unit: float = 1.0) -> dict[str, float]:
    """Columns p50, p95 and max of a row, in `unit`s."""
    return {
        "p50": percentile(values, 0.5) / unit,
        "p95": percentile(values, 0.95) / unit,
        "max": max(values) / unit,
    }


def run(main: Callable[..., None]) -> None:
    """Run a script's command line."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(main)
    app()
