"""What turns cost on one CPU card, against the engines alone.

    python -m benchmarks.speed.turns question [--questions 3] [--json FILE]
    python -m benchmarks.speed.turns batch [--questions 50] [--json FILE]

`question`: the default recipe, one question at a time, in turns; then the very same calls to each
engine alone in this process with all cores; then the same recipe forced side by side with full
threads, for the first question only, because that takes minutes.
`batch`: all questions at once over two proposers and an aggregator in one slot whose memory holds one
of them, so that every swap unloads and loads; then the same calls to each engine alone. Swaps and their
seconds are the keeper's. Tokens show that both did the same work, and `others` is what other programs
took of the CPU meanwhile. Both need the real weights.
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

from actors.engine import Delta, Message, Share, collect_answer
from actors.engines import create
from benchmarks.shared.harness import QUESTIONS, Answer, Limit, ask, report, serving
from benchmarks.shared.others import others_cpu_s
from cluster import ray_runtime
from cluster.cards.card import this_machine
from cluster.residency.messages import BRINGS_BACK
from configs.load import load
from configs.schema import Recipe, Sampling
from serve_app.mixture.references import with_references
from serve_app.mixture.samples import sample_seed

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
    for proposer in recipe.layers[0].proposers:
        seed = sample_seed(SEED, 1, proposer.model, 0)
        sampling = proposer.sampling.model_copy(update={"seed": seed})
        calls.append(EngineCall(proposer.model, messages, sampling))
    texts = [p["text"] for p in sorted(answer.moa["proposals"], key=lambda p: p["place"])]
    random.Random(f"{SEED}/2").shuffle(texts)
    prompt = with_references(messages, texts, recipe.references)
    sampling = recipe.aggregator.sampling.model_copy(update={"seed": SEED})
    return [*calls, EngineCall(recipe.aggregator.model, prompt, sampling)]


@dataclass(frozen=True, slots=True)
class Part:
    """What calls took. read, written: their tokens; others_s: CPU seconds of other programs."""

    run: str
    seconds: float
    read: int
    written: int
    others_s: float

    def row(self, **more: Any) -> dict[str, Any]:
        """For the table of figures."""
        row = {"run": self.run, "seconds": self.seconds, "read": self.read, "written": self.written}
        return row | {"others, s": self.others_s} | more


def together(run: str, parts: Sequence[Part]) -> Part:
    """One after the other."""
    columns = [(p.seconds, p.read, p.written, p.others_s) for p in parts]
    seconds, read, written, others_s = map(sum, zip(*columns, strict=True))
    return Part(run, seconds, read, written, others_s)


async def solo(recipe: Recipe, calls: Sequence[EngineCall], at_once: int) -> list[Part]:
    """Each engine alone with all cores, `at_once` calls at a time; one at a time gives one each."""
    taken: list[Part] = []
    for name in dict.fromkeys(call.model for call in calls):
        engine = create(name, recipe.models[name], Share(threads=this_machine().cores))
        await engine.start()
        mine = [call for call in calls if call.model == name]
        # A first short call, as in the app before anything is timed.
        await collect_answer(engine.stream(mine[0].messages, Sampling(max_tokens=1)))
        places = asyncio.Semaphore(at_once)

        async def one(call: EngineCall, engine: Any = engine, places: Any = places) -> Delta:
            async with places:
                return await collect_answer(engine.stream(call.messages, call.sampling))

        for group in [mine] if at_once > 1 else [[call] for call in mine]:
            others_s, began = others_cpu_s(), time.monotonic()
            wholes = await asyncio.gather(*map(one, group))
            seconds, others_s = time.monotonic() - began, others_cpu_s() - others_s
            read, written = (
                sum(d.prompt_tokens for d in wholes),
                sum(d.completion_tokens for d in wholes),
            )
            taken.append(Part(f"{name} alone", seconds, read, written, others_s))
        await engine.stop()
    return taken


async def asked(
    url: str, recipe: Recipe, questions: Sequence[str], at_once: int, run: str = ""
) -> tuple[list[Answer], Part]:
    """The answers, and none of them degraded; and what they took."""
    timeout = aiohttp.ClientTimeout(total=1800)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        more = {"seed": SEED, "moa": {"events": True}}
        places = asyncio.Semaphore(at_once)

        async def one(question: str) -> Answer:
            async with places:
                return await ask(session, url, recipe.name, question, stream=False, **more)

        others_s, began = others_cpu_s(), time.monotonic()
        answers = await asyncio.gather(*map(one, questions))
        seconds, others_s = time.monotonic() - began, others_cpu_s() - others_s
    for answer in answers:
        if answer.error or answer.moa["degraded"]:
            raise SystemExit(f"no whole answer: {answer.error or answer.moa['missing']}")
    counted = [a.usage["all_calls"] for a in answers]
    read, written = (sum(c[k] for c in counted) for k in ("prompt_tokens", "completion_tokens"))
    return answers, Part(run, seconds, read, written, others_s)


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
        asyncio.run(asked(url, recipe, [texts[0], texts[-1]], 1))
        answers, turns = asyncio.run(asked(url, recipe, texts, 1, "in turns, all cores each"))
    per_answer = [calls_of(recipe, q, a) for q, a in zip(texts, answers, strict=True)]
    alone = asyncio.run(solo(recipe, [call for calls in per_answer for call in calls], 1))
    whole = together("each engine alone, same calls", alone)
    ratio = turns.seconds / whole.seconds
    rows = [turns.row(**{"over solo": ratio}), whole.row(**{"over solo": 1.0})]
    if beside:
        crowd = changed(recipe, {"residency": "resident", "threads": this_machine().cores})
        with serving(crowd) as url:
            _, crowded = asyncio.run(asked(url, crowd, texts[:1], 1, "first one, side by side"))
        rows.append(crowded.row(**{"over solo": ""}))
        rows.append(
            {**dict.fromkeys(rows[0], ""), "run": "the same in turns", "seconds": answers[0].wall_s}
        )
    limit = Limit("wall time in turns over the engines' solo times", ratio, SOLO_LIMIT)
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


async def swaps_so_far() -> tuple[int, float]:
    """How many there were, and the seconds that engines took to leave the card and to come back."""
    from actors.keeper.ray_keeper import keepers

    (keeper,) = keepers(ray_runtime.APP_NAME).values()
    orders: dict[tuple[str, str], int] = await keeper.order_counts.remote()
    seconds: dict[tuple[str, str], float] = await keeper.step_seconds.remote()
    return sum(n for (_, verb), n in orders.items() if verb in BRINGS_BACK), sum(seconds.values())


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
        before = asyncio.run(swaps_so_far())
        answers, turns = asyncio.run(asked(url, recipe, texts, questions, "mixture in turns"))
        after = asyncio.run(swaps_so_far())
    swaps, swap_s = after[0] - before[0], after[1] - before[1]
    calls = [call for q, a in zip(texts, answers, strict=True) for call in calls_of(recipe, q, a)]
    parts = asyncio.run(solo(recipe, calls, recipe.models["writer"].concurrency))
    alone = together("all alone", parts)
    rows = [turns.row(swaps=swaps)]
    rows.append({**dict.fromkeys(rows[0], ""), "run": "of which swaps", "seconds": swap_s})
    rows += [part.row(swaps="") for part in (*parts, alone)]
    allowed_s = BATCH_LIMIT * alone.seconds + swap_s
    limits = [
        Limit("swaps", swaps, SWAP_LIMIT),
        Limit(f"wall seconds, limit {BATCH_LIMIT} times alone, plus swaps", turns.seconds, allowed_s),
    ]
    print(f"swaps taken off, over alone: {(turns.seconds - swap_s) / alone.seconds:.3f}")
    report(f"{questions} questions at once, one slot", rows, limits, json)


if __name__ == "__main__":
    app()
