"""A mixture's wall time over the sum of its engines' own times for the same calls.

    python -m benchmarks.speed.wall_time [--config tiny_cpu] [--questions 5] [--json FILE]

Serves the recipe and asks it over HTTP, one question at a time. The engines' times are those of the
answer's `usage.by_model[].engine_s`, so both sides are of the same calls in the same run. Below 1:
proposers ran side by side. Needs the real weights.
"""

import asyncio
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import aiohttp
import typer

from benchmarks.shared.harness import QUESTIONS, Answer, Limit, ask, report, run, serving
from configs.load import load

LIMIT = 1.3


async def measure(url: str, model: str, questions: int) -> list[Answer]:
    """Ask one question after the other; the first, which warms everything up, does not count."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        asked = islice(cycle(QUESTIONS), questions + 1)
        answers = [await ask(session, url, model, question) for question in asked]
    return answers[1:]


def row(number: int, answer: Answer) -> dict[str, Any]:
    """The figures of one answer."""
    if answer.error or answer.moa["degraded"]:
        raise SystemExit(f"no whole answer: {answer.error or answer.moa['missing']}")
    calls = answer.usage["by_model"]
    engines_s = sum(call["engine_s"] for call in calls)
    by_call = {f"{call['role']} {call['model']} s": call["engine_s"] for call in calls}
    assert answer.first is not None
    return {
        "question": number,
        **by_call,
        "engines s": engines_s,
        "first token s": answer.first - answer.began,
        "wall s": answer.wall_s,
        "ratio": answer.wall_s / engines_s,
    }


def main(
    *,
    config: Annotated[str, typer.Option(help="A recipe's path, or a preset's name.")] = "tiny_cpu",
    questions: Annotated[int, typer.Option(min=1, help="How many to ask.")] = 5,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Wall time of a question over its engines' own times; about 20 seconds per question on 2 cores."""
    recipe = load(config)
    with serving(recipe) as url:
        answers = asyncio.run(measure(url, recipe.name, questions))
    rows = [row(number, answer) for number, answer in enumerate(answers, 1)]
    ratios = [r["ratio"] for r in rows]
    limits = [
        Limit("wall time over the engines' own times, median", median(ratios), LIMIT),
        Limit("wall time over the engines' own times, max", max(ratios), LIMIT),
    ]
    report(f"Wall time of {config}, one question at a time", rows, limits, json)


if __name__ == "__main__":
    run(main)
