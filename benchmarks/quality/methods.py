"""Which way to one answer is best: merge, pick, vote, stop early, or the best member alone?

    python -m benchmarks.quality.methods questions RUN [--config small_cpu] [--set gsm8k] [--rows 100]
        [--samples 3] [--brief] [--minutes 4]
    python -m benchmarks.quality.methods seconds RUN [--rows 3]
    python -m benchmarks.quality.methods table RUN
    python -m benchmarks.quality.methods places RUN --outputs FOLDER --set FILE [--rows 300]
        [--preferences FILE] [--config small_cpu] [--minutes 4]
    python -m benchmarks.quality.methods options RUN [--set hellaswag] [--of 4] [--rows 100]
        [--config small_cpu] [--minutes 4]
    python -m benchmarks.quality.methods stored RUN QUESTIONS [--config small_cpu] [--minutes 4]

`questions`: each model of the recipe's first layer gives its samples to each question of a set
whose answers can be checked (`jobs/sets/checkable.py`). All methods work over the same stored
proposals, paired question by question. RUN is a folder that keeps every call: the command goes on
where it ended, so the work can be done in pieces (`--minutes`). `seconds` answers a few questions anew,
one at a time and without the stored calls, and takes the time. `table` prints what is there.

`places`: the recipe's aggregator picks among published outputs (`outputs_NAME.jsonl.gz`, or those of
AlpacaEval's `results`), in every cyclic order. The table says how often it picks the first place and
the longest text. With judgements of the same models (`--preferences`) it also says how often it picks
the better one, and what that is worth beside always taking the best model.

`options` and `stored` do the same with texts for which it is known whether they are right. `options`
takes the options of a set's questions, and `stored` takes the proposals that `questions` has stored.

There is no limit: the tables are to be read, with their intervals.
"""

import asyncio
import itertools
import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.engine import Message
from benchmarks.quality.known_panels import briefly
from benchmarks.quality.known_panels import options as options_of
from benchmarks.quality.known_panels import stored as stored_of
from benchmarks.quality.local_models import LocalModels
from benchmarks.quality.method_figures import BEST, Result, print_table, read_results, read_seconds
from benchmarks.quality.picked_places import Panel, pick_all, print_picks, read_panel
from benchmarks.shared.harness import hardware
from configs.load import load
from configs.schema import Recipe, Sampling
from jobs.generate import row_seed
from jobs.identity import has_own_defaults, recipe_identities
from jobs.records import Row
from jobs.sets.checkable import SETS, rows
from jobs.store import Store
from jobs.stored_calls import StoredCalls, StoredModels
from serve_app.mixture.events import AnswerDelta, AnswerDone, ProposalDone
from serve_app.mixture.moa import answer

app = typer.Typer(no_args_is_help=True, add_completion=False)
FORMS = {name: about.form for name, about in SETS.items() if about.form is not None}
"""Where the answers of each set stand that needs no judge."""


def variants(recipe: Recipe, samples: int | None, form: Any) -> dict[str, Recipe]:
    """The methods that are compared, as recipes over the same proposals.

    The best member alone answers with as many samples as all members together give, so that a vote of
    the mixture and a vote of the best member cost the same calls.
    """
    data = recipe.model_dump()
    layer = data["layers"][0]
    for proposer in layer["proposers"]:
        proposer["samples"] = samples or proposer["samples"]
        proposer["sampling"]["top_logprobs"] = 0  # `first` and votes look at them
    total = sum(proposer["samples"] for proposer in layer["proposers"])
    base = {**data, "layers": [layer], "access": {}}
    best = {**layer["proposers"][0], "samples": total}
    alone = {**base, "layers": [{"proposers": [best]}]}

    def made(of: dict[str, Any], **changes: Any) -> Recipe:
        aggregator = {**of["aggregator"], "fallbacks": ()} | changes.pop("aggregator", {})
        limits = {**of["limits"], "quorum": 1, "grace_s": None}
        recipe = Recipe.model_validate(of | {"aggregator": aggregator, "limits": limits} | changes)
        patient = recipe.limits.model_copy(
            update={"deadline_s": math.inf, "layer_deadline_s": math.inf}
        )
        return recipe.model_copy(update={"limits": patient})

    votes = {"method": "vote", "answer": form}
    return {
        "vote": made(base, aggregator=votes),
        "best, vote of as many": made(alone, aggregator=votes),
        "exit, else vote": made(base, exit={"answer": form, "agree": 2}, aggregator=votes),
        "merge": made(base),
        "select": made(base, aggregator={"method": "select"}),
        "select_or_merge": made(base, aggregator={"method": "select_or_merge"}),
        "merge, guard": made(base, aggregator={"guard": True}),
        "best, merge of as many (Self-MoA)": made(alone),
    }


class Worker:
    """Answers questions with methods, and appends each answer to a file.

    All questions of a method are asked at once. So each model has its whole batch in its queue, and the
    models need not take turns question by question.
    """

    def __init__(self, store: Store, calls: StoredCalls, file: Path) -> None:
        self._store = store
        self._calls = calls
        self._file = file
        self._known = {(each.method, each.row) for each in read_results(file)}

    async def answer_all(self, methods: dict[str, Recipe], asked: Sequence[Row]) -> None:
        for name, recipe in methods.items():
            todo = [row for row in asked if (name, row.index) not in self._known]
            await asyncio.gather(*(self._answer(name, recipe, row) for row in todo))

    async def _answer(self, name: str, recipe: Recipe, row: Row) -> None:
        models = StoredModels(self._calls)
        messages = [Message(role="user", content=row.turns[0])]
        text: list[str] = []
        proposals: list[ProposalDone] = []
        # The same seed for all methods, so that their proposals are the same calls.
        stream = answer(messages, recipe, models, seed=row_seed(0, row, 0), stream_proposals=False)
        async for event in stream:
            if isinstance(event, AnswerDelta):
                text.append(event.delta.text)
            elif isinstance(event, ProposalDone):
                proposals.append(event)
            elif isinstance(event, AnswerDone):
                result = Result.of(name, row, "".join(text), proposals, event.summary)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result.to_json()) + "\n")


async def work(run: Path, recipe: Recipe, methods: dict[str, Recipe], asked: Sequence[Row]) -> None:
    """Answer what is not answered yet."""
    identities = recipe_identities(recipe)
    own = [name for name in recipe.models if has_own_defaults(recipe.models[name])]
    limits = {name: model.concurrency for name, model in recipe.models.items()}
    with Store.open(run) as store:
        async with (
            LocalModels(recipe) as models,
            StoredCalls(store, models, identities, limits, own_defaults=own) as calls,
        ):
            await Worker(store, calls, run / "methods.jsonl").answer_all(methods, asked)


def within(minutes: float, task: Any) -> None:
    """Run a task, and end it after so many minutes: what is stored stays."""

    async def limited() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(60 * minutes):
                await task

    asyncio.run(limited())


@app.command()
def questions(
    run: Annotated[Path, typer.Argument(help="Folder that keeps calls and answers.")],
    config: Annotated[
        str, typer.Option(help="Recipe: its first layer and its aggregator.")
    ] = "small_cpu",
    dataset: Annotated[str, typer.Option("--set", help=", ".join(FORMS))] = "gsm8k",
    count: Annotated[int, typer.Option("--rows", help="Questions of the set.")] = 100,
    samples: Annotated[
        int | None, typer.Option(help="Samples of each member; by default those of the recipe.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Only this method.")] = None,
    brief: Annotated[bool, typer.Option(help="Ask for lines of calculation without words.")] = False,
    minutes: Annotated[float, typer.Option(help="End after so long.")] = 60.0,
) -> None:
    """Answer checkable questions with every method, over the same proposals."""
    run.mkdir(parents=True, exist_ok=True)
    recipe = load(config)
    methods = variants(recipe, samples, FORMS[dataset])
    asked = rows(dataset, count)
    if brief:
        asked = [briefly(row) for row in asked]
    members = methods["vote"].layers[0].samples_by_model()
    about = {"set": dataset, "config": config, "samples": members, "brief": brief, "wanted": samples}
    (run / "about.json").write_text(json.dumps(about))
    wanted = {only: methods[only]} if only is not None else methods
    within(minutes, work(run, recipe, wanted, asked))
    table(run)


@app.command()
def seconds(
    run: Annotated[Path, typer.Argument(help="Folder of `questions`.")],
    count: Annotated[int, typer.Option("--rows", help="Questions for each method.")] = 3,
) -> None:
    """Take the time of each method, one question at a time and one model at a time. Each method has
    questions of its own: an engine that has read a question keeps it, and would be faster next time."""
    about = json.loads((run / "about.json").read_text())
    recipe = load(about["config"])
    methods = variants(recipe, about["wanted"], FORMS[about["set"]])
    best = methods["vote"].layers[0].proposers[0]
    asked = rows(about["set"], count * (1 + len(methods)))

    async def take() -> None:
        async with LocalModels(recipe) as models:
            for name in recipe.models:  # an engine's first call takes longer
                hello = [Message(role="user", content="Hi")]
                await models.complete(name, hello, Sampling(max_tokens=1))
            for row, name in zip(asked, itertools.cycle([BEST, *methods]), strict=False):
                question = briefly(row).turns[0] if about["brief"] else row.turns[0]
                messages = [Message(role="user", content=question)]
                began = time.perf_counter()
                if name == BEST:
                    await models.complete(best.model, messages, best.sampling)
                else:
                    async for _ in answer(messages, methods[name], models, seed=row_seed(0, row, 0)):
                        pass
                took = {"method": name, "row": row.index, "s": time.perf_counter() - began}
                with (run / "seconds.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(took) + "\n")

    asyncio.run(take())
    table(run)


@app.command()
def table(run: Annotated[Path, typer.Argument(help="Folder of `questions`.")]) -> None:
    """Print what is there, with intervals."""
    about = json.loads((run / "about.json").read_text())
    seconds = read_seconds(run / "seconds.jsonl")
    print_table(read_results(run / "methods.jsonl"), FORMS[about["set"]], about, seconds)
    print(hardware())


@app.command()
def places(
    run: Annotated[Path, typer.Argument(help="Folder that keeps the calls.")],
    outputs: Annotated[Path, typer.Option(help="Folder of published outputs.")],
    dataset: Annotated[Path, typer.Option("--set", help="AlpacaEval's prompts.")],
    generator: Annotated[list[str], typer.Option(help="Whose outputs; give two or more.")],
    preferences: Annotated[Path | None, typer.Option(help="Judgements of the same models.")] = None,
    config: Annotated[str, typer.Option(help="Recipe: its aggregator picks.")] = "small_cpu",
    count: Annotated[int, typer.Option("--rows", help="Rows of the set.")] = 300,
    longest: Annotated[int, typer.Option(help="Leave out rows with more characters than this.")] = 6000,
    minutes: Annotated[float, typer.Option(help="End after so long.")] = 60.0,
) -> None:
    """Have the aggregator pick among published outputs, in every cyclic order."""
    recipe = load(config)
    panel = read_panel(outputs, dataset, generator, preferences, count, longest)
    _pick_among(panel, run, recipe, minutes)


@app.command()
def options(
    run: Annotated[Path, typer.Argument(help="Folder that keeps the calls.")],
    dataset: Annotated[str, typer.Option("--set", help="hellaswag, truthfulqa")] = "hellaswag",
    of: Annotated[int, typer.Option(min=2, max=4, help="Options of each question to pick from.")] = 4,
    config: Annotated[str, typer.Option(help="Recipe: its aggregator picks.")] = "small_cpu",
    count: Annotated[int, typer.Option("--rows", help="Questions of the set.")] = 100,
    minutes: Annotated[float, typer.Option(help="End after so long.")] = 60.0,
) -> None:
    """Have the aggregator pick among the options of questions, in every cyclic order."""
    _pick_among(options_of(dataset, count, of), run, load(config), minutes)


@app.command()
def stored(
    run: Annotated[Path, typer.Argument(help="Folder that keeps the calls.")],
    asked: Annotated[Path, typer.Argument(help="Folder of `questions`.")],
    config: Annotated[str, typer.Option(help="Recipe: its aggregator picks.")] = "small_cpu",
    minutes: Annotated[float, typer.Option(help="End after so long.")] = 60.0,
) -> None:
    """Have the aggregator pick among stored proposals, in every cyclic order."""
    about = json.loads((asked / "about.json").read_text())
    panel = stored_of(asked, about["set"], FORMS[about["set"]], brief=about["brief"])
    _pick_among(panel, run, load(config), minutes)


def _pick_among(panel: Panel, run: Path, recipe: Recipe, minutes: float) -> None:
    run.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    within(minutes, pick_all(run, recipe, panel))
    print_picks(run, panel, recipe.aggregator.model)
    print(f"{time.monotonic() - began:.0f} s. {hardware()}")


if __name__ == "__main__":
    app()
