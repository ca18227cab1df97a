"""Answers while proposers fail and hang: all answered, labelled with the cause, within the deadline.

    python -m benchmarks.faults.faults [--requests 200] [--concurrency 16] [--json FILE]

Serves configs/scripted.yaml, where one of three proposers fails 20% of its calls and another hangs in
5%, asks half of the requests streamed and half whole, and compares the causes that the answers name
with what the engines themselves counted.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer

from actors.replica import ReplicaStats
from benchmarks.shared.harness import QUESTIONS, Answer, Limit, ask, report, run, serving, spread, stats
from configs.load import load
from configs.schema import Recipe

CONFIG = "scripted"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answers, and what each model's engine counted."""

    answers: list[Answer]
    counted: dict[str, ReplicaStats]

    def named(self, model: str, cause: str) -> int:
        """Proposals of a model that answers name as missing for a cause."""
        missing = [m for answer in self.answers for m in answer.moa.get("missing", ())]
        return sum(m["model"] == model and m["cause"] == cause for m in missing)


async def measure(url: str, recipe: Recipe, requests: int, concurrency: int) -> Outcome:
    """Ask them all, so many at a time."""
    numbers, answers = iter(range(requests)), []
    timeout = aiohttp.ClientTimeout(total=recipe.limits.deadline_s * 4)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def client() -> None:
            for n in numbers:
                question = QUESTIONS[n % len(QUESTIONS)]
                answers.append(await ask(session, url, recipe.name, question, stream=n % 2 == 0))

        async with asyncio.TaskGroup() as clients:
            for _ in range(concurrency):
                clients.create_task(client())
    return Outcome(answers, {model: await stats(model) for model in recipe.models})


def main(
    *,
    requests: Annotated[int, typer.Option(min=1, help="How many to ask.")] = 200,
    concurrency: Annotated[int, typer.Option(min=1, help="How many at a time.")] = 16,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Answers while proposers fail and hang; about half a minute."""
    recipe = load(CONFIG)
    with serving(recipe) as url:
        outcome = asyncio.run(measure(url, recipe, requests, concurrency))
    answers, counted = outcome.answers, outcome.counted
    failed, hung = outcome.named("failing", "engine_error"), outcome.named("hanging", "late")
    causes = Counter(_causes(answer) for answer in answers)
    rows: list[dict[str, Any]] = [
        {"answers": cause, "count": count, **spread([a.wall_s for a in answers if _causes(a) == cause])}
        for cause, count in causes.most_common()
    ]
    degraded = sum(answer.moa.get("degraded", False) for answer in answers)
    unlabelled = sum(bool(_missing(a)) != a.moa.get("degraded", False) for a in answers)
    errors = sum(answer.status != 200 or bool(answer.error) or not answer.text for answer in answers)
    slowest = max(answer.wall_s for answer in answers)
    limits = [
        Limit("requests without an answer", errors, 0),
        Limit("answers degraded without a cause, or with one and not degraded", unlabelled, 0),
        Limit("answers degraded (so many need to be)", degraded, 1, at_least=True),
        Limit("failed calls that no answer names", abs(counted["failing"].failed - failed), 0),
        Limit("hung calls that no answer names", abs(counted["hanging"].cancelled - hung), 0),
        Limit("calls still in flight", sum(c.in_flight for c in counted.values()), 0),
        Limit("seconds of the slowest answer, the deadline", slowest, recipe.limits.deadline_s),
    ]
    report(f"{requests} requests to {CONFIG}, {concurrency} at a time: seconds", rows, limits, json)


def _missing(answer: Answer) -> list[dict[str, Any]]:
    missing: list[dict[str, Any]] = answer.moa.get("missing", [])
    return missing


def _causes(answer: Answer) -> str:
    if answer.status != 200 or answer.error:
        return f"{answer.status} {answer.error}"
    return ", ".join(sorted(f"{m['model']}: {m['cause']}" for m in _missing(answer))) or "whole"


if __name__ == "__main__":
    run(main)
