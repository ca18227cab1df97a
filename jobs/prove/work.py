"""Answers the questions of a proof in every way, and has the answers judged where nothing checks them.

Every call, answer and verdict is stored at once, so the same command goes on where it was stopped.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from configs.schema import AnswerForm, Recipe
from jobs.answer_events import AnswerEvents
from jobs.folder_lock import lock_folder
from jobs.judges import pairwise
from jobs.judges.remote import RemoteJudge, open_remote_calls
from jobs.progress import verdict_progress
from jobs.prove.prices import Price, keep_price
from jobs.prove.reader import ProofReader
from jobs.prove.ways import Planned, Way, Ways, first_ways, later_ways
from jobs.records import Row
from jobs.run import RunModels, RunTask, prepare_run
from jobs.sets import LoadedSet
from jobs.store import Store
from jobs.stored_calls import StoredCalls

TIMED = 5
"""Questions that are answered one at a time first: their seconds tell how long a person waits."""


@dataclass(frozen=True, slots=True)
class ProveTask:
    """What is to be proved, and by which questions."""

    folder: Path
    recipe: Recipe
    loaded: LoadedSet

    form: AnswerForm | None
    """Where the answer stands in a text; None if a judge compares answers."""

    judge: str = ""
    """The judge's name: a model of the recipe, or of the remote server."""

    remote: RemoteJudge | None = None
    """A judge on another server; None if the judge is a model of the recipe."""

    seed: int = 0
    in_flight: int = 1024
    verbose: bool = False

    file: str = ""
    """The name of the user's own file of questions, as the page shows it; empty for a public set."""


def prove(task: ProveTask, command: str, console: Console) -> None:
    """Answer and judge what is not there yet.

    Args:
        task: what is to be proved.
        command: the command line, shown to jobs that want the same folder.
        console: gets the progress.

    Raises:
        RunTaken: another job works on the folder.
        RunError: the folder has another set.
        JudgeRefused: the judge cannot judge.
        RunStopped: too many questions failed one after another.
        Exception: the models cannot be started or used; see `open_model_app`.
    """
    run_task = RunTask(
        task.folder,
        task.recipe,
        task.loaded,
        (),
        task.seed,
        task.in_flight,
        corrects=task.form is not None,
        verbose=task.verbose,
    )
    with lock_folder(task.folder, command), Store.open(task.folder) as store:
        recipe, seed = prepare_run(store, run_task)
        with RunModels(run_task, recipe, console) as models:
            about = recipe.model_dump(mode="json", exclude_defaults=True)
            store.set_about(recipe=about, seed=seed)
            asyncio.run(_Work(task, recipe, seed, store, models, console).run())


class _Work:
    """The steps of one proof."""

    def __init__(
        self,
        task: ProveTask,
        recipe: Recipe,
        seed: int,
        store: Store,
        models: RunModels,
        console: Console,
    ) -> None:
        self._task = task
        self._recipe = recipe
        self._seed = seed
        self._store = store
        self._models = models
        self._console = console
        self._timed = [row.index for row, _ in zip(store.rows(), range(TIMED), strict=False)]
        self._ways: list[Way] = []
        self._left_out: list[str] = []
        self._judge = self._judge_task() if task.form is None else None

    async def run(self) -> None:
        first = self._named(first_ways(self._recipe, self._task.form))
        rows = self._store.row_count()
        asked = "1 question" if rows == 1 else f"{rows} questions"
        self._say(f"step 1 of 2: the mixture and its members answer {asked}")
        await self._answer(first)
        await self._judge_all()
        reader = ProofReader(self._store, self._task.folder)
        best = reader.best()
        if best is None:
            self._say(
                "no question has answers of the mixture and of all members, so step 2 is left out"
            )
            return
        later = later_ways(self._recipe, best, self._task.form, _ratio(reader, best))
        self._say(f"step 2 of 2: the best member, {best}, answers as often as the mixture's models")
        await self._answer(self._named(later))
        await self._judge_all()

    def _named(self, ways: Ways) -> list[Planned]:
        """Add the ways to the run, each under a name of its own there."""
        named: list[Planned] = []
        for way, variant in ways.planned:
            added = self._models.add_variant(self._store, variant, self._seed)
            named.append((replace(way, name=added.name), added))
        self._ways += [way for way, _ in named]
        self._left_out += ways.left_out
        self._keep()
        return named

    def _keep(self) -> None:
        """Keep what `facts` needs to know of this proof."""
        form = self._task.form
        kept = {
            "ways": [way.to_json() for way in self._ways],
            "left_out": self._left_out,
            "timed": self._timed,
            "file": self._task.file,
            "form": form if form is None or isinstance(form, str) else form.model_dump(),
        }
        if self._judge is not None:
            kept["judge"] = self._task.judge
            kept["judge_name"] = self._judge.judge_name
            kept["judge_is_member"] = self._task.remote is None
        self._store.set_about(prove=kept)

    async def _answer(self, ways: Sequence[Planned]) -> None:
        """Answer the timed questions one at a time, and then all others at once."""
        variants = [variant for _, variant in ways]
        if not variants:
            return
        missing = {v.name: v.calls_per_answer() * self._missing(v.name) for v in variants}
        if any(missing.values()):
            self._say(
                f"  at most {sum(missing.values())} calls are left; calls that are stored count too"
            )
        for rows, at_once in ((self._timed, 1), (None, None)):
            await self._models.answer_rows(
                self._store,
                variants,
                self._seed,
                rows=rows,
                in_flight=at_once,
                on_answer=self._keep_price,
            )

    def _missing(self, name: str) -> int:
        return self._store.row_count() - self._store.answered_count(name)

    def _keep_price(self, name: str, row: Row, events: AnswerEvents) -> None:
        keep_price(self._task.folder, name, row.index, Price.of(events))

    def _judge_task(self) -> pairwise.PairwiseTask:
        remote = self._task.remote
        identity = remote.identity if remote is not None else self._models.identities[self._task.judge]
        return pairwise.PairwiseTask(
            self._task.judge, "", "", identity=identity, in_flight=self._task.in_flight
        )

    async def _judge_all(self) -> None:
        """Have the mixture compared with each other way, in both orders: once as the generator, and
        once as the baseline, whose place among the two answers is the other one."""
        if self._judge is None:
            return
        mixture = next(way.name for way in self._ways if way.kind == "mixture")
        others = [way.name for way in self._ways if way.kind != "mixture"]
        async with self._judge_calls() as calls:
            for name in others:
                for pair in ((mixture, name), (name, mixture)):
                    title = " against ".join(pair)
                    rows = self._store.row_count()
                    with verdict_progress(self._console, title, rows) as update:
                        task = replace(
                            self._judge, generator=pair[0], baseline=pair[1], on_progress=update
                        )
                        await pairwise.judge_pairs(task, self._store, calls)
                self._say(f"  judged in both orders: {mixture} against {name}")

    @asynccontextmanager
    async def _judge_calls(self) -> AsyncIterator[StoredCalls]:
        remote = self._task.remote
        if remote is None:
            async with self._models.calls(self._store) as calls:
                yield calls
            return
        at_once = min(256, self._task.in_flight)
        async with open_remote_calls(remote, self._store, at_once, self._say) as calls:
            yield calls

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


def _ratio(reader: ProofReader, best: str) -> float | None:
    """How many times as many tokens the mixture writes for an answer as its best member does."""
    name = next(way.name for way in reader.ways if way.kind == "member" and way.model == best)
    ours, theirs = (list(reader.prices.get(n, {}).values()) for n in (reader.mixture, name))
    if not ours or not theirs or not (written := Price.mean(theirs).written):
        return None
    return Price.mean(ours).written / written
