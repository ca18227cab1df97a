"""Ablations of scripted models whose true effects are known: do the findings hold the truth?

    python -m benchmarks.known_effects [--rows 400] [--seed 0] [--json FILE]

Answers and verdicts are made as in any run, but by models in this process (benchmarks/known_models.py);
the mixture, the store, the judge's prompt and the analysis are the real ones. Each difference stands
beside the true one, and the share of intervals that miss it is held against a limit.
"""

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.harness import Limit, report, run
from benchmarks.known_models import (
    BASELINE,
    CANDIDATES,
    JUDGE,
    NAME,
    UNQUANTIZED,
    InProcess,
    questions,
    recipe,
    true_win_rate,
)
from jobs.ablate import PARTS, Ablation, ablate
from jobs.ablation_plan import plan
from jobs.calls import Calls
from jobs.effects import Contrast, Estimate
from jobs.findings import Findings
from jobs.generate import Generation, generate, generator_of
from jobs.identity import model_identity
from jobs.judge import Judging, judge
from jobs.store import Store
from jobs.variants import Variant, alone, self_moa

MISSED_SHARE = 0.15  # of 95% intervals that may miss the truth: of twenty, three


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
        async with Calls(store, models, identities, dict.fromkeys(base.models, 64)) as calls:

            async def answered(variants: Sequence[Variant]) -> None:
                for variant in variants:
                    store.add_generator(generator_of(variant, identities, seed))
                await generate(Generation(variants, seed), store, calls)

            async def judged(generators: Sequence[str]) -> None:
                for generator in generators:
                    await judge(Judging(JUDGE, generator, BASELINE), store, calls)

            await answered([alone(base, BASELINE)])
            return await ablate(task(), store, answered, judged)


def task() -> Ablation:
    """All parts."""
    judge_name = Judging(JUDGE, NAME, BASELINE).judge
    return Ablation(recipe(), BASELINE, judge_name, PARTS, CANDIDATES, UNQUANTIZED)


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


def true_win_rates() -> dict[str, float]:
    """Percent against the baseline, of every generator that may take part."""
    base = recipe()
    selves = (self_moa(base, model) for model in CANDIDATES)
    return {v.name: true_win_rate(v) for v in (*plan(task()).variants.values(), *selves)}


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
    rows: Annotated[int, typer.Option(min=2, help="How many to answer.")] = 400,
    seed: Annotated[int, typer.Option(help="Of the run.")] = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Recover known effects."""
    with tempfile.TemporaryDirectory() as folder:
        checks = checked(asyncio.run(findings(Path(folder), InProcess(), rows, seed)))
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
    missed = sum(not each.held for each in checks) / len(checks)
    limit = Limit("share of intervals without the truth", missed, MISSED_SHARE)
    report(f"known effects over {rows} rows, seed {seed}", lines, [limit], json_path)


def _rounded(value: float | None) -> float | str:
    return "-" if value is None else round(value, 2)


if __name__ == "__main__":
    run(main)
