"""What the overlap (docs/overlap.md), in which the aggregator reads proposals early, gains and costs.

    python -m benchmarks.speed.overlap answers RUN [--config tiny_cpu] [--panel apart] [--style tail]
        [--order seeded] [--questions 30] [--minutes 4]
    python -m benchmarks.speed.overlap table RUN
    python -m benchmarks.speed.overlap load [--json FILE]

`answers` has the models of `tiny_cpu` or `vllm_cpu` answer each question twice, once without overlap
(cold) and once with it (warm), with the same seed. RUN keeps each answer, so a later command goes on
where the last command ended. In the panel `apart`, SmolLM2 gives two proposals of at most 150 and 250
tokens, and Qwen only aggregates. The panel `own` is the recipe as it is: SmolLM2 and Qwen propose, and
Qwen aggregates.

The replicas run in this process, without Ray. Ray would only carry the messages, which takes about a
millisecond, and the start of Ray would take 20 s in each command. No engine may see a question twice,
because it would have the prompt in its cache. So the engines start anew before a question comes back.

`load` asks scripted engines for 1, 8 and 32 answers at once, in turns with and without overlap.
"""

import asyncio
import itertools
import json as json_format
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import typer

from actors.engine import NONE, Delta, Message
from actors.replica import Replica
from benchmarks.shared.harness import QUESTIONS, report
from benchmarks.speed.overlap_figures import Answer, Variant, print_table, read_answers
from configs.load import load as load_recipe
from configs.schema import Recipe, Sampling
from jobs.sets.checkable import rows as questions_of
from serve_app.mixture.events import AnswerDelta, AnswerDone, ProposalDone
from serve_app.mixture.moa import answer

app = typer.Typer(no_args_is_help=True, add_completion=False)
ANSWER_TOKENS = 24
"""Most tokens of an answer. The overlap ends before the answer begins. So if the answer is short, the
cost of the overlap is a larger share of the whole time."""
PROPOSAL_TOKENS = 150, 250
"""Most tokens of SmolLM2's proposals in the panel `apart`."""
PROMPT = "Write about this at length:"
"""The beginning of each question, so that the small models write long proposals."""
CHUNK = 5
"""Number of questions after which the engines start anew."""
LOADS = 1, 8, 32
"""How many answers `load` asks for at once."""
Mode = Literal["off", "on"]
MODES: tuple[Mode, Mode] = ("off", "on")


class Replicas:
    """`serve_app.mixture.models.Models` over replicas of this process, which all start together."""

    def __init__(self, recipe: Recipe) -> None:
        queue = 64
        self._replicas = {name: Replica(name, model, queue) for name, model in recipe.models.items()}

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(replica.start() for replica in self._replicas.values()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(replica.stop() for replica in self._replicas.values()))

    def __getitem__(self, model: str) -> Replica:
        return self._replicas[model]

    def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncIterator[Delta]:
        return self._replicas[model].stream(messages, sampling, streamed)

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await self._replicas[model].complete(messages, sampling)

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return await self._replicas[model].count_tokens(messages, template)

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        return await self._replicas[model].token_ends(texts)

    async def warm(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int | None:
        return await self._replicas[model].warm(messages, template)

    async def is_alive(self, _model: str) -> bool:
        return True


def panel_recipe(config: str, panel: str, style: str, order: str, mode: Mode) -> Recipe:
    """The recipe with the roles of a panel, a style, an order and a mode.

    Each engine has one of two cores, as the planner would divide them.
    """
    data = load_recipe(config).model_dump()
    small, large = data["models"]
    for model in data["models"].values():
        if "threads" in model:
            model["threads"] = 1
    if panel == "apart":
        sampling = {"temperature": 0.7}
        data["layers"] = [
            {
                "proposers": [
                    {"model": small, "sampling": sampling | {"max_tokens": most}}
                    for most in PROPOSAL_TOKENS
                ]
            }
        ]
    data["aggregator"] = {
        "model": large,
        "sampling": {"temperature": 0, "max_tokens": ANSWER_TOKENS},
        "overlap": mode,
    }
    data["references"] |= {"style": style, "order": order}
    return Recipe.model_validate(data)


async def ask(recipe: Recipe, models: Replicas, question: str, seed: int) -> dict[str, Any]:
    """Answer one question, and return the figures of the answer."""
    aggregator = recipe.aggregator.model
    before = await models[aggregator].stats()
    began = time.perf_counter()
    last = first = began
    text: list[str] = []
    proposals: dict[int, str] = {}
    messages = [Message(role="user", content=question)]
    async for event in answer(messages, recipe, models, seed=seed, stream_proposals=True):
        if isinstance(event, ProposalDone):
            last = time.perf_counter()
            proposals[event.place] = event.text
        elif isinstance(event, AnswerDelta):
            if not text and event.delta.text:
                first = time.perf_counter()
            text.append(event.delta.text)
        elif isinstance(event, AnswerDone):
            summary = event.summary
    ended = time.perf_counter()
    call, after = summary.answered.call, await models[aggregator].stats()
    assert call is not None
    return {
        "last_s": last - began,
        "ttft_s": first - last,
        "whole_s": ended - began,
        "prompt_tokens": call.prompt_tokens,
        "cached_tokens": call.cached_tokens,
        "written_tokens": call.completion_tokens,
        "warmed_tokens": after.warmed_tokens - before.warmed_tokens,
        "cancelled": after.warm_cancelled - before.warm_cancelled,
        "text": "".join(text),
        "proposals": [proposals[place] for place in sorted(proposals)],
        "arrived": list(proposals),
        "read": [each.place for each in summary.stages[-1].references],
    }


async def answer_all(file: Path, variant: Variant, asked: Sequence[str], until: float) -> None:
    """Answer the questions that are not answered yet, until a time. The modes take turns."""
    config, panel, style, order = variant
    known = {(*each.variant, each.mode, each.question) for each in read_answers(file)}
    numbers = range(len(asked))
    chunks = [numbers[at : at + CHUNK] for at in numbers[::CHUNK]]
    for chunk, first in itertools.product(chunks, range(2)):
        todo = [(n, MODES[(n + first) % 2]) for n in chunk]
        todo = [(n, mode) for n, mode in todo if (*variant, mode, n) not in known]
        if not todo or time.monotonic() > until:
            continue
        recipes = {mode: panel_recipe(config, panel, style, order, mode) for mode in MODES}
        async with Replicas(recipes["off"]) as models:
            # The first call of an engine takes longer than those that follow.
            for name in recipes["off"].models:
                hello = [Message(role="user", content=QUESTIONS[0])]
                await models.complete(name, hello, Sampling(max_tokens=4))
            for n, mode in todo:
                if time.monotonic() > until:
                    return
                got = await ask(recipes[mode], models, f"{PROMPT} {asked[n]}", seed=n)
                found = Answer(*variant, mode=mode, question=n, **got)
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json_format.dumps(found.to_json()) + "\n")


@app.command()
def answers(
    run: Annotated[Path, typer.Argument(help="Folder that keeps the answers.")],
    *,
    config: Annotated[str, typer.Option(help="tiny_cpu or vllm_cpu.")] = "tiny_cpu",
    panel: Annotated[str, typer.Option(help="apart or own: see above.")] = "apart",
    style: Annotated[str, typer.Option(help="References' style: system or tail.")] = "tail",
    order: Annotated[str, typer.Option(help="References' order: seeded or arrival.")] = "seeded",
    questions: Annotated[int, typer.Option(min=1, max=100, help="How many of TruthfulQA.")] = 30,
    minutes: Annotated[float, typer.Option(min=0.1, help="Begin no answer after that time.")] = 4,
) -> None:
    """Answer questions cold and warm."""
    run.mkdir(parents=True, exist_ok=True)
    asked = [row.turns[0].splitlines()[0] for row in questions_of("truthfulqa")[:questions]]
    until = time.monotonic() + 60 * minutes
    asyncio.run(answer_all(run / "overlap.jsonl", (config, panel, style, order), asked, until))


@app.command()
def table(run: Annotated[Path, typer.Argument(help="Folder that keeps the answers.")]) -> None:
    """Print the figures of the answers in the folder."""
    print_table(read_answers(run / "overlap.jsonl"))


def load_of(mode: Mode) -> Recipe:
    """Three proposers of 100, 150 and 200 tokens in 0.3 to 0.6 s, and an aggregator that reads for
    0.2 s; each engine takes eight calls at once."""
    engine = {"engine": "scripted", "concurrency": 8, "token_s": 0.003}
    lengths = {"a": 100, "b": 150, "c": 200}
    names = {name: engine | {"tokens": most, "first_token_s": 0.01} for name, most in lengths.items()}
    models = {**names, "z": engine | {"tokens": 60, "first_token_s": 0.2, "context_tokens": 8192}}
    return Recipe.model_validate(
        {
            "name": "load",
            "models": models,
            "layers": [{"proposers": [{"model": name} for name in lengths]}],
            "aggregator": {"model": "z", "overlap": {"off": "off", "on": "auto"}[mode]},
        }
    )


async def one_load(concurrency: int, mode: Mode, answers: int) -> dict[str, float]:
    """The figures of a number of answers, of which `concurrency` are asked for at once."""
    recipe = load_of(mode)
    messages = [Message(role="user", content=QUESTIONS[0])]
    left = list(range(answers))
    firsts: list[float] = []
    async with Replicas(recipe) as models:

        async def client() -> None:
            while left:
                left.pop()
                async for event in answer(messages, recipe, models, stream_proposals=True):
                    if isinstance(event, AnswerDone):
                        firsts.append(event.summary.answered.first_s or 0.0)

        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client() for _ in range(concurrency)))
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        stats = await models["z"].stats()
    return {
        "answers/s": answers / took_s,
        "CPU ms": 1000 * cpu_s / answers,
        "first s": sorted(firsts)[len(firsts) // 2],
        "warmed": stats.warmed_tokens / answers,
        "cancelled": stats.warm_cancelled / answers,
    }


@app.command()
def load(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Blocks of each kind.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """What the overlap does and costs under load, with scripted engines."""
    found = []
    for concurrency in LOADS:
        blocks: dict[Mode, list[dict[str, float]]] = {"off": [], "on": []}
        for number in range(rounds):
            for mode in MODES if number % 2 else MODES[::-1]:
                blocks[mode].append(asyncio.run(one_load(concurrency, mode, max(4, 3 * concurrency))))
        for mode, of_mode in blocks.items():
            mean = {name: sum(each[name] for each in of_mode) / rounds for name in of_mode[0]}
            found.append({"concurrency": concurrency, "overlap": mode, **mean})
    report("Overlap under load (scripted engines)", found, [], json)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        app()
