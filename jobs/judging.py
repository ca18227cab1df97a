"""A run from its answers to verdicts, grades and findings."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from configs.schema import Recipe
from jobs.folder_lock import lock_folder
from jobs.judges import grade as grading
from jobs.judges import pairwise as judging
from jobs.judges.remote import RemoteJudge, remote_calls
from jobs.judges.verdicts import JudgeSummary
from jobs.progress import verdict_progress
from jobs.run import RunError, RunModels, RunTask, prepared
from jobs.store import Store
from jobs.stored_calls import StoredCalls
from jobs.variants import Variant

if TYPE_CHECKING:
    from jobs.ablation.findings import Findings
    from jobs.ablation.plan import Part


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is to be judged, and by whom.

    judge: a model of the run's recipe, or, with base_url, of the server there; generators: by name,
    all of them if empty; baseline: the generator of the other answers, None for grades; prompt: a file
    with the judge's prompt instead of ours; task: where the run is.
    """

    task: RunTask
    judge: str
    baseline: str | None = None
    generators: Sequence[str] = ()
    base_url: str | None = None
    api_key_env: str | None = None
    prompt: Path | None = None
    in_flight: int = 256

    @property
    def remote(self) -> RemoteJudge | None:
        if self.base_url is None:
            return None
        return RemoteJudge(self.judge, self.base_url, self.api_key_env)


@dataclass(frozen=True, slots=True)
class AblationOptions:
    """Which parts of an ablation; see `ablation_plan.Ablation`."""

    parts: "Sequence[Part]"
    candidates: Sequence[str] | None
    unquantized: dict[str, str]


def evaluate(wanted: Evaluation, what: str, console: Console) -> dict[str, JudgeSummary]:
    """Have answers judged against a baseline's, or graded; a summary for each generator.

    Raises:
        RunError, StoreError, RunTaken, PromptError, JudgeRefused, GraphRefused.
    """
    folder = wanted.task.folder
    with lock_folder(folder, what), Store.open(folder) as store:
        recipe, _ = prepared(store, wanted.task)
        names = _generators(store, wanted)
        _check_judge(recipe, wanted)
        with nullcontext() if wanted.remote else RunModels(wanted.task, recipe, console) as models:
            work = _Judge(wanted, store, models, console)
            return asyncio.run(work.all(names))


def run_ablation(wanted: Evaluation, parts: AblationOptions, what: str, console: Console) -> "Findings":
    """Generate and judge the variants that are not there yet, and compare; the findings are kept.

    Raises:
        As `evaluate`; AblationError, VariantError, PreferencesError.
    """
    from jobs.ablation.ablate import Ablation, ablate  # heavy

    folder = wanted.task.folder
    with lock_folder(folder, what), Store.open(folder) as store:
        recipe, seed = prepared(store, wanted.task)
        _generators(store, wanted)
        _check_judge(recipe, wanted)
        with RunModels(wanted.task, recipe, console) as models:
            base = models.named(store, recipe, seed)
            work = _Judge(wanted, store, models, console)
            task = Ablation(
                base, wanted.baseline or "", work.name, parts.parts, parts.candidates, parts.unquantized
            )

            async def generate(variants: Sequence[Variant]) -> None:
                await models.generate(store, variants, seed)

            async def judge(names: Sequence[str]) -> None:
                await work.all([name for name in names if name != wanted.baseline])

            findings = asyncio.run(ablate(task, store, generate, judge))
        store.set_about(ablation=findings.to_json())
    return findings


class _Judge:
    """Judges one generator after another."""

    def __init__(
        self, wanted: Evaluation, store: Store, models: RunModels | None, console: Console
    ) -> None:
        self._wanted, self._store, self._models, self._console = wanted, store, models, console
        remote = wanted.remote
        if remote is not None:
            self._identity = remote.identity
        else:
            assert models is not None
            self._identity = models.identities[wanted.judge]
        self._pairwise = judging.prompt(wanted.prompt) if wanted.baseline is not None else None
        self._grades = grading.prompts(wanted.prompt) if wanted.baseline is None else None

    @property
    def name(self) -> str:
        """The judge's name in verdicts."""
        return self._judging("").judge

    async def all(self, names: Sequence[str]) -> dict[str, JudgeSummary]:
        async with self._calls() as calls:
            return {name: await self._one(name, calls) for name in names}

    async def _one(self, name: str, calls: StoredCalls) -> JudgeSummary:
        rows = self._store.row_count()
        with verdict_progress(self._console, name, rows) as note:
            if self._pairwise is not None:
                return await judging.judge(self._judging(name, note), self._store, calls)
            assert self._grades is not None
            task = grading.Grading(
                self._wanted.judge,
                name,
                self._grades,
                self._identity,
                in_flight=self._wanted.in_flight,
                on_progress=note,
            )
            return await grading.grade(task, self._store, calls)

    def _judging(
        self, name: str, note: Callable[[JudgeSummary], None] | None = None
    ) -> judging.Judging:
        assert self._pairwise is not None
        return judging.Judging(
            self._wanted.judge,
            name,
            self._wanted.baseline or "",
            self._pairwise,
            self._identity,
            self._wanted.in_flight,
            note,
        )

    @asynccontextmanager
    async def _calls(self) -> AsyncIterator[StoredCalls]:
        if (remote := self._wanted.remote) is not None:
            async with remote_calls(remote, self._store, self._wanted.in_flight) as calls:
                yield calls
        else:
            assert self._models is not None
            async with self._models.calls(self._store) as calls:
                yield calls


def _generators(store: Store, wanted: Evaluation) -> list[str]:
    """Names of those to be judged.

    Raises:
        RunError: a generator is not in the run.
    """
    known = [generator.name for generator in store.generators()]
    asked = [*wanted.generators, *([] if wanted.baseline is None else [wanted.baseline])]
    for name in asked:
        if name not in known:
            raise RunError(
                f"there is no generator {name!r} in {wanted.task.folder}; known: "
                f"{', '.join(known) or 'none'} (add a file of outputs by `slimmoa bench import`)"
            )
    return list(wanted.generators) or [name for name in known if name != wanted.baseline]


def _check_judge(recipe: Recipe, wanted: Evaluation) -> None:
    """Raises RunError if the recipe lacks the judge."""
    if wanted.remote is None and wanted.judge not in recipe.models:
        raise RunError(
            f"--judge: {wanted.judge!r} is not a model of the run's recipe (it has: "
            f"{', '.join(recipe.models)}); for a model elsewhere give --judge-url"
        )
