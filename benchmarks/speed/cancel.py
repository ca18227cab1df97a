"""How long engines go on working for a client that was killed.

    python -m benchmarks.speed.cancel [--config tiny_cpu] [--repetitions 5] [--json FILE]

A client in a process of its own streams an answer and is killed (SIGKILL) in a phase: while proposers
write, while the aggregator reads its prompt, while it writes. Measured at the replicas: the time until
no call is in flight or waits. Needs the real weights.
"""

import asyncio
import json as jsonlib
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer

from benchmarks.shared.harness import QUESTIONS, Limit, report, run, serving, spread, stats
from configs.load import load
from configs.schema import Recipe

LIMIT_S = 1.0
GIVE_UP_S = 60.0
REACHED = "reached"
# What the stream says when a phase begins: the type of a `moa` event, or text of the answer. Where
# models take turns, the engine's work begins a moment later.
PHASES = {
    "proposers write": "proposal.delta",
    "aggregator reads": "stage.done",
    "aggregator writes": "text",
}


async def stream(url: str, model: str, question: str, phase: str) -> None:
    """The client that is killed: it says when the phase has begun, and reads on."""
    messages = [{"role": "user", "content": question}]
    body = {"model": model, "messages": messages, "stream": True, "moa": {"events": True}}
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        async for line in response.content:
            if line.startswith(b"data: {") and PHASES[phase] in _kinds(jsonlib.loads(line[6:])):
                print(REACHED, flush=True)


def _kinds(chunk: dict[str, Any]) -> list[str]:
    texts = [choice["delta"].get("content") for choice in chunk.get("choices", ())]
    return [chunk.get("moa", {}).get("type", ""), *("text" for text in texts if text)]


async def calls(recipe: Recipe) -> tuple[int, int]:
    """How many the engines work on now, and how many wait for a turn."""
    found = [await stats(model) for model in recipe.models]
    return sum(s.in_flight for s in found), sum(s.waiting for s in found)


async def kill_in(phase: str, url: str, recipe: Recipe, question: str) -> float:
    """Seconds from the client's death until no engine works."""
    command = ["-m", "benchmarks.speed.cancel", "stream", url, recipe.name, question, phase]
    client = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE
    )
    assert client.stdout is not None
    async with asyncio.timeout(GIVE_UP_S):
        if (await client.stdout.readline()).decode().strip() != REACHED:
            raise SystemExit(f"the client ended before {phase!r} began")
        while not (await calls(recipe))[0]:  # noqa: ASYNC110  # the engines are in other processes
            await asyncio.sleep(0.002)
    client.kill()
    killed = time.monotonic()
    await client.wait()
    async with asyncio.timeout(GIVE_UP_S):
        while any(await calls(recipe)):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.002)
    return time.monotonic() - killed


async def measure(url: str, recipe: Recipe, repetitions: int) -> dict[str, list[float]]:
    """Every phase so many times, in turns."""
    times: dict[str, list[float]] = {phase: [] for phase in PHASES}
    endpoint = f"{url}/v1/chat/completions"
    for n in range(repetitions):
        for phase, seconds in times.items():
            question = QUESTIONS[n % len(QUESTIONS)]
            seconds.append(await kill_in(phase, endpoint, recipe, question))
    return times


def main(
    *,
    config: Annotated[str, typer.Option(help="A recipe's path, or a preset's name.")] = "tiny_cpu",
    repetitions: Annotated[int, typer.Option(min=1, help="Kills per phase.")] = 5,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """How long engines work on for a client that was killed; about a minute."""
    recipe = load(config)
    with serving(recipe) as url:
        times = asyncio.run(measure(url, recipe, repetitions))
    rows = [
        {"client killed while the": phase, "kills": len(seconds), **spread(seconds)}
        for phase, seconds in times.items()
    ]
    slowest = max(max(seconds) for seconds in times.values())
    limits = [Limit("seconds from the kill until no engine works, max", slowest, LIMIT_S)]
    report(f"Killed clients of {config}: seconds until no engine works", rows, limits, json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["stream"]:
        asyncio.run(stream(*sys.argv[2:6]))
    else:
        run(main)
