"""What a report shows of a run, read from its store, also while the run is under way.

How it looks is `report_page`'s.
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
from jobs.report.facts import Answered, FailureCount, Member, Sample
from jobs.report.work import Work, work
from jobs.scores.preferences import Gamed
from jobs.scores.score import Grades, Score, grades_from_store, preferences_from_store, score
from jobs.store import Store

Contest = tuple[str, Sequence[str]]  # the mixture, and its members as generators


class ReportError(UserError):
    """A report cannot be made; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's verdicts on pairs with one baseline. scores: the best win rate first; conclusion: None
    where the mixture has no verdict."""

    judge: str
    baseline: str
    scores: tuple[Score, ...]
    conclusion: Conclusion | None

    @property
    def reasons(self) -> list[str]:
        """Why none of the scores is comparable with the leaderboard."""
        first, *others = self.scores
        return [reason for reason in first.reasons if all(reason in other.reasons for other in others)]


@dataclass(frozen=True, slots=True)
class Graded:
    """A judge's grades, the best mean first."""

    judge: str
    grades: tuple[Grades, ...]
    conclusion: Conclusion | None

    @property
    def turns(self) -> list[int]:
        """That any answer was graded at, from 0."""
        return sorted({turn for each in self.grades for turn in each.turns})


@dataclass(frozen=True, slots=True)
class Report:
    """All that a report shows.

    run: the folder's name; about: what the run said of itself; mixture: whom it is about, None before
    one was added; members: the models that take part in it; rows: of the set.
    """

    run: str
    written: datetime
    about: Mapping[str, Any]
    rows: int
    mixture: str | None
    members: tuple[Member, ...]
    generators: tuple[Answered, ...]
    judged: tuple[Judged, ...]
    graded: tuple[Graded, ...]
    findings: Findings | None
    work: Work | None
    failures: tuple[FailureCount, ...]
    samples: tuple[Sample, ...]

    @property
    def set(self) -> str:
        """The set's name."""
        return str(self.about.get("set", {}).get("name", "no set yet"))

    @property
    def description(self) -> str:
        """The recipe's own."""
        return str(self.about.get("recipe", {}).get("description", ""))


def report(
    store: Store,
    folder: Path,
    *,
    difficulty: Mapping[int, float] | None = None,
    gamed: Gamed | None = None,
) -> Report:
    """Read all that there is to tell of a run. difficulty, gamed: as for `score.score`.

    Raises:
        PreferencesError: as `score.score`.
        ReportError: the run's ablation was stored by another version.
    """
    about, generators = store.about(), store.generators()
    recipe = about.get("recipe", {})
    mixture = _mixture(generators, recipe)
    members = report_facts.members(mixture.about["recipe"]) if mixture else []
    contest = None if mixture is None else (mixture.name, _alone(generators, mixture))
    judgements = store.judgements()
    pairs = [(judge, baseline) for judge, kind, baseline in judgements if kind == "pairwise"]
    graders = [judge for judge, kind, _ in judgements if kind == "grade"]
    failures = report_facts.failures(store)
    failed: Counter[str] = Counter()
    for each in failures:
        failed[each.generator] += each.count if each.stage == "generate" else 0
    answered = [report_facts.answered(store, each, failed[each.name]) for each in generators]
    some = next((each for each in answered if mixture and each.name == mixture.name), None)
    return Report(
        run=folder.resolve().name,
        written=datetime.now(UTC),
        about=about,
        rows=store.row_count(),
        mixture=mixture.name if mixture else None,
        members=tuple(members),
        generators=tuple(answered),
        judged=tuple(_judged(store, pairs, contest, difficulty, gamed)),
        graded=tuple(_graded(store, graders, contest)),
        findings=_findings(about.get("ablation")),
        work=work(store.progress()),
        failures=tuple(failures),
        samples=tuple(report_facts.samples(store, some.name, some.some)) if some else (),
    )


def _mixture(generators: Sequence[Generator], recipe: Mapping[str, Any]) -> Generator | None:
    """The mixture of the run's recipe; the first one if that has not begun."""
    mixtures = [each for each in generators if each.kind == "mixture"]
    own = (each for each in mixtures if each.about["recipe"] == recipe)
    return next(own, mixtures[0] if mixtures else None)


def _alone(generators: Sequence[Generator], mixture: Generator) -> list[str]:
    """Those of the mixture's models that answered alone too. A name may have an ending of its own,
    where the store knew another recipe's model by that name."""
    models = mixture.about["recipe"]["models"]
    taking_part = [member.name for member in report_facts.members(mixture.about["recipe"])]
    return [
        each.name
        for each in generators
        if each.kind == "model"
        and any(
            each.name.startswith(model) and each.about.get("model") == models[model]
            for model in taking_part
        )
    ]


def _judged(
    store: Store,
    pairs: Iterable[tuple[str, str]],
    contest: Contest | None,
    difficulty: Mapping[int, float] | None,
    gamed: Gamed | None,
) -> Iterator[Judged]:
    for judge, baseline in pairs:
        scores, kept = {}, {}
        for each in preferences_from_store(store, judge, baseline):
            scores[each.generator] = score(each, difficulty, gamed)
            if contest and each.generator in (contest[0], *contest[1]):
                kept[each.generator] = each
        conclusion = from_pairs(*contest, kept, scores, store.row_count()) if contest else None
        ranked = sorted(
            scores.values(), key=lambda each: -1 if each.win_rate is None else each.win_rate
        )
        yield Judged(judge, baseline, tuple(reversed(ranked)), conclusion)


def _graded(store: Store, judges: Iterable[str], contest: Contest | None) -> Iterator[Graded]:
    for judge in judges:
        ranked = sorted(grades_from_store(store, judge), key=lambda each: each.mean or 0, reverse=True)
        verdicts = store.verdicts(judge=judge, kind="grade")
        yield Graded(judge, tuple(ranked), from_grades(*contest, verdicts) if contest else None)


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
