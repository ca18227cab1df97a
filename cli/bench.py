"""The commands of `slimmoa bench`: answers to a set of prompts, verdicts, scores, ablations, a report.

A command reads its arguments and calls the part of `jobs/` that does the work. Each command imports
heavy libraries itself, so that the others start fast.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.bench_judge import ablate, grade, judge
from cli.bench_options import (
    MOST_ROWS,
    AddressOption,
    DifficultyOption,
    GamedOption,
    InFlightOption,
    JsonOption,
    RunArgument,
    VerboseOption,
    command_line,
    must_be_run,
    no_device,
    submit_if_address,
)
from cli.console import busy, err, exit_on_user_error, fail, load_or_fail, show

if TYPE_CHECKING:
    from configs.schema import Recipe
    from jobs.store import Store

bench = typer.Typer(
    help="Measure a mixture on a set of prompts. It answers them, a judge compares or grades the "
    "answers, and scores and a report say how good they are. All "
    "of a run is in one folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@bench.command()
def run(
    folder: Annotated[
        Path, typer.Option("--out", help="Folder of the run: a new one, or one to continue.")
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--set", help="The prompts: alpaca_eval, mt_bench, arena_hard, arena_hard_v2.0, or a file."
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Recipe file, or a preset of `slimmoa presets`.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=MOST_ROWS, help="Answer only this many rows of the set.")
    ] = None,
    offset: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST_ROWS,
            help="Leave out this many rows at the beginning; the others keep their numbers.",
        ),
    ] = 0,
    column: Annotated[
        str | None,
        typer.Option(help="The file's column with the prompts, if its name is not a usual one."),
    ] = None,
    recipe_temperature: Annotated[
        bool,
        typer.Option(
            "--recipe-temperature",
            help="Answer at the recipe's temperature, also where the benchmark gives one (MT-Bench).",
        ),
    ] = False,
    members: Annotated[
        bool, typer.Option("--members", help="Also answer with each model of the mixture alone.")
    ] = False,
    alone: Annotated[
        list[str] | None, typer.Option(help="Also answer with this model alone; may be repeated.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=-(2**63), max=2**63 - 1, help="Seed of all sampling; by default 0."),
    ] = None,
    in_flight: InFlightOption = 1024,
    allow_degraded: Annotated[
        bool, typer.Option(help="Also keep answers that lack a model because it failed.")
    ] = False,
    address: AddressOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Answer a set of prompts with a mixture.

    If it is interrupted, the same command continues the run and computes nothing twice. It uses the
    models of a running `slimmoa serve`; if there is none, it starts them, and stops them at the end.
    """
    submit_if_address(address)
    from jobs.run import RunTask, answer_set
    from jobs.sets import load_set
    from jobs.variants import mixture

    recipe = None if config is None else load_or_fail(config)
    with exit_on_user_error():
        loaded = None
        if dataset is not None:
            own = not recipe_temperature
            with busy(f"the set {dataset}"):
                loaded = load_set(dataset, limit, column, offset, own_temperatures=own)
            if loaded.left_out:
                err.print(f"{loaded.left_out} conversations without a question are left out")
        also = list(dict.fromkeys(alone or ()))
        if members:
            also += sorted(mixture(recipe or _recipe_of(folder)).models - set(also))
        task = RunTask(folder, recipe, loaded, also, seed, in_flight, allow_degraded, verbose)
        done = answer_set(task, command_line(), err)
    degraded = f", {done.degraded} without a model that failed" if done.degraded else ""
    err.print(f"{done.answered} of {done.rows} answers are there{degraded}: {folder}", highlight=False)
    if done.failed:
        fail(
            f"{done.failed} rows failed (slimmoa bench status {folder}); the same command retries them"
        )


@bench.command()
def status(folder: RunArgument, as_json: JsonOption = False) -> None:
    """Show how far a run is, also while it goes on."""
    from cli.bench_status import status as look

    with exit_on_user_error():
        found = look(folder)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        show(found.table())


@bench.command("import")
def import_(
    folder: RunArgument,
    file: Annotated[
        Path, typer.Argument(help="Outputs of AlpacaEval, FastChat, Arena-Hard, ..., or a table.")
    ],
    name: Annotated[str, typer.Option(help="What the generator is called in this run.")],
    column: Annotated[
        str | None, typer.Option(help="The column with the prompts, or with ids or positions of rows.")
    ] = None,
    output_column: Annotated[str | None, typer.Option(help="The column with the outputs.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--set", help="Make the run, over this set: no model and no recipe is needed."),
    ] = None,
) -> None:
    """Add answers from a file: a baseline's, or another model's.

    In the run, whoever wrote them is called a generator, as each model and mixture is.
    Rows without an output are counted; no figure counts them as lost.
    """
    from jobs.folder_lock import lock_folder
    from jobs.sets import load_set
    from jobs.sets.output_shapes import OutputColumns
    from jobs.sets.outputs import import_outputs
    from jobs.store import Store

    with exit_on_user_error():
        if dataset is None:
            must_be_run(folder)
        loaded = None if dataset is None else load_set(dataset)
        with lock_folder(folder, command_line()), Store.open(folder) as store:
            if loaded is not None:
                from jobs.run import add_set

                add_set(store, loaded, store.about())
            done = import_outputs(store, file, name, OutputColumns(column, output_column))
    err.print(f"{name}: {done}", highlight=False)


@bench.command()
def export(
    folder: RunArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    generator: Annotated[str | None, typer.Option(help="Whose answers; the mixture's.")] = None,
    form: Annotated[
        str,
        typer.Option(
            help="alpaca_eval (model_outputs.json), fastchat, arena_hard, arena_hard_turns, jsonl or "
            "parquet."
        ),
    ] = "alpaca_eval",
    allow_partial: Annotated[bool, typer.Option(help="Leave out rows without an answer.")] = False,
) -> None:
    """Write the answers of a mixture or model into a file."""
    from jobs.export import export as write
    from jobs.store import Store

    with exit_on_user_error(), Store.open(folder, read_only=True) as store:
        name = generator or _mixture_of(store)
        done = write(store, name, output, form, allow_partial=allow_partial)
    less = f", without {done.left_out} rows that have no answer" if done.left_out else ""
    err.print(f"{done.rows} answers of {name}{less}: {output}", highlight=False)


bench.command()(judge)
bench.command()(grade)


@bench.command()
def score(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of a run; none with --preferences.")
    ] = None,
    preferences: Annotated[
        Path | None,
        typer.Option(
            help="Published judgements, or the votes of the page, instead of a run's.",
            callback=no_device,
        ),
    ] = None,
    difficulty: DifficultyOption = None,
    gamed: GamedOption = None,
    judge: Annotated[str | None, typer.Option(help="Only this judge's verdicts.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Only those against this baseline.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show win rates and mean grades.

    Win rates come with their standard errors, and length-controlled too.
    """
    from jobs.scores.scoring import score_file, score_run

    if folder is not None and preferences is None and folder.is_file():
        folder, preferences = None, folder
    if (folder is None) == (preferences is None):
        fail("give either the folder of a run or --preferences")
    with exit_on_user_error():
        if preferences is not None:
            found = score_file(preferences, difficulty, gamed, judge, baseline)
        else:
            assert folder is not None
            found = score_run(folder, difficulty, gamed, judge, baseline)
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
        return
    for table in found.tables():
        show(table)


bench.command()(ablate)


@bench.command()
def report(
    folder: RunArgument,
    difficulty: DifficultyOption = None,
    gamed: GamedOption = None,
) -> None:
    """Write report.html and report.md into the run's folder.

    The page report.html needs no network.
    """
    from jobs.report import read_report
    from jobs.report.page import write
    from jobs.scores.scoring import read_length_control_files
    from jobs.store import Store

    with exit_on_user_error(), Store.open(folder, read_only=True) as store:
        hard, gamed_rows = read_length_control_files(difficulty, gamed)
        found = read_report(store, folder, difficulty=hard, gamed=gamed_rows)
        written = write(found, folder)
    for path in written:
        err.print(str(path), highlight=False)


def _recipe_of(folder: Path) -> "Recipe":
    from configs.schema import Recipe
    from jobs.run import RunError
    from jobs.store import Store

    must_be_run(folder)
    with Store.open(folder, read_only=True) as store:
        if (kept := store.about().get("recipe")) is None:
            raise RunError(f"{folder} is a new run: give --config, the recipe")
        return Recipe.model_validate(kept)


def _mixture_of(store: "Store") -> str:
    """The name of the run's only mixture. A run with no mixture or several ends the command."""
    names = [generator.name for generator in store.generators()]
    mixtures = [g.name for g in store.generators() if g.kind == "mixture"]
    if len(mixtures) != 1:
        fail(f"--generator: say whose answers: {', '.join(names) or 'the run has none'}")
    return mixtures[0]
