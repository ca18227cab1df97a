"""Ablations of scripted models whose true effects are known: do the findings hold the truth?

    python -m benchmarks.quality.known_effects [--ray] [--rows 400] [--seed 0] [--json FILE]

Answers and verdicts are made as in any run, but by models in this process (known_models.py);
the mixture, the store, the judge's prompt and the analysis are the real ones. With --ray the models are
behind a server, and `slimmoa bench run` and `slimmoa bench ablate` do the rest, each on its own Ray.
Each difference stands beside the true one, and how many intervals miss it is held against what chance
allows; calls are counted by the models, and none may be made twice.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import yaml
from pydantic import TypeAdapter
from scipy.stats import binom

from benchmarks.quality.known_models import (
    BASELINE,
    CANDIDATES,
    JUDGE,
    NAME,
    UNQUANTIZED,
    InProcess,
    questions,
    recipe,
    serving,
    true_win_rate,
)
from benchmarks.shared.harness import Limit, report, run
from jobs.ablation.ablate import PARTS, AblationTask, ablate
from jobs.ablation.effects import CONFIDENCE, Contrast, Estimate
from jobs.ablation.findings import Findings
from jobs.ablation.plan import plan
from jobs.generate import GenerateTask, generate
from jobs.identity import model_identity, to_generator
from jobs.judges.pairwise import PairwiseTask, judge_pairs
from jobs.store import Store
from jobs.stored_calls import StoredCalls
from jobs.variants import Variant, alone, self_moa

BY_CHANCE = 0.975  # of all runs miss no more truths than is allowed


@dataclass(frozen=True, slots=True)
class Checked:
    """A figure of the findings, and what it truly is."""

    what: str
    minus: str
    truth: float
    found: Estimate

    @property
    def held(self) -> bool:
        """Whether the interval contains the truth."""
        low, high = self.found.low, self.found.high
        return low is not None and high is not None and low <= self.truth <= high


async def findings(folder: Path, models: InProcess, rows: int, seed: int) -> Findings:
    """Of all parts, over so many rows, through a store in the folder."""
    base = recipe()
    identities = {name: model_identity(model) for name, model in base.models.items()}
    with Store.open(folder) as store:
        store.add_rows(questions(rows))
        async with StoredCalls(store, models, identities, dict.fromkeys(base.models, 64)) as calls:

            async def answered(variants: Sequence[Variant]) -> None:
                for variant in variants:
                    store.add_generator(to_generator(variant, identities, seed))
                await generate(GenerateTask(variants, seed), store, calls)

            async def judged(generators: Sequence[str]) -> None:
                for generator in generators:
                    await judge_pairs(PairwiseTask(JUDGE, generator, BASELINE), store, calls)

            await answered([alone(base, BASELINE)])
            return await ablate(task(), store, answered, judged)


async def findings_of_commands(
    folder: Path, models: InProcess, rows: int, seed: int, port: int = 0
) -> Findings:
    """As `findings`, by the command line; the models are behind a server in this process.

    Raises:
        RuntimeError: a command failed; the message has what it printed.
    """
    run_folder = str(folder / "run")
    async with serving(models, port) as url:
        files = written(folder, url, rows)
        await command("run", *files, "--out", run_folder, "--alone", BASELINE, "--seed", str(seed))
        return read(await command("ablate", run_folder, *_wanted(), "--json"))


def written(folder: Path, url: str, rows: int) -> list[str]:
    """The set and the recipe as files, and the options of `bench run` that name them."""
    set_file, recipe_file = folder / "set.json", folder / "recipe.yaml"
    set_file.write_text(json.dumps([{"instruction": row.turns[0]} for row in questions(rows)]), "utf-8")
    settings = recipe(url).model_dump(mode="json", exclude_defaults=True)
    recipe_file.write_text(yaml.safe_dump(settings), "utf-8")
    return ["--set", str(set_file), "--config", str(recipe_file)]


def _wanted() -> list[str]:
    """The options of `bench ablate` for all that `task` asks for."""
    unquantized = [f"{model}={whole}" for model, whole in UNQUANTIZED.items()]
    options = {"--part": PARTS, "--candidate": CANDIDATES, "--unquantized": unquantized}
    pairs = [(option, value) for option, values in options.items() for value in values]
    return ["--judge", JUDGE, "--baseline", BASELINE, *chain.from_iterable(pairs)]


async def command(*arguments: str) -> str:
    """What `slimmoa bench` prints on its standard output.

    Raises:
        RuntimeError: it failed; the message has what it printed.
    """
    whole = [sys.executable, "-m", "cli", "bench", *arguments]
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*whole, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"bench {arguments[0]} ended with {process.returncode}:\n{errors.decode()}")
    return output.decode()


def read(printed: str) -> Findings:
    """The findings that `bench ablate --json` printed, without scores and diversities."""
    without: dict[str, object] = {"scores": (), "diversities": None}
    return TypeAdapter(Findings).validate_python(json.loads(printed) | without)


def task() -> AblationTask:
    """All parts."""
    judge_name = PairwiseTask(JUDGE, NAME, BASELINE).judge_name
    return AblationTask(recipe(), BASELINE, judge_name, PARTS, CANDIDATES, UNQUANTIZED)


def checked(found: Findings) -> list[Checked]:
    """Every difference and the correlation, each beside its true value."""
    rates, planned = true_win_rates(), plan(task())
    contrasts = dict.fromkeys(_contrasts(found))
    checks = [Checked(c.what, c.minus, rates[c.what] - rates[c.minus], c.difference) for c in contrasts]
    if found.members is not None:
        truth = rates[NAME] - max(rates[member] for member in planned.members)
        checks.append(Checked(NAME, "best member", truth, found.members.over_best.difference))
    if found.correlation is not None:
        pairs = planned.aggregators.values()
        r = float(np.corrcoef([[rates[pair[side]] for pair in pairs] for side in (0, 1)])[0, 1])
        checks.append(Checked("correlation, alone and as aggregator", "", r, found.correlation.pearson))
    return checks


def fewest_calls(found: Findings, rows: int) -> Counter[str]:
    """By model, with nothing made twice.

    A proposal serves all variants and is also what its model answers alone; an aggregation serves one
    variant; the judge reads each answer once, and before a variant's it is tried.
    """
    base, variants = recipe(), list(plan(task()).variants.values())
    if found.members is not None and found.members.over_self_moa is not None:
        variants.append(self_moa(base, found.members.over_best.minus))
    first, last = Counter[str](), Counter[str]()
    for variant in (*variants, alone(base, BASELINE)):
        first |= _places(variant)
        if variant.model is None:
            last[variant.recipe.aggregator.model] += 1
    calls = {model: rows * n for model, n in (first + last).items()}
    return Counter(calls | {JUDGE: (rows + 1) * len(variants)})


def true_win_rates() -> dict[str, float]:
    """Percent against the baseline, of every generator that may take part."""
    base = recipe()
    selves = (self_moa(base, model) for model in CANDIDATES)
    return {v.name: true_win_rate(v) for v in (*plan(task()).variants.values(), *selves)}


def _places(variant: Variant) -> Counter[str]:
    """How often each model is asked before there is anything to aggregate."""
    if variant.model is not None:
        return Counter([variant.model])
    (layer,) = variant.recipe.layers
    return Counter({proposer.model: proposer.samples for proposer in layer.proposers})


def _contrasts(found: Findings) -> Iterator[Contrast]:
    yield from found.quantized
    yield from (gain.contrast for gain in found.gains)
    for each in found.aggregators:
        yield each.over_alone
        if each.over_base is not None:
            yield each.over_base
    if found.members is not None:
        yield from found.members.over_each
        if found.members.over_self_moa is not None:
            yield found.members.over_self_moa


def main(
    *,
    ray: Annotated[bool, typer.Option("--ray", help="By `slimmoa bench`, on real Ray.")] = False,
    rows: Annotated[int, typer.Option(min=2, help="How many to answer.")] = 400,
    seed: Annotated[int, typer.Option(help="Of the run.")] = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Recover known effects."""
    models, make = InProcess(), findings_of_commands if ray else findings
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(make(Path(folder), models, rows, seed))
    checks, fewest = checked(found), fewest_calls(found, rows)
    lines = [
        {
            "what": each.what,
            "minus": each.minus,
            "true": round(each.truth, 2),
            "found": _rounded(each.found.value),
            "low": _rounded(each.found.low),
            "high": _rounded(each.found.high),
            "held": each.held,
        }
        for each in checks
    ]
    missed = sum(not each.held for each in checks)
    limits = [
        Limit("intervals without the truth", missed, allowed(len(checks))),
        Limit("calls made more than once", (models.calls - fewest).total(), 0),
        Limit("calls not made", (fewest - models.calls).total(), 0),
    ]
    calls = ", ".join(f"{model} {n}" for model, n in sorted(models.calls.items()))
    print(f"calls, counted by the models: {calls}")
    by = "slimmoa bench on Ray" if ray else "one process"
    report(f"known effects over {rows} rows, seed {seed}, by {by}", lines, limits, json_path)


def allowed(intervals: int) -> int:
    """How many may miss the truth by chance, if each does so independently. They share rows, so
    together they miss by chance somewhat more often."""
    return int(binom.ppf(BY_CHANCE, intervals, 1 - CONFIDENCE))


def _rounded(value: float | None) -> float | str:
    return "-" if value is None else round(value, 2)


if __name__ == "__main__":
    run(main)
