"""The command `slimmoa calibrate`: how sure the best member has to be to answer alone."""

import json
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.bench_options import (
    MOST_ROWS,
    NO_ANSWERS,
    ColumnOption,
    InFlightOption,
    JsonOption,
    SeedOption,
    VerboseOption,
    command_line,
    load_questions,
)
from cli.console import err, exit_on_user_error, fail, load_or_fail, out

if TYPE_CHECKING:
    from configs.schema import AnswerForm, Recipe
    from jobs.calibrate import Calibration, Outcome
    from jobs.sets import LoadedSet

WORDS = ("number", "letter", "boxed")
"""The places of answers that have a name."""


def calibrate(
    config: Annotated[str, typer.Argument(help="Recipe file, or a preset of `slimmoa presets`.")],
    dataset: Annotated[
        str,
        typer.Argument(
            help="File of questions, with the right answers in a field `reference`; or gsm8k, "
            "hellaswag, truthfulqa."
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the run: a new folder, or a run that is to go on.  [default: "
            "calibration-NAME]",
        ),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option(
            help="Where the answer stands in a text: number, letter, boxed, or a regular expression. "
            "By default the recipe's `exit` or `aggregator` says it, or the right answers tell it."
        ),
    ] = None,
    column: ColumnOption = None,
    epsilon: Annotated[
        float, typer.Option(min=0, max=1, help="How much the share of right answers may fall at most.")
    ] = 0.02,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_ROWS, help="Ask only this many questions: the first of the set."),
    ] = None,
    seed: SeedOption = 0,
    write: Annotated[
        bool,
        typer.Option("--write", help="Write tau into the recipe, which has to be a file of yours."),
    ] = False,
    in_flight: InFlightOption = 1024,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find out how sure the best member has to be before it may answer alone (`first.tau`).

    The best member is the recipe's first proposer. The mixture answers all questions once, without
    `first`. Tau is chosen on half of the questions, and tested on the other half. The seed also decides
    the halves. If the command is interrupted, the same command goes on.
    """
    from jobs.calibrate import calibrate as find
    from jobs.calibrate import generator_of, read_trials, require_logprobs, trial_recipe, write_tau
    from jobs.run import RunTask, answer_set
    from jobs.store import Store

    recipe = load_or_fail(config)
    if write and not Path(config).is_file():
        fail(
            f"--write: {config!r} is a preset, and no file of yours; copy the preset into a file first"
        )
    with exit_on_user_error():
        require_logprobs(recipe)
        loaded = load_questions(dataset, limit, column)
        form = _form(dataset, loaded, answer, recipe)
        asked = trial_recipe(recipe)
        run = folder or Path(f"calibration-{recipe.name.replace('/', '-')}")
        task = RunTask(run, asked, loaded, (), seed, in_flight, verbose=verbose)
        answer_set(task, command_line(), err)
        with Store.open(run, read_only=True) as store:
            trials = read_trials(store, generator_of(store, asked, seed), form)
        found = find(trials, epsilon, seed)
        if write and found.tau is not None:
            write_tau(Path(config), found.tau, loaded.name)
    if as_json:
        print(json.dumps(_to_json(found), indent=2))
    else:
        for line in lines(found, recipe, epsilon):
            out.print(line, highlight=False, markup=False)


def _form(name: str, loaded: "LoadedSet", answer: str | None, recipe: "Recipe") -> "AnswerForm":
    """Where the answers stand. A set with too few right answers ends the command before any model
    works."""
    from jobs.calibrate import FEWEST, right_answers
    from jobs.prove.form import find_form, known_answers

    known = known_answers(loaded.rows)
    if not known:
        fail(f"{name} {NO_ANSWERS}")
    own = recipe.exit.answer if recipe.exit is not None else recipe.aggregator.answer
    form = answer_form(answer) if answer is not None else own or find_form(known)
    if form is None:
        fail(
            f"the right answers of {name} are whole texts, for example {known[0][0]!r:.80}; say where "
            "the answer stands by --answer: number, letter, boxed or an expression"
        )
    found = sum(bool(right_answers(each, form)) for each in known)
    if found < FEWEST:
        shown = form if isinstance(form, str) else form.regex
        fail(
            f"{found} of {loaded.count} questions of {name} have a right answer that can be compared "
            f"({shown}), and {FEWEST} are needed"
        )
    return form


def answer_form(answer: str) -> "AnswerForm":
    """Where an answer stands, as --answer says. A wrong expression ends the command."""
    from pydantic import ValidationError

    from configs.methods import AnswerPattern

    word = answer.strip().casefold()
    if word in WORDS:
        return word  # type: ignore[return-value]
    if word.isalpha() and (meant := get_close_matches(word, WORDS, 1)):
        fail(
            f"--answer: {answer!r} is an expression that finds this word alone; do you mean {meant[0]}?"
        )
    try:
        answer.encode()
    except UnicodeEncodeError:
        fail("--answer: the expression is not text in UTF-8")
    try:
        return AnswerPattern(regex=answer)
    except ValidationError as error:
        fail(f"--answer: {error.errors()[0]['msg']}")


def lines(found: "Calibration", recipe: "Recipe", epsilon: float) -> list[str]:
    """What was found, in words."""
    best = recipe.layers[0].proposers[0].model
    told = (
        "all its answers are right, or all are wrong" if found.auroc is None else f"{found.auroc:.2f}"
    )
    said = [
        f"{found.trials} questions. How well the probabilities of {best} tell its right answers from "
        f"its wrong answers (0.5 means by chance, 1 means always): {told}."
    ]
    if found.tau is None or found.chosen_on is None or found.checked_on is None:
        return [
            *said,
            f"Every tau loses more than {100 * epsilon:g} of 100 answers. Leave `first` out.",
        ]
    said.append(f"tau: {found.tau:g}")
    for name, half in (
        ("the half that chose tau", found.chosen_on),
        ("the other half", found.checked_on),
    ):
        said.append(f"{name}, {half.questions} questions:")
        said.append(f"  {best} answers alone:        {100 * half.alone:.0f}%")
        said.append(f"  right with this tau:         {half.right.percent()}")
        said.append(f"  right if all always answer:  {half.mixture.percent()}")
        said.append(f"  right if {best} always answers alone: {half.best.percent()}")
        said.append(f"  fewer right answers in 100:  {half.loss.percent()}")
    if found.checked_on.best.value >= found.checked_on.right.value:
        said.append(
            f"On the other half, {best} alone is right at least as often, so the mixture does not pay "
            "here."
        )
    return said


def _to_json(found: "Calibration") -> dict[str, Any]:
    def half(of: "Outcome | None") -> dict[str, Any] | None:
        if of is None:
            return None
        return {
            "questions": of.questions,
            "alone": of.alone,
            **{
                name: {"value": each.value, "low": each.low, "high": each.high}
                for name in ("right", "mixture", "best", "loss")
                for each in [getattr(of, name)]
            },
        }

    return {
        "tau": found.tau,
        "auroc": found.auroc,
        "questions": found.trials,
        "chosen_on": half(found.chosen_on),
        "checked_on": half(found.checked_on),
    }
