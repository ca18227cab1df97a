"""What turns cost on one CPU card, against the engines alone.

    python -m benchmarks.turns question [--questions 3] [--json FILE]
    python -m benchmarks.turns batch [--questions 50] [--json FILE]

`question`: the default recipe, one question at a time, in turns; then the very same calls to each
engine alone in this process with all cores; then the same recipe forced side by side with full
threads, for the first question only, because that takes minutes.
`batch`: all questions at once over two proposers and an aggregator in one slot whose memory holds one
of them, so that every swap unloads and loads; then the same calls to each engine alone. Swaps are
counted by the keeper. Both need the real weights.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer

from actors.engine import Message, Share, whole_of
from actors.engines import create
from benchmarks.harness import APP_NAME, QUESTIONS, Answer, Limit, ask, report, serving
from cluster.card import this_machine
from configs.load import load
from configs.schema import Recipe, Sampling
from serve_app.prompts import with_references

SOLO_LIMIT, BATCH_LIMIT, SWAP_LIMIT = 1.1, 1.1, 4
SEED = 7

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One call as an engine gets it."""

    model: str
    messages: Sequence[Message]
    sampling: Sampling


def calls_of(recipe: Recipe, question: str, answer: Answer) -> list[EngineCall]:
    """The calls behind an answer of a one-layer recipe, made again from its proposals and its seed."""
    messages = [Message(role="user", content=question)]
    calls = []
    for place, proposer in enumerate(recipe.layers[0].proposers):
        seed = random.Random(f"{SEED}/1/{place}").getrandbits(31)
        sampling = proposer.sampling.model_copy(update={"seed": seed})
        calls.append(EngineCall(proposer.model, messages, sampling))
    texts = [p["text"] for p in sorted(answer.moa["proposals"], key=lambda p: p["place"])]
    random.Random(f"{SEED}/2").shuffle(texts)
    prompt = with_references(messages, texts, recipe.references)
    sampling = recipe.aggregator.sampling.model_copy(update={"seed": SEED})
    return [*calls, EngineCall(recipe.aggregator.model, prompt, sampling)]


async def solo(recipe: Recipe, calls: Sequence[EngineCall], at_once: int) -> list[tuple[str, float]]:
    """Each engine alone with all cores: (model, seconds) per call, or per model if `at_once` > 1."""
    taken: list[tuple[str, float]] = []
    for name in dict.fromkeys(call.model for call in calls):
        engine = create(name, recipe.models[name], Share(threads=this_machine().cores))
        await engine.start()
        mine = [call for call in calls if call.model == name]
        # A first short call, as in the app before anything is timed.
        await whole_of(engine.stream(mine[0].messages, Sampling(max_tokens=1)))
        places = asyncio.Semaphore(at_once)

        async def one(call: EngineCall, engine: Any = engine, places: Any = places) -> float:
            async with places:
                began = time.monotonic()
                await whole_of(engine.stream(call.messages, call.sampling))
                return time.monotonic() - began

        if at_once == 1:
            taken += [(name, await one(call)) for call in mine]
        else:
            began = time.monotonic()
            await asyncio.gather(*map(one, mine))
            taken.append((name, time.monotonic() - began))
        await engine.stop()
    return taken


async def asked(url: str, recipe: Recipe, questions: Sequence[str], at_once: int) -> list[Answer]:
    """The answers, and none of them degraded."""
    timeout = aiohttp.ClientTimeout(total=1800)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        more = {"seed": SEED, "moa": {"events": True}}
        places = asyncio.Semaphore(at_once)

        async def one(question: str) -> Answer:
            async with places:
                return await ask(session, url, recipe.name, question, stream=False, **more)

        answers = await asyncio.gather(*map(one, questions))
    for answer in answers:
        if answer.error or answer.moa["degraded"]:
            raise SystemExit(f"no whole answer: {answer.error or answer.moa['missing']}")
    return answers


def changed(recipe: Recipe, models: dict[str, Any], **changes: Any) -> Recipe:
    """The recipe with other settings of all its models, and others of its own."""
    data = recipe.model_dump()
    for model in data["models"].values():
        model |= models
    return Recipe.model_validate(data | changes)


@app.command()
def question(
    *,
    questions: Annotated[int, typer.Option(min=1, help="How many to ask.")] = 3,
    beside: Annotated[bool, typer.Option(help="Also side by side; takes minutes.")] = True,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """One question at a time: in turns, each engine alone, and side by side with full threads."""
    recipe, texts = load("tiny_cpu"), list(islice(cycle(QUESTIONS), questions))
    with serving(recipe) as url:
        asyncio.run(asked(url, recipe, texts[:1], 1))
        answers = asyncio.run(asked(url, recipe, texts[-1:] + texts, 1))[1:]
    per_answer = [calls_of(recipe, q, a) for q, a in zip(texts, answers, strict=True)]
    alone_first = asyncio.run(solo(recipe, per_answer[0], 1))
    alone = alone_first + asyncio.run(
        solo(recipe, [call for calls in per_answer[1:] for call in calls], 1)
    )
    turns_s = sum(a.wall_s for a in answers)
    solo_s = sum(seconds for _, seconds in alone)
    rows: list[dict[str, Any]] = [
        {"run": "in turns, all cores each", "wall s": turns_s, "over solo": turns_s / solo_s},
        {"run": "each engine alone, same calls", "wall s": solo_s, "over solo": 1.0},
    ]
    if beside:
        together = changed(recipe, {"residency": "resident", "threads": this_machine().cores})
        with serving(together) as url:
            (crowded,) = asyncio.run(asked(url, together, texts[:1], 1))
        first_s = sum(seconds for _, seconds in alone_first)
        for run, seconds in (("in turns", answers[0].wall_s), ("side by side", crowded.wall_s)):
            row = {"run": f"first question {run}", "wall s": seconds, "over solo": seconds / first_s}
            rows.append(row)
    limit = Limit("wall time in turns over the engines' solo times", turns_s / solo_s, SOLO_LIMIT)
    report(f"{questions} questions, one at a time", rows, [limit], json)


def three_models() -> Recipe:
    """Two proposers and an aggregator (SmolLM2 once more), in memory for one of them at a time."""
    base = load("tiny_cpu")
    data = base.model_dump()
    data["models"]["writer"] = data["models"]["smollm2-135m"]
    data["aggregator"] = {"model": "writer", "sampling": {"temperature": 0.5, "max_tokens": 16}}
    for proposer in data["layers"][0]["proposers"]:
        proposer["sampling"] = {"max_tokens": 16}
    data["cards"] = {"memory_bytes": 1700 << 20, "patience_s": 3600}
    data["limits"] = {"deadline_s": 1800, "layer_deadline_s": 900, "queue": 1000}
    return Recipe.model_validate(data)


async def keeper_orders() -> dict[tuple[str, str], int]:
    """How often the keeper gave each order."""
    from ray import serve

    handle: Any = serve.get_deployment_handle("keeper-0", APP_NAME)
    orders: dict[tuple[str, str], int] = await handle.orders.remote()
    return orders


@app.command()
def batch(
    *,
    questions: Annotated[int, typer.Option(min=1, help="How many to ask at once.")] = 50,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Many questions at once over three models in one slot that holds one of them."""
    recipe = three_models()
    texts = [f"{text} ({n})" for n, text in enumerate(islice(cycle(QUESTIONS), questions), 1)]
    with serving(recipe) as url:
        before = asyncio.run(keeper_orders())
        began = time.monotonic()
        answers = asyncio.run(asked(url, recipe, texts, questions))
        wall_s = time.monotonic() - began
        after = asyncio.run(keeper_orders())
    swaps = sum(n - before.get(key, 0) for key, n in after.items() if key[1] == "wake")
    calls = [call for q, a in zip(texts, answers, strict=True) for call in calls_of(recipe, q, a)]
    at_once = recipe.models["writer"].concurrency
    alone = asyncio.run(solo(recipe, calls, at_once))
    solo_s = sum(seconds for _, seconds in alone)
    rows = [
        {"run": "mixture in turns", "seconds": wall_s, "swaps": swaps},
        *({"run": f"{name} alone", "seconds": seconds, "swaps": ""} for name, seconds in alone),
    ]
    limits = [
        Limit("swaps", swaps, SWAP_LIMIT),
        Limit("wall time over the engines' solo batch time", wall_s / solo_s, BATCH_LIMIT),
    ]
    report(f"{questions} questions at once, one slot", rows, limits, json)


if __name__ == "__main__":
    app()
