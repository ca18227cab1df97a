"""Answers a set with a mixture, and keeps the answers in the folder of a run.

The store in the folder holds the run's set and recipe. So a command that continues a run needs neither.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from configs.errors import UserError
from configs.schema import Recipe
from jobs.answer_events import AnswerEvents
from jobs.folder_lock import lock_folder
from jobs.generate import GenerateProgress, GenerateTask, generate
from jobs.identity import has_own_defaults, recipe_identities, to_generator
from jobs.model_app import open_model_app
from jobs.progress import Reporter
from jobs.records import Row
from jobs.sets import LoadedSet
from jobs.store import Store, StoreError
from jobs.stored_calls import CallPatience, StoredCalls
from jobs.variants import Variant, alone, mixture

SHORTEST_STALL_S = 30.0
"""Shortest time, in seconds, after which a call counts as hung if degraded answers are allowed; else it
is the recipe's `limits.deadline_s`."""


class RunError(UserError):
    """A run cannot be started or continued as asked; the message names the option at fault."""


@dataclass(frozen=True, slots=True)
class RunTask:
    """What a command is to answer in a run, and how."""

    folder: Path
    """The run's folder."""

    recipe: Recipe | None = None
    """The recipe of the mixture that answers; by default the recipe that the run has."""

    loaded: LoadedSet | None = None
    """The set of rows to answer; by default the set that the run has."""

    members: Sequence[str] = ()
    """Names of models of the recipe that also answer the set alone."""

    seed: int | None = None
    """Seed of all sampling; by default the run's, 0 for a new run."""

    in_flight: int = 1024
    """Most answers in work at once."""

    allow_degraded: bool = False
    """Also store answers that lack a proposal because an engine failed. A call that hangs counts as
    failed then: one that has not ended within the recipe's `limits.deadline_s`, in which no other call
    has ended either."""

    corrects: bool = False
    """Whether right answers of `loaded` take the place of those of the run's set. Only a job whose
    results are computed anew each time may say so."""

    verbose: bool = False
    """Show the logs of all processes."""


def answer_set(task: RunTask, command: str, console: Console) -> GenerateProgress:
    """Answer a set with a mixture, and with members of it alone.

    Args:
        task: what to answer.
        command: the command line; shown to other jobs that want the same folder.
        console: gets the progress.

    Raises:
        RunTaken: another job works on the folder.
        RunError: see `prepare_run`.
        VariantError: the recipe lacks a model that `task.members` names.
        StoreError: the store cannot be read or written.
        RunStopped: too many rows failed one after another.
        Exception: the models cannot be started or used; see `open_model_app`.
    """
    with lock_folder(task.folder, command), Store.open(task.folder) as store:
        recipe, seed = prepare_run(store, task)
        variants = [mixture(recipe), *(alone(recipe, member) for member in task.members)]
        with RunModels(task, recipe, console) as models:
            # Only now: a recipe whose models cannot start must not become the run's.
            about = recipe.model_dump(mode="json", exclude_defaults=True)
            store.set_about(recipe=about, seed=seed)
            added = [models.add_variant(store, variant, seed) for variant in variants]
            return asyncio.run(models.answer_rows(store, added, seed))


def prepare_run(store: Store, task: RunTask) -> tuple[Recipe, int]:
    """Store the task's set, and return the run's recipe and seed.

    Raises:
        RunError: a new run lacks a recipe or a set, or the task's set is not the run's.
    """
    about = store.about()
    recipe = task.recipe
    if recipe is None:
        if "recipe" not in about:
            raise RunError(f"{task.folder} is a new run: give --config, the recipe")
        recipe = Recipe.model_validate(about["recipe"])
    seed = int(about.get("seed", 0)) if task.seed is None else task.seed
    if task.loaded is not None:
        add_set(store, task.loaded, about, corrects=task.corrects)
    elif "set" not in about:
        raise RunError(f"{task.folder} is a new run: give --set, what is to be answered")
    if "began" not in about:
        store.set_about(began=time.time())
    return recipe, seed


def add_set(store: Store, loaded: LoadedSet, about: dict[str, Any], *, corrects: bool = False) -> None:
    """Store a set as the run's set, or add rows to the set that the run has. With an offset, the rows
    may be any further part of the set. `corrects` is that of `RunTask`.

    Raises:
        RunError: the run has another set, or has more rows than the set that is given.
    """
    if (known := about.get("set")) is not None:
        if loaded.count < known["count"] and not loaded.rows.offset:
            raise RunError(
                f"the run has {known['count']} rows of {known['name']!r} and the set that is given has "
                f"{loaded.count}: give no fewer rows, or another folder"
            )
        if known["name"] != loaded.name and known["identity"] != loaded.identity:
            raise RunError(f"--set: the run's set is {known['name']!r}, not {loaded.name!r}")
    try:
        store.add_rows(loaded.rows, corrects=corrects)
    except StoreError as error:
        raise RunError(f"--set: the run has another set: {error}") from error
    store.set_about(
        set={
            "name": loaded.name,
            "identity": loaded.identity,
            "column": loaded.column,
            "count": store.row_count(),
        }
    )


class RunModels:
    """A recipe's models for the calls of a run.

    Use it as a context manager. Entering finds models that run, or starts models. Leaving ends the
    models that were started.
    """

    def __init__(self, task: RunTask, recipe: Recipe, console: Console) -> None:
        self._task = task
        self._recipe = recipe
        self._console = console
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._app = stack.enter_context(
                open_model_app(
                    self._recipe,
                    self._task.folder,
                    in_flight=self._task.in_flight,
                    verbose=self._task.verbose,
                    say=self._say,
                )
            )
            # Only now: the identity of local weights needs the files, which are there by now.
            self.identities = recipe_identities(self._recipe)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def calls(self, store: Store) -> StoredCalls:
        """Calls to the models; the store keeps their results."""
        own = [n for n in self._recipe.names if has_own_defaults(self._recipe.settings(n))]
        # Whoever wants no poorer answers waits for a call that hangs, because it may only be slow.
        stall_s = max(SHORTEST_STALL_S, self._recipe.limits.deadline_s)
        patience = CallPatience(stall_s=stall_s) if self._task.allow_degraded else None
        return StoredCalls(
            store,
            self._app.models,
            self.identities,
            self._app.call_limits,
            patience,
            own_defaults=own,
            say=self._say,
        )

    def add_mixture(self, store: Store, recipe: Recipe, seed: int) -> Recipe:
        """Add a recipe's mixture to the store, and return the recipe with its generator's name."""
        name = self.add_variant(store, mixture(recipe), seed).name
        return recipe.model_copy(update={"name": name})

    def add_variant(self, store: Store, variant: Variant, seed: int) -> Variant:
        """Add a variant to the store as a generator, and return the variant with the generator's name.

        Another generator may have the variant's name already, for example the same recipe with another
        aggregator. Then a few digits of the variant's identity are added to its name.
        """
        tempered = store.has_temperatures()
        generator = to_generator(variant, self.identities, seed, row_temperatures=tempered)
        known = store.generator(generator.name)
        if known is not None and known.identity != generator.identity:
            variant = replace(variant, name=f"{variant.name}-{generator.identity[:4]}")
        store.add_generator(to_generator(variant, self.identities, seed, row_temperatures=tempered))
        return variant

    async def answer_rows(
        self,
        store: Store,
        variants: Sequence[Variant],
        seed: int,
        *,
        rows: Sequence[int] | None = None,
        in_flight: int | None = None,
        on_answer: Callable[[str, Row, AnswerEvents], None] = lambda *_: None,
    ) -> GenerateProgress:
        """Answer the store's rows with each variant. Answers that are stored are not made again.

        Args:
            store: the run.
            variants: who answers.
            seed: the run's seed.
            rows: indices of the rows to answer; None answers all.
            in_flight: most answers in work at once; None takes that of the run's task.
            on_answer: see `GenerateTask.on_answer`.

        Raises:
            StoreError: a variant's name belongs to another generator, or an answer cannot be stored.
            RunStopped: too many rows failed one after another.
        """
        tempered = store.has_temperatures()
        for variant in variants:
            store.add_generator(to_generator(variant, self.identities, seed, row_temperatures=tempered))
        at_once = self._task.in_flight if in_flight is None else in_flight
        task = GenerateTask(
            variants, seed, at_once, self._task.allow_degraded, rows=rows, on_answer=on_answer
        )
        calls_expected = sum(
            variant.calls_per_answer() * (store.row_count() - store.answered_count(variant.name))
            for variant in variants
        )
        store.set_about(calls_expected=calls_expected)  # for `bench status`
        names = [variant.name for variant in variants]
        async with self.calls(store) as calls:
            reporter = Reporter(
                store, names, calls_expected, calls.counts, self._app.swaps, self._console
            )
            with reporter.show_bar():
                watch = asyncio.create_task(reporter.watch())
                watch.add_done_callback(self._note_end_of_watch)
                try:
                    return await generate(task, store, calls, reporter.update)
                finally:
                    watch.cancel()
                    await asyncio.gather(watch, return_exceptions=True)
                    await reporter.keep_progress()

    def _note_end_of_watch(self, watch: "asyncio.Task[None]") -> None:
        """Report that the progress is no longer stored; the run itself goes on."""
        if not watch.cancelled() and (error := watch.exception()) is not None:
            self._say(f"progress is no longer kept: {type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)
