"""Ablations compare variants of a mixture on the same rows, by the same judge.

    quantized     quantized proposers against unquantized ones
    proposers     what each proposer adds: the mixture with and without the proposer
    aggregators   each candidate as the aggregator against the candidate alone
    members       the mixture against the models in it, and against Self-MoA on equal calls

The *base* is the mixture of the run's recipe as it is. All variants answer together and are judged
together, so that all rows are in flight at once. Only Self-MoA comes later, because the verdicts decide
which model proposes in it. This file imports NumPy, SciPy and scikit-learn, which are heavy.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime

from configs.schema import Recipe
from jobs import variants
from jobs.ablation.diversity import Diversities, diversities
from jobs.ablation.effects import Wins, against_best, contrast, correlation
from jobs.ablation.families import source
from jobs.ablation.findings import AggregatorComparison, Findings, Gain, MemberComparison
from jobs.ablation.plan import PARTS, AblationError, AblationTask, Part, Plan, plan
from jobs.scores.score import score
from jobs.scores.stored import preferences_from_store
from jobs.store import Store
from jobs.variants import Variant, proposer_models

__all__ = ["PARTS", "AblationError", "AblationTask", "Findings", "Part", "ablate"]

AnswerWith = Callable[[Sequence[Variant]], Awaitable[None]]
"""Answers all rows with these variants."""
JudgeAll = Callable[[Sequence[str]], Awaitable[None]]
"""Has the answers of these generators judged against the baseline."""


async def ablate(
    task: AblationTask, store: Store, answer_with: AnswerWith, judge_all: JudgeAll
) -> Findings:
    """Have the missing answers and verdicts of the variants made, and compare the variants.

    Args:
        task: What to compare.
        store: The store of the run.
        answer_with: Answers the rows; answers that are in the store are not made again.
        judge_all: Has the answers judged; verdicts that are in the store are not made again.

    Raises:
        VariantError: the recipe is not valid with only quantized or only unquantized models.
        PreferencesError: a verdict has a value, but one of the judged answers is missing.
    """
    planned = plan(task)
    await answer_with(list(planned.variants.values()))
    await judge_all(list(planned.variants))
    self_moa = _self_moa(planned, _wins(task, store)) if planned.members else None
    if self_moa is not None:
        await answer_with([planned.variants[self_moa]])
        await judge_all([self_moa])
    return _findings(task, planned, store, self_moa)


def _wins(task: AblationTask, store: Store) -> Wins:
    return Wins(preferences_from_store(store, task.judge, task.baseline), store.row_count())


def _self_moa(planned: Plan, wins: Wins) -> str | None:
    """Add Self-MoA of the best member to the plan; returns its name, or None if there is none."""
    best = against_best(wins, planned.base.name, planned.members)
    if not best.n:
        planned.skipped.append("Self-MoA: no row is judged for all members, so none is the best")
        return None
    return planned.add_if_valid(variants.self_moa, best.minus)


def _findings(task: AblationTask, planned: Plan, store: Store, self_moa: str | None) -> Findings:
    judged = [
        preferences
        for preferences in preferences_from_store(store, task.judge, task.baseline)
        if preferences.generator in planned.variants
    ]
    wins = Wins(judged, store.row_count())
    measured = _diversities(planned, store)
    return Findings(
        recipe=task.recipe.name,
        judge=task.judge,
        baseline=task.baseline,
        date=datetime.now(UTC).date().isoformat(),
        scores=tuple(score(preferences, None, None) for preferences in judged),
        quantized=tuple(contrast(wins, *pair) for pair in planned.quantized),
        gains=tuple(_gains(task.recipe, planned, wins, measured)) if measured else (),
        diversities=measured,
        aggregators=tuple(_aggregators(planned, wins)),
        correlation=correlation(wins, planned.aggregators) if planned.aggregators else None,
        members=_members(planned, wins, self_moa) if planned.members else None,
        skipped=tuple(planned.skipped),
    )


def _diversities(planned: Plan, store: Store) -> Diversities | None:
    compared = [planned.base.name, *(name for pair in planned.gains.values() for name in pair)]
    return diversities(store, list(dict.fromkeys(compared))) if planned.gains else None


def _gains(recipe: Recipe, planned: Plan, wins: Wins, measured: Diversities) -> Iterator[Gain]:
    proposers = proposer_models(recipe)
    for model, (whole, rest) in planned.gains.items():
        others = [other for other in proposers if other != model]
        yield Gain(
            model=model,
            added=model not in proposers,
            contrast=contrast(wins, whole, rest),
            source=source(recipe.settings(model), [recipe.settings(other) for other in others]),
            nearest=measured.nearest(model, others),
            vendi_with=measured.vendi(whole),
            vendi_without=measured.vendi(rest),
        )


def _aggregators(planned: Plan, wins: Wins) -> Iterator[AggregatorComparison]:
    base = planned.base.name
    for model, (alone, by) in planned.aggregators.items():
        over_base = contrast(wins, by, base) if by != base else None
        yield AggregatorComparison(model, contrast(wins, by, alone), over_base)


def _members(planned: Plan, wins: Wins, self_moa: str | None) -> MemberComparison:
    base = planned.base.name
    mixtures = [name for name in (base, self_moa) if name is not None]
    return MemberComparison(
        over_best=against_best(wins, base, planned.members),
        over_each=tuple(contrast(wins, base, member) for member in planned.members),
        over_self_moa=contrast(wins, base, self_moa) if self_moa is not None else None,
        calls={name: planned.variants[name].recipe.calls_per_answer() for name in mixtures}
        | dict.fromkeys(planned.members, 1),
    )
