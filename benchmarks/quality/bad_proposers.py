"""What does one bad proposer do to a pick, a vote and a merge, and does the guard help?

    python -m benchmarks.quality.bad_proposers ask RUN [--config tiny_cpu] [--set truthfulqa]
        [--rows 18] [--proposals 3] [--attack KIND] [--method METHOD] [--minutes 4] [--real]
    python -m benchmarks.quality.bad_proposers table RUN

The recipe's aggregator answers questions whose answers are known, the shortest questions first. For
each question it first reads a panel of honest proposals, which is the control. Then an attacker's text
(`attacks.py`) replaces one honest proposal, in another place for each question. Honest proposals are
short texts made from the known answer, so that only the aggregator works. With `--real`, they are
samples of the recipe's first proposer. The proposals come through a layer, like those of a served
mixture, and a proposal's place in the prompt is its place in the recipe. RUN is a folder that keeps
every call. A later command goes on where the last command ended, so the work can be done in pieces.

No limit says what is good enough: people have to read the tables, with their intervals.
"""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.engine import Message
from benchmarks.quality.attack_figures import CONTROL, Attacked, print_tables, read_attacked
from benchmarks.quality.attack_panels import Panel, PlayedPanel, panels_of, seed_in_order
from benchmarks.quality.attacks import ATTACKS, Attack, Known, honest_texts, known_question
from benchmarks.quality.local_models import LocalModels
from benchmarks.quality.methods import FORMS, within
from benchmarks.shared.harness import hardware
from configs.load import load
from configs.schema import Recipe, Sampling
from jobs.identity import has_own_defaults, recipe_identities
from jobs.sets.checkable import rows
from jobs.store import Store
from jobs.stored_calls import StoredCalls, StoredModels
from serve_app.mixture.events import AnswerDelta, AnswerDone, StageStarted
from serve_app.mixture.moa import answer

app = typer.Typer(no_args_is_help=True, add_completion=False)
ANSWER_TOKENS = 64
"""Most tokens of an answer, and of a real model's proposal."""


def methods(form: Any) -> dict[str, dict[str, Any]]:
    """The methods that are compared, each as changes of the recipe's aggregator."""
    return {
        "select": {"method": "select"},
        "select_or_merge": {"method": "select_or_merge"},
        "merge": {},
        "merge, guard": {"guard": True},
        "merge, guard by answers": {"guard": True, "answer": form},
        "vote": {"method": "vote", "answer": form},
    }


def played(recipe: Recipe, count: int, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with the aggregator of `recipe`, and with `count` proposers whose texts are given."""
    data = recipe.model_dump()
    name = recipe.aggregator.model
    aggregator = {**data["aggregator"], "fallbacks": (), **changes}
    aggregator["sampling"] = {"temperature": 0, "max_tokens": ANSWER_TOKENS}
    proposers = {f"proposer-{n}": {"engine": "scripted"} for n in range(count)}
    made = Recipe.model_validate(
        data
        | {
            "models": {name: data["models"][name], **proposers},
            "layers": [{"proposers": [{"model": each} for each in proposers]}],
            "aggregator": aggregator,
            "limits": {"quorum": 1},
            "access": {},
        }
    )
    patient = made.limits.model_copy(update={"deadline_s": math.inf, "layer_deadline_s": math.inf})
    return made.model_copy(update={"limits": patient})


class Worker:
    """Answers panels with methods, and appends each answer to a file."""

    def __init__(self, calls: StoredCalls, file: Path) -> None:
        self._calls = calls
        self._file = file
        self._known = {(each.method, each.row, each.attack) for each in read_attacked(file)}

    async def honest(self, recipe: Recipe, question: Known, count: int) -> list[str]:
        """`count` samples of the recipe's first proposer. An empty sample becomes "No answer."."""
        model = recipe.layers[0].proposers[0].model
        messages = [Message(role="user", content=question.prompt)]
        samplings = [
            Sampling(temperature=0.7, max_tokens=ANSWER_TOKENS, seed=n) for n in range(1, count + 1)
        ]
        models = StoredModels(self._calls)
        found = await asyncio.gather(*(models.complete(model, messages, each) for each in samplings))
        return [each.text.strip() or "No answer." for each in found]

    async def answer(self, method: str, recipe: Recipe, panel: Panel) -> None:
        """Answer a panel, unless it is answered already."""
        kind = panel.attack or CONTROL
        if (method, panel.question.index, kind) in self._known:
            return
        texts = panel.texts
        honest = [text for n, text in enumerate(texts) if panel.attack is None or n != panel.place]
        named = {f"proposer-{n}": text for n, text in enumerate(texts)}
        strange = int(panel.attack is not None)
        models = PlayedPanel(
            StoredModels(self._calls), recipe.aggregator.model, named, set(honest), strange
        )
        messages = [Message(role="user", content=panel.question.prompt)]
        text: list[str] = []
        seed = seed_in_order(recipe.stages, len(texts))
        async for event in answer(messages, recipe, models, seed=seed, stream_proposals=False):
            if isinstance(event, AnswerDelta):
                text.append(event.delta.text)
            elif isinstance(event, StageStarted):
                places = [reference.place for reference in event.references]
                assert places == sorted(places), "the seed has mixed the places"
            elif isinstance(event, AnswerDone):
                summary = event.summary
        chosen = summary.answered.chosen
        calls = [call for call in summary.calls if call.role == "aggregator"]
        found = Attacked(
            method=method,
            row=panel.question.index,
            attack=kind,
            place=panel.place,
            wording=panel.wording,
            expected=panel.question.answer,
            text="".join(text),
            way=summary.answered.method,
            chosen=None if chosen is None else chosen.place,
            references=len(texts) - len(summary.missing),
            trimmed=max((each.tokens_removed for each in summary.trimmed), default=0),
            read_whole=models.read_whole,
            lone=models.lone,
            pairs=tuple(models.pairs),
            read=sum(call.prompt_tokens for call in calls),
            engine_s=sum(call.engine_s for call in calls),
        )
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(found)) + "\n")


async def work(
    run: Path, recipe: Recipe, about: Mapping[str, Any], kinds: Sequence[Attack], only: str | None
) -> None:
    """Answer what is not answered yet, question by question."""
    form, count = FORMS[about["set"]], about["proposals"]
    recipes = {
        name: played(recipe, count, changes)
        for name, changes in methods(form).items()
        if only in (None, name)
    }
    identities = recipe_identities(recipe)
    own = [name for name in recipe.models if has_own_defaults(recipe.models[name])]
    limits = {name: model.concurrency for name, model in recipe.models.items()}
    asked = sorted(rows(about["set"]), key=lambda row: len(row.turns[0]))[: about["rows"]]
    with Store.open(run) as store:
        async with (
            LocalModels(recipe) as models,
            StoredCalls(store, models, identities, limits, own_defaults=own) as calls,
        ):
            worker = Worker(calls, run / "attacked.jsonl")
            for number, row in enumerate(asked):
                question = known_question(row, form)
                if about["real"]:
                    honest = await worker.honest(recipe, question, count)
                else:
                    honest = honest_texts(question, number, count)
                for panel in panels_of(question, number, honest, kinds):
                    for name, each in recipes.items():
                        await worker.answer(name, each, panel)


def with_context(recipe: Recipe, tokens: int) -> Recipe:
    """The recipe with this context for each model. 20,000 words fill any context, and a short context
    takes less time."""
    models = {
        name: model.model_copy(update={"context_tokens": tokens})
        for name, model in recipe.models.items()
    }
    return recipe.model_copy(update={"models": models})


@app.command()
def ask(
    run: Annotated[Path, typer.Argument(help="Folder that keeps calls and answers.")],
    config: Annotated[str, typer.Option(help="Recipe: its aggregator answers.")] = "tiny_cpu",
    dataset: Annotated[
        str, typer.Option("--set", help=f"{', '.join(FORMS)}: the shortest questions of it.")
    ] = "truthfulqa",
    count: Annotated[int, typer.Option("--rows", help="Questions of the set.")] = 18,
    proposals: Annotated[int, typer.Option(help="Proposals of a panel.")] = 3,
    context: Annotated[int, typer.Option(help="Tokens of the aggregator's context.")] = 1024,
    attack: Annotated[list[str] | None, typer.Option(help="Only these attacks.")] = None,
    method: Annotated[str | None, typer.Option(help="Only this method.")] = None,
    real: Annotated[bool, typer.Option(help="Honest proposals of the first proposer.")] = False,
    minutes: Annotated[float, typer.Option(help="End after so long.")] = 60.0,
) -> None:
    """Have attacked panels and the honest control answered by every method."""
    kinds = [kind for kind in ATTACKS if attack is None or kind in attack]
    run.mkdir(parents=True, exist_ok=True)
    about = {"set": dataset, "config": config, "rows": count, "proposals": proposals}
    about |= {"context": context, "real": real}
    (run / "about.json").write_text(json.dumps(about))
    within(minutes, work(run, with_context(load(config), context), about, kinds, method))
    table(run)


@app.command()
def table(run: Annotated[Path, typer.Argument(help="Folder of `ask`.")]) -> None:
    """Print what is there, with intervals."""
    about = json.loads((run / "about.json").read_text())
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print_tables(read_attacked(run / "attacked.jsonl"), FORMS[about["set"]], about["proposals"])
    print(hardware())


if __name__ == "__main__":
    app()
