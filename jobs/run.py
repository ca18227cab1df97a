"""A run from its folder to its answers: the set, the recipe, the models, and all of it again later.

A run's store knows its set and recipe, so going on needs neither.
"""

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.errors import UserError
from configs.schema import Recipe
from jobs.folder_lock import lock_folder
from jobs.generate import GenerateProgress, GenerateTask, generate, generator_of
from jobs.identity import model_identity
from jobs.model_app import ModelApp, graph
from jobs.progress import Reporter
from jobs.sets import LoadedSet
from jobs.store import Store, StoreError
from jobs.stored_calls import StoredCalls
from jobs.variants import Variant, alone, mixture


class RunError(UserError):
    """A run cannot be begun or gone on with as asked; the message names the option at fault."""


@dataclass(frozen=True, slots=True)
class RunTask:
    """What `bench run` was asked for. None where the run's own, of its first start, holds.

    recipe: the mixture; loaded: the set; members: models to be asked alone too; seed: of all sampling;
    in_flight: most answers at once.
    """

    folder: Path
    recipe: Recipe | None = None
    loaded: LoadedSet | None = None
    members: Sequence[str] = ()
    seed: int | None = None
    in_flight: int = 1024
    allow_degraded: bool = False
    verbose: bool = False


def run(task: RunTask, what: str, console: Console) -> GenerateProgress:
    """Answer a set with a mixture, and with its members alone if asked. what: the command.

    Raises:
        RunTaken, RunError, StoreError, RunStopped, GraphRefused, and what starting models raises.
    """
    with lock_folder(task.folder, what), Store.open(task.folder) as store:
        recipe, seed = prepared(store, task)
        variants = [mixture(recipe), *(alone(recipe, member) for member in task.members)]
        with RunModels(task, recipe, console) as models:
            # Not before: a recipe whose models were refused shall not become the run's.
            kept = recipe.model_dump(mode="json", exclude_defaults=True)
            store.set_about(recipe=kept, seed=seed)
            return models.answer(store, variants, seed)


def prepared(store: Store, task: RunTask) -> tuple[Recipe, int]:
    """Bring the set into the store; what the run's recipe and seed are.

    Raises:
        RunError: there is no recipe or set yet, or the set is another one than the run's.
    """
    about = store.about()
    recipe = task.recipe
    if recipe is None:
        if "recipe" not in about:
            raise RunError(f"{task.folder} is a new run: give --config, the recipe")
        recipe = Recipe.model_validate(about["recipe"])
    seed = int(about.get("seed", 0)) if task.seed is None else task.seed
    if task.loaded is not None:
        _add_set(store, task.loaded, about)
    elif "set" not in about:
        raise RunError(f"{task.folder} is a new run: give --set, what is to be answered")
    if "began" not in about:
        store.set_about(began=time.time())
    return recipe, seed


def _add_set(store: Store, loaded: LoadedSet, about: dict[str, Any]) -> None:
    if (known := about.get("set")) is not None:
        if loaded.count < known["count"]:
            raise RunError(
                f"the run has {known['count']} rows of {known['name']!r} and the set that is given has "
                f"{loaded.count}: leave --set and --limit out, or give no fewer rows"
            )
        if known["name"] != loaded.name and known["identity"] != loaded.identity:
            raise RunError(f"--set: the run's set is {known['name']!r}, not {loaded.name!r}")
    try:
        store.add_rows(loaded.rows)
    except StoreError as error:
        raise RunError(f"--set: the run has another set: {error}") from error
    store.set_about(
        set={
            "name": loaded.name,
            "identity": loaded.identity,
            "column": loaded.column,
            "count": loaded.count,
        }
    )


class RunModels:
    """A recipe's models, ready for a run's calls; use as a context manager."""

    def __init__(self, task: RunTask, recipe: Recipe, console: Console) -> None:
        self._task, self._recipe, self._console = task, recipe, console
        self._open = graph(
            recipe,
            task.folder,
            in_flight=task.in_flight,
            verbose=task.verbose,
            say=self._say,
        )

    def __enter__(self) -> "RunModels":
        self._graph: ModelApp = self._open.__enter__()
        # Ray's own handler would end this process in the midst of a write.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        # Not before the models are there: their weights have been fetched now.
        models = self._recipe.models.items()
        self.identities = {name: model_identity(model) for name, model in models}
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def calls(self, store: Store) -> StoredCalls:
        """Calls to the models over a store."""
        return StoredCalls(store, self._graph.models, self.identities, self._graph.room)

    def answer(self, store: Store, variants: Sequence[Variant], seed: int) -> GenerateProgress:
        """Answer the store's rows with each variant; what is stored is not computed again."""
        kept = [_added(store, variant, self.identities, seed) for variant in variants]
        return asyncio.run(self.generate(store, kept, seed))

    def named(self, store: Store, recipe: Recipe, seed: int) -> Recipe:
        """The recipe under the name that its mixture has in the store, where it is added."""
        name = _added(store, mixture(recipe), self.identities, seed).name
        return recipe.model_copy(update={"name": name})

    async def generate(self, store: Store, variants: Sequence[Variant], seed: int) -> GenerateProgress:
        """Answer the store's rows with variants under just these names.

        Raises:
            StoreError: a name is another generator's.
        """
        for variant in variants:
            store.add_generator(generator_of(variant, self.identities, seed))
        task = GenerateTask(variants, seed, self._task.in_flight, self._task.allow_degraded)
        expected = sum(calls_per_row(v) for v in variants) * store.row_count()
        expected -= sum(calls_per_row(v) * store.answered(v.name) for v in variants)
        store.set_about(calls_expected=expected)  # for `bench status`
        names = [variant.name for variant in variants]
        async with self.calls(store) as calls:
            reporter = Reporter(store, names, expected, calls.counts, self._graph.swaps, self._console)
            with reporter.shown():
                watch = asyncio.create_task(reporter.watch())
                watch.add_done_callback(self._watched)
                try:
                    return await generate(task, store, calls, reporter.note)
                finally:
                    watch.cancel()
                    await asyncio.gather(watch, return_exceptions=True)
                    await reporter.keep()

    def _watched(self, watch: "asyncio.Task[None]") -> None:
        """A run whose progress cannot be followed goes on."""
        if not watch.cancelled() and (error := watch.exception()) is not None:
            self._say(f"progress is no longer kept: {type(error).__name__}: {error}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def calls_per_row(variant: Variant) -> int:
    """Engine calls behind one answer."""
    if variant.model is not None:
        return 1
    return variant.recipe.calls_per_answer()


def _added(store: Store, variant: Variant, identities: dict[str, str], seed: int) -> Variant:
    """The variant as a generator of the store, added if it is new.

    Another recipe under a name that the store knows (another aggregator, a proposer more) is another
    generator; a few digits of its identity tell them apart.
    """
    generator = generator_of(variant, identities, seed)
    known = store.generator(generator.name)
    if known is not None and known.identity != generator.identity:
        variant = replace(variant, name=f"{variant.name}-{generator.identity[:4]}")
    store.add_generator(generator_of(variant, identities, seed))
    return variant
