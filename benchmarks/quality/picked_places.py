"""Picks of a model among texts: which places and lengths it prefers, and what its picks are worth."""

import asyncio
import csv
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.engine import Message
from benchmarks.quality.local_models import LocalModels
from benchmarks.quality.published_outputs import find_outputs
from configs.schema import Recipe
from jobs.identity import has_own_defaults, recipe_identities
from jobs.scores.paired import share
from jobs.store import Store
from jobs.stored_calls import StoredCalls, StoredModels
from serve_app.mixture.aggregation_task import AggregationTask
from serve_app.mixture.events import Call, ProposalDone
from serve_app.mixture.select import orders, pick, questions
from serve_app.mixture.short_calls import Shares, ask_side_by_side

AT_A_TIME = 2


@dataclass(frozen=True, slots=True)
class PanelRow:
    """One prompt, the outputs of all models, and how good each is if that was judged."""

    index: int
    prompt: str
    texts: tuple[str, ...]
    worth: tuple[float, ...] | None
    """The preference for each output against the same baseline, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Texts of several writers to the same prompts, such as published outputs of models."""

    names: tuple[str, ...]
    rows: tuple[PanelRow, ...]
    are_models: bool = True
    """Whether the writers are models, so that one could always take the texts of the best writer."""


def _lines(path: Path) -> list[dict[str, object]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    if text.lstrip().startswith("["):
        return list(json.loads(text))
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def read_panel(
    outputs: Path,
    dataset: Path,
    names: Sequence[str],
    preferences: Path | None,
    count: int,
    longest: int,
) -> Panel:
    """The first rows whose outputs together have at most `longest` characters."""
    files = dict(find_outputs(outputs))
    prompts = [str(line["instruction"]) for line in _lines(dataset)]
    texts = [[str(line["output"]) for line in _lines(files[name])] for name in names]
    judged: dict[tuple[str, int], float] = {}
    if preferences is not None:
        data = preferences.read_bytes()
        plain = (gzip.decompress(data) if preferences.suffix == ".gz" else data).decode()
        for line in csv.DictReader(plain.splitlines()):
            judged[line["generator"], int(line["index"])] = float(line["preference"]) - 1
    rows = []
    for n, prompt in enumerate(prompts):
        shown = tuple(model[n] for model in texts)
        worths = [judged.get((name, n)) for name in names]
        worth = None if None in worths else tuple(w for w in worths if w is not None)
        if sum(map(len, shown)) <= longest:
            rows.append(PanelRow(n, prompt, shown, worth))
    return Panel(tuple(names), tuple(rows[:count]))


async def pick_all(run: Path, recipe: Recipe, panel: Panel) -> None:
    """Ask for a pick in each row that has none yet."""
    file = run / "picks.jsonl"
    known = {each["row"] for each in _lines(file)} if file.exists() else set()
    identities = recipe_identities(recipe)
    own = [name for name in recipe.models if has_own_defaults(recipe.models[name])]
    limits = {name: model.concurrency for name, model in recipe.models.items()}
    free = asyncio.Semaphore(AT_A_TIME)
    with Store.open(run) as store:
        async with (
            LocalModels(recipe) as models,
            StoredCalls(store, models, identities, limits, own_defaults=own) as calls,
        ):

            async def one(row: PanelRow) -> None:
                async with free:
                    replies = await _replies(row, recipe, panel, StoredModels(calls))
                with file.open("a", encoding="utf-8") as out:
                    out.write(json.dumps({"row": row.index, "replies": replies}) + "\n")

            await asyncio.gather(*(one(row) for row in panel.rows if row.index not in known))


async def _replies(
    row: PanelRow, recipe: Recipe, panel: Panel, models: StoredModels
) -> list[Shares | None]:
    call = Call("", "proposer", 0, 0, 0.0)
    proposals = [
        ProposalDone(1, n, name, text, 0.0, call)
        for n, (name, text) in enumerate(zip(panel.names, row.texts, strict=True))
    ]
    task = AggregationTask(
        recipe=recipe,
        role="aggregator",
        messages=[Message(role="user", content=row.prompt)],
        models=(recipe.aggregator.model,),
        references=(),
        best=None,
        sampling=recipe.aggregator.sampling,
        deadline=float("inf"),
        first_token_timeout_s=None,
        streamed=False,
    )
    found = await ask_side_by_side(questions(proposals), recipe.aggregator.model, task, models)
    return found.shares


def print_picks(run: Path, panel: Panel, model: str) -> None:
    """Print how the model has picked so far."""
    by_row = {row.index: row for row in panel.rows}
    replies: dict[int, list[Shares | None]] = {
        int(str(each["row"])): each["replies"]  # type: ignore[misc]
        for each in _lines(run / "picks.jsonl")
    }
    rows = [by_row[n] for n in sorted(replies) if n in by_row]
    readings = [reply for row in rows for reply in replies[row.index] if reply is not None]
    print(f"{model} picks among {', '.join(panel.names)}")
    print(
        f"{len(rows)} rows, {len(readings)} of {len(rows) * len(orders(len(panel.names)))} replies read"
    )
    if not readings:
        return
    _print_places(readings, len(panel.names))
    picks = {row.index: found for row in rows if (found := pick(replies[row.index])) is not None}
    chosen = [(by_row[n], found.ranking[0]) for n, found in picks.items()]
    _print_lengths(chosen, panel.names)
    leads = sorted(found.lead for found in picks.values())
    print(f"lead of the best over the second: median {leads[len(leads) // 2]:.2f}")
    _print_worth([(row.worth, n) for row, n in chosen if row.worth is not None], panel)


def _print_places(readings: Sequence[Shares], count: int) -> None:
    """How much the model likes each place, over all orders. Without a liking all are equal."""
    likeliest = [max(reply, key=reply.__getitem__) for reply in readings]
    print("| place | mean probability | the likeliest in, % (95%) |")
    print("| --: | --: | --- |")
    for place in range(1, count + 1):
        mass = sum(reply[str(place)] for reply in readings) / len(readings)
        often = share([each == str(place) for each in likeliest]).percent()
        print(f"| {place} | {mass:.3f} | {often} |")


def _print_lengths(chosen: Sequence[tuple[PanelRow, int]], names: Sequence[str]) -> None:
    lengths = [[len(text) for text in row.texts] for row, _ in chosen]
    longest = [each.index(max(each)) for each in lengths]
    same = share([n == number for n, (_, number) in zip(longest, chosen, strict=True)])
    print(f"all orders together pick the longest text in {same.percent()}% of {len(chosen)} rows")
    for n, name in enumerate(names):
        picked = share([number == n for _, number in chosen]).percent()
        print(
            f"{name}: picked in {picked}%, the longest in {share([k == n for k in longest]).percent()}%"
        )


def _print_worth(judged: Sequence[tuple[tuple[float, ...], int]], panel: Panel) -> None:
    if not judged:
        print("no judgements of these models are known, so nothing says whether the picks are good")
        return
    count = len(panel.names)
    contested = [(worth, number) for worth, number in judged if len(set(worth)) > 1]
    means = [100 * sum(worth[n] for worth, _ in judged) / len(judged) for n in range(count)]
    oracle = 100 * sum(max(worth) for worth, _ in judged) / len(judged)
    got = 100 * sum(worth[number] for worth, number in judged) / len(judged)
    right = share([worth[number] == max(worth) for worth, number in contested]).percent()
    chance = sum(worth.count(max(worth)) / count for worth, _ in contested) / max(1, len(contested))
    print(
        f"picks the best in {right}% of {len(contested)} rows whose texts differ in worth; chance is "
        f"{100 * chance:.0f}%"
    )
    always = f"always the best model {max(means):.1f}, " if panel.are_models else ""
    print(
        f"worth: picks {got:.1f}, {always}a random text {sum(means) / count:.1f}, the oracle "
        f"{oracle:.1f} (regret {oracle - got:.1f})"
    )
