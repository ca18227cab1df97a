"""Time from a command to a ready endpoint and to its first token, cold and warm.

    python -m benchmarks.speed.startup [--command "slimmoa serve"] [--port 8000] [--json FILE]

Cold: the cache folder (SLIMMOA_CACHE) is empty, so weights are downloaded. Warm: the same command
again, which must download nothing. `--command "make serve"` includes what make does before.
"""

import asyncio
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import aiohttp
import typer

from benchmarks.shared.harness import QUESTIONS, Limit, ask, report, run

WARM_LIMIT_S = 20.0
POLL_S = 0.1
STOP_S = 60


@dataclass(frozen=True, slots=True)
class Start:
    """One start. first_token_s: from the command to the first token of the first answer."""

    ready_s: float
    first_token_s: float
    weights_bytes: int


@contextmanager
def started(command: str, cache: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The command in a process group of its own, ended as Ctrl-C would end it."""
    environment = os.environ | {"SLIMMOA_CACHE": str(cache)}
    server = subprocess.Popen(shlex.split(command), env=environment, start_new_session=True)
    try:
        yield server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            raise


async def measure(server: "subprocess.Popen[bytes]", url: str, began: float) -> tuple[float, float]:
    """When it was ready, and when the first token came, in seconds since `began`."""
    async with aiohttp.ClientSession() as session:
        while not await is_ready(session, url):
            if server.poll() is not None:
                raise SystemExit(f"the command ended with {server.returncode} before it was ready")
            await asyncio.sleep(POLL_S)
        ready = time.monotonic()
        async with session.get(f"{url}/v1/models") as response:
            model = (await response.json())["data"][0]["id"]
        answer = await ask(session, url, model, QUESTIONS[0])
    if answer.first is None:
        raise SystemExit(f"no answer: {answer.error}")
    return ready - began, answer.first - began


async def is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether /readyz says so."""
    try:
        async with session.get(f"{url}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


def start(command: str, url: str, cache: Path, limit_s: float) -> Start:
    """Start, ask once, stop."""

    async def bounded(server: "subprocess.Popen[bytes]") -> tuple[float, float]:
        async with asyncio.timeout(limit_s):
            return await measure(server, url, began)

    began = time.monotonic()
    with started(command, cache) as server:
        ready_s, first_token_s = asyncio.run(bounded(server))
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    return Start(ready_s, first_token_s, size)


def main(
    *,
    command: Annotated[str, typer.Option(help="What starts the endpoint.")] = "slimmoa serve",
    port: Annotated[int, typer.Option(help="Where it listens.")] = 8000,
    warm_starts: Annotated[int, typer.Option(min=1, help="Warm starts after the cold one.")] = 2,
    limit_s: Annotated[float, typer.Option(help="Longest wait for one start.")] = 900,
    cache: Annotated[
        Path | None, typer.Option(help="A cache folder to keep; by default a new, empty one.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Time from a command to ready and to the first token; downloads the weights when cold."""
    with tempfile.TemporaryDirectory(prefix="slimmoa-cache-") as empty:
        folder = cache or Path(empty)
        first = "cold" if not any(folder.rglob("*")) else "warm"
        names = [first, *["warm"] * warm_starts]
        starts = [start(command, f"http://127.0.0.1:{port}", folder, limit_s) for _ in names]
    rows = [
        {"start": name, "ready s": s.ready_s, "first token s": s.first_token_s}
        | {"weights MB": s.weights_bytes / 1e6}
        for name, s in zip(names, starts, strict=True)
    ]
    grown = max(s.weights_bytes for s in starts[1:]) - starts[0].weights_bytes
    limits = [
        Limit("seconds to ready, warm, max", max(s.ready_s for s in starts[1:]), WARM_LIMIT_S),
        Limit("bytes downloaded by a warm start", grown, 0),
    ]
    report(f"Start of `{command}`", rows, limits, json)


if __name__ == "__main__":
    run(main)
