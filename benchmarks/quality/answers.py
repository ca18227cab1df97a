"""Ten ordinary questions, answered by mixtures and by each of their models alone, as a page to read.

    python -m benchmarks.quality.answers --out FILE.json [--page FILE.md] [--config NAME]...

Each recipe is served in turn. A model alone answers with the aggregator's sampling, so that both have
the same room for an answer. The seed is fixed, and one question is asked at a time. FILE.json keeps the
answers: a second run with the same file asks only for those that it lacks, so the work can be done in
pieces (`--minutes`). With `--page` the answers are written as Markdown for people. There is no score:
ten answers are to be read, and are too few to be counted.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer

from benchmarks.shared.harness import ask, hardware, serving
from configs.load import load
from configs.schema import Recipe

SEED = 1
QUESTIONS = {
    "explain": "Why does bread go stale faster in the fridge than on the counter?",
    "mail": "Write a short, polite mail to my landlord: the heating has been broken for three days, "
    "and I would like it repaired this week.",
    "clock": "My train leaves at 14:35 and the journey takes 3 hours and 48 minutes. When do I arrive?",
    "money": "I buy 3 coffees for 2.80 euros each and 2 croissants for 1.95 euros each, and pay with a "
    "20 euro note. How much change do I get?",
    "code": "Write a Python function that returns the second largest distinct number of a list, or "
    "None if there is none.",
    "list": "Give me a packing list for a weekend of hiking in autumn. At most ten things, one a line.",
    "translation": "Translate into German: The meeting was moved to Thursday because two of us are "
    "ill. Please bring the signed contract.",
    "summary": "Summarise this in one sentence: The city council voted on Tuesday to close Main Street "
    "to cars on weekends from May to September. Shop owners fear that they will lose customers, while "
    "cyclists and parents welcome the plan. A study of a similar closure in a neighbouring town found "
    "that sales rose by 6 percent. The council will review the decision after one year.",
    "fact": "What is the capital of Australia, and why is it not Sydney?",
    "logic": "Anna is older than Ben. Clara is younger than Ben but older than David. Name the four "
    "from the oldest to the youngest.",
}
"""What a person might ask, by kind. Written for this project; four have one right answer."""

Rows = list[dict[str, Any]]


def answerers(recipe: Recipe) -> list[str]:
    """Who answers: the mixture and each of its models."""
    return [recipe.name, *recipe.models]


def missing(rows: Rows, who: Sequence[str]) -> list[tuple[str, str]]:
    """Which answers are not in `rows`, as pairs of who answers and the kind of the question."""
    known = {(row["who"], row["kind"]) for row in rows}
    return [(name, kind) for kind in QUESTIONS for name in who if (name, kind) not in known]


async def answer(recipe: Recipe, url: str, who: str, kind: str) -> dict[str, Any]:
    """Ask one question; the row has the text, the seconds and the proposals.

    Raises:
        SystemExit: the server refused.
    """
    alone: dict[str, Any] = {}
    if who != recipe.name:
        sampling = recipe.aggregator.sampling
        alone = {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
    async with aiohttp.ClientSession() as session:
        got = await ask(session, url, who, QUESTIONS[kind], seed=SEED, stream=False, **alone)
    if got.error:
        raise SystemExit(f"{who} did not answer {kind!r}: {got.error}")
    return {
        "who": who,
        "kind": kind,
        "seconds": round(got.wall_s, 1),
        "tokens": got.usage.get("completion_tokens"),
        "text": got.text,
        "moa": got.moa,
    }


def page(rows: Rows) -> str:
    """The answers as Markdown: a table of seconds, then all texts by question."""
    who = list(dict.fromkeys(row["who"] for row in rows))
    seconds = {(row["who"], row["kind"]): row["seconds"] for row in rows}
    lines = [
        "| seconds | " + " | ".join(f"`{name}`" for name in who) + " |",
        "| --- |" + " ---: |" * len(who),
    ]
    for kind in QUESTIONS:
        cells = [str(seconds.get((name, kind), "")) for name in who]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    for kind, question in QUESTIONS.items():
        lines += ["", f"## {kind.capitalize()}", "", f"> {question}"]
        for row in (row for row in rows if row["kind"] == kind):
            lines += ["", f"**`{row['who']}`**, {row['seconds']} s:", "", _fenced(row["text"])]
    return "\n".join(lines) + "\n"


def _fenced(text: str) -> str:
    """A text as it stands, in a fence that no line of the text closes."""
    fence = "~~~"
    while fence in text:
        fence += "~"
    return f"{fence}text\n{text.strip()}\n{fence}"


def main(
    *,
    out: Annotated[Path, typer.Option(help="Keep the answers in this file.")],
    config: Annotated[
        list[str] | None, typer.Option(help="Recipes; small_cpu and tiny_cpu if none.")
    ] = None,
    page_file: Annotated[Path | None, typer.Option("--page", help="Write a page to read here.")] = None,
    minutes: Annotated[float, typer.Option(help="Begin no further answer after so long.")] = 60.0,
) -> None:
    """Ten ordinary questions, answered by mixtures and by each of their models alone."""
    rows: Rows = json.loads(out.read_text("utf-8")) if out.exists() else []
    end = time.monotonic() + 60 * minutes
    for name in config or ["small_cpu", "tiny_cpu"]:
        recipe = load(name)
        if not missing(rows, answerers(recipe)) or time.monotonic() > end:
            continue
        with serving(recipe) as url:
            for who, kind in missing(rows, answerers(recipe)):
                if time.monotonic() > end:
                    break
                rows.append(asyncio.run(answer(recipe, url, who, kind)))
                out.write_text(json.dumps(rows, indent=1), "utf-8")
    if page_file is not None:
        page_file.write_text(page(rows), "utf-8")
    print(f"{len(rows)} answers in {out}. {hardware()}")


if __name__ == "__main__":
    typer.run(main)
