"""Judges the answers of a run: verdicts against a baseline, grades, and the findings of an ablation."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from configs.schema import Recipe
from jobs.folder_lock import lock_folder
from jobs.judges import grade, pairwise
from jobs.judges.remote import RemoteJudge, open_remote_calls
from jobs.judges.verdicts import JudgeSummary
from jobs.progress import verdict_progress
from jobs.run import RunError, RunModels, RunTask, prepare_run
from jobs.sets.outputs import read_references
from jobs.store import Store
from jobs.stored_calls import StoredCalls
from jobs.variants import Variant

if TYPE_CHECKING:
    from jobs.ablation.findings import Findings
    from jobs.ablation.plan import Part


@dataclass(frozen=True, slots=True)
class EvaluationTask:
    """Which answers of a run are to be judged, and by whom."""

    folder: Path
    """The run's folder."""

    judge: str
    """Name of the judge: a model of the run's recipe, or the name of the `remote` judge."""

    baseline: str | None = None
    """Name of the generator whose answers the other answers are compared with. With None, answers are
    graded instead."""

    generators: Sequence[str] = ()
    """Names of the generators whose answers are judged; by default all generators but the baseline."""

    remote: RemoteJudge | None = None
    """A judge on another server; None if the judge is a model of the recipe."""

    prompt: Path | None = None
    """File with the judge's prompt; by default SlimMoA's own prompt."""

    references: Path | None = None
    """File with reference answers in place of the set's own; only for grades."""

    in_flight: int = 256
    """Most answers in work at once, and most verdicts in work at once."""

    verbose: bool = False
    """Show the logs of all processes."""

    @property
    def run_task(self) -> RunTask:
        """The task that opens the run with the recipe and the set that it has."""
        return RunTask(self.folder, in_flight=self.in_flight, verbose=self.verbose)


@dataclass(frozen=True, slots=True)
class AblationOptions:
    """Which comparisons an ablation makes; see `jobs.ablation.plan`."""

    parts: "Sequence[Part]"
    """The kinds of comparisons to make."""

    candidates: Sequence[str] | None = None
    """Names of the models to try as proposers and as aggregators; by default all models of the
    recipe."""

    unquantized: Mapping[str, str] = field(default_factory=dict)
    """Pairs of models to compare: the name of the quantized model -> the unquantized model."""


def judge_answers(task: EvaluationTask, command: str, console: Console) -> dict[str, JudgeSummary]:
    """Have the answers of a run compared with a baseline's, or graded.

    Args:
        task: what to judge.
        command: the command line, shown to jobs that want the same folder.
        console: gets the progress.

    Returns:
        A summary for each generator, by name.

    Raises:
        RunTaken: another job works on the folder.
        RunError: the run has no recipe or no set, or a generator or the judge is unknown.
        PromptError: the prompt cannot be used.
        SetError: the file of reference answers cannot be used.
        JudgeRefused: the judge thinks before it answers, or gives no log-probabilities.
        StoreError: the store cannot be read or written.
        Exception: the models cannot be started or used; see `open_model_app`.
    """
    with lock_folder(task.folder, command), Store.open(task.folder) as store:
        names = choose_generators(store, task)
        # A run of imported answers alone has no recipe, and a judge elsewhere needs none.
        recipe = None if task.remote else prepare_run(store, task.run_task)[0]
        if recipe is not None:
            require_judge(recipe, task)
        with nullcontext() if recipe is None else RunModels(task.run_task, recipe, console) as models:
            judge = _Judge(task, store, models, console)
            return asyncio.run(judge.judge_generators(names))


def run_ablation(
    task: EvaluationTask, options: AblationOptions, command: str, console: Console
) -> "Findings":
    """Answer and judge the variants that an ablation needs, compare them, and store the findings.

    Answers and verdicts that are stored are not made again.

    Args:
        task: the run, the judge and the baseline; every variant is judged, whatever `generators` says.
        options: which comparisons to make.
        command: the command line, shown to jobs that want the same folder.
        console: gets the progress.

    Raises:
        AblationError: the options do not suit the recipe.
        VariantError: the recipe is not valid with the unquantized models in place.
        RunStopped: too many rows failed one after another.
        PreferencesError: a verdict has a value, but an answer is missing.
        Exception: see `judge_answers`.
    """
    from jobs.ablation.ablate import AblationTask, ablate  # imports SciPy

    with lock_folder(task.folder, command), Store.open(task.folder) as store:
        recipe, seed = prepare_run(store, task.run_task)
        choose_generators(store, task)
        require_judge(recipe, task)
        with RunModels(task.run_task, recipe, console) as models:
            base = models.add_mixture(store, recipe, seed)
            judge = _Judge(task, store, models, console)
            ablation = AblationTask(
                base,
                task.baseline or "",
                judge.name,
                options.parts,
                options.candidates,
                options.unquantized,
            )

            async def answer_with(variants: Sequence[Variant]) -> None:
                await models.answer_rows(store, variants, seed)

            async def judge_all(names: Sequence[str]) -> None:
                await judge.judge_generators([name for name in names if name != task.baseline])

            findings = asyncio.run(ablate(ablation, store, answer_with, judge_all))
        store.set_about(ablation=findings.to_json())
    return findings


class _Judge:
    """Judges the answers of one generator after another."""

    def __init__(
        self, task: EvaluationTask, store: Store, models: RunModels | None, console: Console
    ) -> None:
        """A judge for a task; `models` may be None only if the judge is remote."""
        self._task = task
        self._store = store
        self._models = models
        self._console = console
        if task.remote is not None:
            identity = task.remote.identity
        else:
            assert models is not None
            identity = models.identities[task.judge]
        # The generator and the callback are filled in for each generator.
        self._template = _verdicts_task(task, identity, store)
        if task.references is not None:
            known = store.about().get("references", {})
            rows = sorted(getattr(self._template, "references", None) or ())
            given = {"file": task.references.name, "rows": rows}
            store.set_about(references=known | {self.name: given})

    @property
    def name(self) -> str:
        """The judge's name in verdicts."""
        return self._template.judge_name

    async def judge_generators(self, names: Sequence[str]) -> dict[str, JudgeSummary]:
        async with self._calls() as calls:
            return {name: await self._judge_generator(name, calls) for name in names}

    async def _judge_generator(self, name: str, calls: StoredCalls) -> JudgeSummary:
        with verdict_progress(self._console, name, self._store.row_count()) as update:
            if isinstance(self._template, pairwise.PairwiseTask):
                pairs = replace(self._template, generator=name, on_progress=update)
                return await pairwise.judge_pairs(pairs, self._store, calls)
            grades = replace(self._template, generator=name, on_progress=update)
            return await grade.grade_answers(grades, self._store, calls)

    @asynccontextmanager
    async def _calls(self) -> AsyncIterator[StoredCalls]:
        if (remote := self._task.remote) is not None:
            say = partial(self._console.print, highlight=False, soft_wrap=True)
            async with open_remote_calls(remote, self._store, self._task.in_flight, say) as calls:
                yield calls
        else:
            assert self._models is not None
            async with self._models.calls(self._store) as calls:
                yield calls


def _verdicts_task(
    task: EvaluationTask, identity: str, store: Store
) -> pairwise.PairwiseTask | grade.GradeTask:
    """The task of the pairwise judge, or without a baseline of the grading judge. The task names no
    generator yet."""
    if task.baseline is None:
        return grade.GradeTask(
            model=task.judge,
            generator="",
            prompts=grade.load_prompts(task.prompt),
            identity=identity,
            references=None if task.references is None else read_references(store, task.references),
            in_flight=task.in_flight,
        )
    return pairwise.PairwiseTask(
        model=task.judge,
        generator="",
        baseline=task.baseline,
        prompt=pairwise.load_prompt(task.prompt),
        identity=identity,
        in_flight=task.in_flight,
    )


def choose_generators(store: Store, task: EvaluationTask) -> list[str]:
    """Names of the generators whose answers are judged.

    Raises:
        RunError: the run lacks one of the task's generators, or the baseline.
    """
    known = [generator.name for generator in store.generators()]
    needed = [*task.generators, *([] if task.baseline is None else [task.baseline])]
    for name in needed:
        if name not in known:
            raise RunError(
                f"there is no generator {name!r} in {task.folder}; known: "
                f"{', '.join(known) or 'none'} (add a file of outputs by `slimmoa bench import`)"
            )
    return list(task.generators) or [name for name in known if name != task.baseline]


def require_judge(recipe: Recipe, task: EvaluationTask) -> None:
    """Check that the recipe has the judge, unless the judge is remote.

    Raises:
        RunError: the recipe has no such model.
    """
    if task.remote is None and task.judge not in recipe.names:
        raise RunError(
            f"--judge: {task.judge!r} is not a model of the run's recipe (it has: "
            f"{', '.join(recipe.names)}); for a model elsewhere give --judge-url"
        )
