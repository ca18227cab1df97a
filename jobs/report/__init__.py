"""Reads from a store what a report shows of a run, also while the run is under way.

`jobs.report.page` decides how the report looks.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from configs.errors import UserError
from jobs.ablation.findings import Findings
from jobs.records import Generator
from jobs.report import facts as report_facts
from jobs.report.answer import Conclusion, from_grades, from_pairs
from jobs.report.facts import FailureCount, GeneratorSummary, MixtureModel, SampleRow
from jobs.report.work import WorkOverTime, work_over_time
from jobs.scores.difficulty import Difficulties
from jobs.scores.grades import NOT_COMPARABLE, Grades, grades_from_store
from jobs.scores.preferences import Gamed
from jobs.scores.score import Score, score
from jobs.scores.stored import preferences_from_store
from jobs.store import Store

MixtureAndMembers = tuple[str, Sequence[str]]
"""Name of the mixture, and names of the generators that are one of its models alone."""


class ReportError(UserError):
    """A report cannot be made; the message says what to do instead."""


@dataclass(frozen=True, slots=True)
class PairwiseResults:
    """What a judge's verdicts on pairs of answers show, all against one baseline."""

    judge: str
    """The judge's name in verdicts."""
    baseline: str
    scores: tuple[Score, ...]
    """Scores of the generators, the highest win rate first."""
    conclusion: Conclusion | None
    """Whether the mixture beat its best member; None if the mixture has no verdict."""

    @property
    def reasons(self) -> list[str]:
        """The reasons that all scores share for not being comparable with the leaderboard."""
        first, *others = self.scores
        return [reason for reason in first.reasons if all(reason in other.reasons for other in others)]


@dataclass(frozen=True, slots=True)
class GradeResults:
    """What a judge's grades show."""

    judge: str
    """The judge's name in verdicts."""
    grades: tuple[Grades, ...]
    """Mean grades of the generators, the highest first."""
    conclusion: Conclusion | None
    """Whether the mixture beat its best member; None if the mixture has no grade."""

    @property
    def notes(self) -> list[str]:
        """Why grades are not comparable with MT-Bench's figures: what holds for all of them, and then
        what holds for single generators."""
        shared = [r for r in self.grades[0].reasons if all(r in each.reasons for each in self.grades)]
        own = [(each.generator, [r for r in each.reasons if r not in shared]) for each in self.grades]
        whole = [f"{NOT_COMPARABLE} ({'; '.join(shared)})"] if shared else []
        return whole + [f"{name}: {'; '.join(reasons)}" for name, reasons in own if reasons]

    @property
    def turns(self) -> list[int]:
        """Turns with grades, from 0."""
        return sorted({turn for each in self.grades for turn in each.turns})


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a report shows."""

    run: str
    """Name of the run's folder."""
    written: datetime
    """When the report was made, in UTC."""
    about: Mapping[str, Any]
    """What the store has about the run, such as its recipe, set, seed and last ablation."""
    rows: int
    """Number of rows of the set."""
    mixture: str | None
    """Name of the mixture; None before a mixture has begun."""
    models: tuple[MixtureModel, ...]
    """The models that take part in the mixture."""
    generators: tuple[GeneratorSummary, ...]
    judged: tuple[PairwiseResults, ...]
    """Results for each judge and baseline."""
    graded: tuple[GradeResults, ...]
    """Results for each judge that graded."""
    findings: Findings | None
    """Findings of the run's last ablation; None without one."""
    work: WorkOverTime | None
    """Work over time; None before there is enough progress to draw."""
    failures: tuple[FailureCount, ...]
    sample_rows: tuple[SampleRow, ...]
    """A few rows with the mixture's answers."""

    @property
    def set(self) -> str:
        """The set's name."""
        return str(self.about.get("set", {}).get("name", "no set yet"))

    @property
    def description(self) -> str:
        """The description in the recipe; may be empty."""
        return str(self.about.get("recipe", {}).get("description", ""))


def read_report(
    store: Store,
    folder: Path,
    *,
    difficulty: Difficulties | None = None,
    gamed: Gamed | None = None,
) -> Report:
    """Read everything that a report shows.

    Args:
        store: The store of the run.
        folder: The folder of the run.
        difficulty: The difficulties of instructions; None for a report without length-controlled win
            rates.
        gamed: AlpacaEval's gamed rows for length control, see `Gamed`; None if they are not there.

    Raises:
        PreferencesError: a verdict has a value, but one of the judged answers is missing; or a row has
            no difficulty.
        ReportError: the run's ablation was stored by another version.
    """
    about, generators = store.about(), store.generators()
    recipe = about.get("recipe", {})
    mixture = _mixture(generators, recipe)
    models = report_facts.mixture_models(mixture.about["recipe"]) if mixture else []
    compared = None if mixture is None else (mixture.name, _members(generators, mixture))
    judgements = store.judgements()
    pairs = [(judge, baseline) for judge, kind, baseline in judgements if kind == "pairwise"]
    graders = [judge for judge, kind, _ in judgements if kind == "grade"]
    failures = report_facts.failures(store)
    failed: Counter[str] = Counter()
    for each in failures:
        failed[each.generator] += each.count if each.stage == "generate" else 0
    summaries = [
        report_facts.summarize_generator(store, each, failed[each.name]) for each in generators
    ]
    own = next((each for each in summaries if mixture and each.name == mixture.name), None)
    return Report(
        run=folder.resolve().name,
        written=datetime.now(UTC),
        about=about,
        rows=store.row_count(),
        mixture=mixture.name if mixture else None,
        models=tuple(models),
        generators=tuple(summaries),
        judged=tuple(_pairwise_results(store, pairs, compared, difficulty, gamed)),
        graded=tuple(_grade_results(store, graders, compared)),
        findings=_findings(about.get("ablation")),
        work=work_over_time(store.progress()),
        failures=tuple(failures),
        sample_rows=(tuple(report_facts.sample_rows(store, own.name, own.sample_rows)) if own else ()),
    )


def _mixture(generators: Sequence[Generator], recipe: Mapping[str, Any]) -> Generator | None:
    """The mixture of the run's recipe, or the first mixture if that one has not begun."""
    mixtures = [each for each in generators if each.kind == "mixture"]
    own = (each for each in mixtures if each.about["recipe"] == recipe)
    return next(own, mixtures[0] if mixtures else None)


def _members(generators: Sequence[Generator], mixture: Generator) -> list[str]:
    """Names of the generators that are a model of the mixture alone.

    The generator's name begins with that of the model. An ending is added if a model of another recipe
    has the same name.
    """
    models = mixture.about["recipe"]["models"]
    names = [model.name for model in report_facts.mixture_models(mixture.about["recipe"])]
    return [
        each.name
        for each in generators
        if each.kind == "model"
        and any(
            each.name.startswith(model) and each.about.get("model") == models[model] for model in names
        )
    ]


def _pairwise_results(
    store: Store,
    pairs: Iterable[tuple[str, str]],
    compared: MixtureAndMembers | None,
    difficulty: Difficulties | None,
    gamed: Gamed | None,
) -> Iterator[PairwiseResults]:
    for judge, baseline in pairs:
        scores, kept = {}, {}
        for each in preferences_from_store(store, judge, baseline):
            hard = None if difficulty is None else difficulty.of(each)
            scores[each.generator] = score(each, hard, gamed)
            if compared and each.generator in (compared[0], *compared[1]):
                kept[each.generator] = each
        conclusion = from_pairs(*compared, kept, scores, store.row_count()) if compared else None
        ranked = sorted(
            scores.values(), key=lambda each: -1 if each.win_rate is None else each.win_rate
        )
        yield PairwiseResults(judge, baseline, tuple(reversed(ranked)), conclusion)


def _grade_results(
    store: Store, judges: Iterable[str], compared: MixtureAndMembers | None
) -> Iterator[GradeResults]:
    for judge in judges:
        ranked = sorted(grades_from_store(store, judge), key=lambda each: each.mean or 0, reverse=True)
        verdicts = store.verdicts(judge=judge, kind="grade")
        yield GradeResults(judge, tuple(ranked), from_grades(*compared, verdicts) if compared else None)


def _findings(stored: Any) -> Findings | None:
    if stored is None:
        return None
    try:
        return TypeAdapter(Findings).validate_python(stored)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ReportError(
            f"the run's ablation was stored by another version ({where}): "
            "run `slimmoa bench ablate` again, nothing is generated anew"
        ) from error
