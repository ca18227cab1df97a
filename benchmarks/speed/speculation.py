"""What speculation gains when an aggregator writes: its answers often repeat parts of the proposals.

    python -m benchmarks.speed.speculation [--config tiny_cpu] [--method ngram] [--tokens 8] [--rows 5]
        [--questions FILE --proposals FILE --proposals FILE] [--json FILE]

llama.cpp runs the recipe's aggregator twice in this process, without and with speculation. Both answer
the same prompts in turns, greedily. Measured are tokens per second from the first token of an answer to
its last, and whether the texts are equal. By default the recipe's own proposers write the proposals.
FILE is a file of AlpacaEval, as JSON lines (also .gz): questions have `instruction`, proposals have
`output`, and the rows of all files belong together. Needs the real weights.
"""

import asyncio
import gzip
import json as jsonlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from actors.engine import Message, Share, collect_answer
from actors.engines.llamacpp import LlamaCppEngine
from benchmarks.shared.harness import QUESTIONS, Limit, report, run
from cluster.cards.card import this_machine
from configs.llamacpp import Speculation
from configs.load import load
from configs.schema import LlamaCppModel, Recipe, Sampling
from serve_app.mixture.references import with_references


@dataclass(slots=True)
class Written:
    """One answer, and how fast it was written."""

    text: str
    tokens: int
    seconds: float
    """From the first token to the last."""


def engine(recipe: Recipe, name: str, **changes: object) -> LlamaCppEngine:
    """The engine of a model of the recipe, with all cores of this machine."""
    model = recipe.models[name]
    if not isinstance(model, LlamaCppModel):
        raise typer.BadParameter(f"model {name!r} of the recipe is not run by llama.cpp")
    share = Share(threads=this_machine().cores)
    return LlamaCppEngine(name, model.model_copy(update={"concurrency": 1, **changes}), share)


async def write(engine: LlamaCppEngine, messages: list[Message], tokens: int) -> Written:
    """Have the engine answer greedily."""
    deltas = engine.stream(messages, Sampling(max_tokens=tokens, temperature=0))
    text, count, first, last = "", 0, 0.0, 0.0
    async for delta in deltas:
        last = time.perf_counter()
        first = first or (last if delta.text else 0.0)
        text += delta.text
        count += delta.completion_tokens
    return Written(text, count, last - first)


async def own_proposals(recipe: Recipe, questions: list[str]) -> list[list[str]]:
    """For each question the proposals of the recipe's first layer."""
    found: list[list[str]] = [[] for _ in questions]
    for proposer in recipe.layers[0].proposers:
        model = engine(recipe, proposer.model)
        await model.start()
        sampling = proposer.sampling.model_copy(update={"seed": 1})
        for row, question in zip(found, questions, strict=True):
            messages = [Message(role="user", content=question)]
            row.append((await collect_answer(model.stream(messages, sampling))).text)
        await model.stop()
    return found


def read_rows(questions: Path, proposals: list[Path], rows: int) -> tuple[list[str], list[list[str]]]:
    """The first rows of files of AlpacaEval."""
    asked = [row["instruction"] for row in _lines(questions)][:rows]
    outputs = [[row["output"] for row in _lines(file)][:rows] for file in proposals]
    return asked, [list(row) for row in zip(*outputs, strict=True)]


def _lines(file: Path) -> list[dict[str, Any]]:
    data = file.read_bytes()
    text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    return [jsonlib.loads(line) for line in text.splitlines()]


async def measure(
    recipe: Recipe, speculation: Speculation, prompts: list[list[Message]], tokens: int
) -> list[tuple[Written, Written]]:
    """Each prompt's answer without and with speculation, in turns."""
    name = recipe.aggregator.model
    pair = engine(recipe, name), engine(recipe, name, speculation=speculation)
    found: list[tuple[Written, Written]] = []
    async with AsyncExitStack() as stack:
        for each in pair:
            await each.start()
            stack.push_async_callback(each.stop)
        for n, prompt in enumerate(prompts):
            order = pair if n % 2 == 0 else pair[::-1]
            answers = [await write(each, prompt, tokens) for each in order]
            found.append((answers[n % 2], answers[1 - n % 2]))
            plain, fast = found[-1]
            line = f"{plain.tokens} tokens, {_rate(plain):.1f} and {_rate(fast):.1f} tokens/s"
            typer.echo(f"row {n + 1}: {line}, equal: {plain.text == fast.text}", err=True)
    return found


def main(
    *,
    config: Annotated[str, typer.Option(help="A recipe's path, or a preset's name.")] = "tiny_cpu",
    method: Annotated[
        Literal["ngram", "draft"], typer.Option(help="How tokens are guessed.")
    ] = "ngram",
    draft: Annotated[Path | None, typer.Option(help="The GGUF file of the draft model.")] = None,
    tokens: Annotated[int, typer.Option(help="Most tokens that are guessed at a time.")] = 8,
    match: Annotated[int, typer.Option(help="With ngram: tokens that have to occur before.")] = 3,
    most: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 256,
    rows: Annotated[int, typer.Option(min=1, help="Questions.")] = 5,
    questions: Annotated[Path | None, typer.Option(help="Questions of AlpacaEval.")] = None,
    proposals: Annotated[list[Path] | None, typer.Option(help="Answers of AlpacaEval.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """What speculation gains on aggregations; some minutes."""
    recipe = load(config)
    if questions is not None and proposals:
        asked, references = read_rows(questions, proposals, rows)
    else:
        asked = [QUESTIONS[n % len(QUESTIONS)] for n in range(rows)]
        references = asyncio.run(own_proposals(recipe, asked))
    prompts = [
        with_references([Message(role="user", content=question)], texts, recipe.references)
        for question, texts in zip(asked, references, strict=True)
    ]
    settings: dict[str, Any] = {"method": method, "tokens": tokens}
    if method == "draft":
        settings |= {"draft": [{"path": str(draft)}]}
    else:
        settings |= {"match_tokens": match}
    pairs = asyncio.run(measure(recipe, Speculation.model_validate(settings), prompts, most))
    table: list[dict[str, Any]] = [
        {
            "row": n,
            "tokens": plain.tokens,
            "tokens/s without": round(_rate(plain), 1),
            "with": round(_rate(fast), 1),
            "ratio": round(_rate(fast) / _rate(plain), 2),
            "equal": plain.text == fast.text,
        }
        for n, (plain, fast) in enumerate(pairs, 1)
    ]
    plain, fast = (_together([pair[n] for pair in pairs]) for n in (0, 1))
    table.append(
        {
            "row": "all",
            "tokens": plain.tokens,
            "tokens/s without": round(_rate(plain), 1),
            "with": round(_rate(fast), 1),
            "ratio": round(_rate(fast) / _rate(plain), 2),
            "equal": all(one.text == other.text for one, other in pairs),
        }
    )
    differ = sum(one.text != other.text for one, other in pairs)
    limits = [Limit("answers that differ", differ, 0)]
    report(f"{recipe.aggregator.model} as aggregator, speculation by {method}", table, limits, json)


def _rate(written: Written) -> float:
    return max(0, written.tokens - 1) / max(1e-9, written.seconds)


def _together(answers: list[Written]) -> Written:
    return Written("", sum(a.tokens - 1 for a in answers) + 1, sum(a.seconds for a in answers))


if __name__ == "__main__":
    run(main)
