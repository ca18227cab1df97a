"""Do tokens reach the client one by one, as the engine writes them?

    python -m benchmarks.speed.token_gaps [--answers 10] [--json FILE]

One streamed answer at a time. The gap is the time between two tokens, at the client and at the engine,
for two kinds of engine: `openai_http` over the simulated servers, which note when they write each
token, and the scripted engine inside the replica. Nobody outside sees when the latter writes, so its
own gap is that of the same engine alone in this process. A chunk that holds several tokens is one gap
less: the count of chunks shows it.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from actors.engine import Message, Share
from actors.engines import create
from benchmarks.shared.harness import Limit, percentile, report, run, serving
from benchmarks.shared.others import others_cpu_s
from benchmarks.shared.processes import server
from benchmarks.shared.raw_client import Connection, read
from benchmarks.speed.backends import AGGREGATOR, MODELS, PROPOSERS, SERVED_NAME, calls_of, recipe
from benchmarks.speed.closed_loop import question
from configs.schema import Recipe

LIMIT_MS = 1.5
BLOCK = "gaps"
HTTP, SCRIPTED = "openai_http", "scripted, in the replica"


@dataclass(frozen=True, slots=True)
class Answer:
    """When the tokens of an answer were written, and when its pieces of text came; and its tokens."""

    wrote: Sequence[float]
    came: Sequence[float]
    tokens: int


def scripted() -> Recipe:
    """The models of the simulated servers as scripted engines."""
    models = {
        name: {"engine": "scripted", "first_token_s": pace.first_token_s, "token_s": pace.token_s}
        | {"tokens": pace.tokens, "context_tokens": 32768, "concurrency": 64}
        for name, pace in MODELS.items()
    }
    sampled = {
        name: {"model": name, "sampling": {"max_tokens": MODELS[name].tokens}} for name in MODELS
    }
    layer = {"proposers": [sampled[name] for name in PROPOSERS]}
    return Recipe.model_validate(
        {"name": SERVED_NAME, "models": models, "aggregator": sampled[AGGREGATOR], "layers": [layer]}
    )


async def asked(url: str, answers: int) -> list[tuple[list[float], int]]:
    """When each piece of an answer's text came, and how many tokens the answer says that it has."""
    connection = Connection(url)
    found = []
    for number in range(answers + 1):
        exchange = await connection.ask({**question(BLOCK, number), "stream": True})
        reply = read(exchange)
        if reply.problem or len(reply.text.split()) != MODELS[AGGREGATOR].tokens:
            raise SystemExit(f"no whole answer: {reply.problem or reply.text}")
        found.append(([at for at, _ in reply.words], len(reply.text.split())))
    connection.close()
    return found[1:]  # the first one warms up


async def engine_alone(answers: int) -> list[list[float]]:
    """When the scripted aggregator writes its tokens, alone in this process."""
    model = scripted().models[AGGREGATOR]
    engine = create(AGGREGATOR, model, Share(threads=1))
    await engine.start()
    found = []
    sampling = scripted().aggregator.sampling
    messages = [Message(role="user", content="a question")]
    for _ in range(answers):
        stream = engine.stream(messages, sampling)
        found.append([time.monotonic() async for delta in stream if delta.text])
    await engine.stop()
    return found


def over_http(answers: int) -> list[Answer]:
    """Answers of `openai_http` over the simulated servers."""
    with server("benchmarks.speed.backends") as (servers, _), serving(recipe(servers)) as url:
        found = uvloop.run(asked(url, answers))
        calls = asyncio.run(calls_of(servers, BLOCK))
    wrote = {number: call.wrote for number, mine in calls.items() for call in mine[-1:]}
    return [Answer(wrote[n], came, tokens) for n, (came, tokens) in enumerate(found, 1)]


def in_replica(answers: int) -> list[Answer]:
    """Answers of the scripted engine."""
    alone = uvloop.run(engine_alone(answers))
    with serving(scripted()) as url:
        found = uvloop.run(asked(url, answers))
    return [Answer(wrote, came, tokens) for wrote, (came, tokens) in zip(alone, found, strict=True)]


def gaps_ms(moments: Sequence[Sequence[float]]) -> list[float]:
    """Milliseconds between the moments of each answer."""
    return [(later - earlier) * 1000 for each in moments for earlier, later in pairwise(each)]


def row(name: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """The figures of one kind of engine."""
    engine = gaps_ms([answer.wrote for answer in answers])
    client = gaps_ms([answer.came for answer in answers])
    found: dict[str, Any] = {"engine": name}
    for share in (0.5, 0.95):
        label = f"p{share * 100:.0f}"
        found[f"engine gap {label} ms"] = percentile(engine, share)
        found[f"client gap {label} ms"] = percentile(client, share)
    found["tokens"] = sum(answer.tokens for answer in answers)
    found["chunks"] = sum(len(answer.came) for answer in answers)
    found["moments"] = sum(len(set(answer.came)) for answer in answers)
    return found


def limits(row: dict[str, Any]) -> list[Limit]:
    """What one kind of engine may show."""
    away = abs(row["client gap p50 ms"] - row["engine gap p50 ms"])
    name, chunks = row["engine"], row["chunks"] / row["tokens"]
    return [
        Limit(f"{name}: ms between the gaps at client and engine, p50", away, LIMIT_MS),
        Limit(f"{name}: chunks per token", chunks, 1, at_least=True),
    ]


def main(
    *,
    answers: Annotated[int, typer.Option(min=1, help="Answers per kind of engine.")] = 10,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Gaps between tokens at the client and at the engine; takes a minute and a half."""
    others_s, began = others_cpu_s(), time.monotonic()
    rows = [row(HTTP, over_http(answers)), row(SCRIPTED, in_replica(answers))]
    others = (others_cpu_s() - others_s) / (time.monotonic() - began)
    print(f"other programs meanwhile: {others:.2f} cores")
    title = f"Time between two tokens, {answers} answers, one at a time"
    held = [limit for each in rows for limit in limits(each)]
    report(title, rows, held, json, **{"other programs, cores": others})


if __name__ == "__main__":
    run(main)
