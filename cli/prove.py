"""The command `slimmoa prove`: is a mixture better than its best member, and at what price?"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cli.bench_options import (
    MOST_ROWS,
    NO_ANSWERS,
    AddressOption,
    ColumnOption,
    InFlightOption,
    JsonOption,
    JudgeKeyOption,
    JudgeUrlOption,
    SeedOption,
    VerboseOption,
    command_line,
    load_questions,
    must_be_run,
    submit_if_address,
)
from cli.console import err, exit_on_user_error, fail, load_or_fail, out, show
from configs.urls import api_root

if TYPE_CHECKING:
    from configs.schema import AnswerForm, Recipe
    from jobs.judges.remote import RemoteJudge
    from jobs.sets import LoadedSet

LIBRARIES = ("numpy", "scipy", "jinja2", "matplotlib")
"""What the figures and the page need, and the core does not."""
DEFAULT_SET = "gsm8k"
NO_SANDBOX = (
    "--run-code: programs that models wrote are never run here, because there is no sandbox for them. "
    "Without this option a judge compares the programs; for the official score, export the answers "
    "(`slimmoa bench export`) and run human-eval's own tool on a machine that you can lose"
)


def prove(
    config: Annotated[str, typer.Argument(help="Recipe file, or a preset of `slimmoa presets`.")],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--set",
            help="The questions: a file of yours, best with the right answers in a field `reference`, "
            "or one of the sets gsm8k, hellaswag, truthfulqa, humaneval, alpaca_eval, mt_bench and "
            "arena_hard.  [default: gsm8k]",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the proof: a new folder, or a proof that is to go on.  [default: "
            "proof-NAME-SET]",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_ROWS, help="Ask only this many questions: the first of the set."),
    ] = None,
    column: ColumnOption = None,
    answer: Annotated[
        str | None,
        typer.Option(
            help="Where the answer stands in a text: number, letter, boxed, or a regular expression. "
            "By default this is found out from the right answers."
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="The model that compares the answers if no right answers are known: a model of the "
            "recipe, or with --judge-url a model of that server. By default it is the aggregator, "
            "which is partial."
        ),
    ] = None,
    judge_url: JudgeUrlOption = None,
    judge_key_env: JudgeKeyOption = None,
    run_code: Annotated[
        bool,
        typer.Option(
            "--run-code", help="Is refused, because programs that models wrote are never run here."
        ),
    ] = False,
    page_only: Annotated[
        bool,
        typer.Option("--page", help="Ask nothing, and write the page from the answers that are there."),
    ] = False,
    seed: SeedOption = 0,
    in_flight: InFlightOption = 1024,
    address: AddressOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find out whether a mixture is better than its best member, and what it costs.

    The members are the models of the mixture. On the same questions, the mixture is compared with each
    member alone, with as many answers of the best member, and with other methods, such as a pick. If
    the command is interrupted, the same command goes on and asks nothing twice. It writes a page, and
    prints the same sentences.
    """
    if run_code:
        fail(NO_SANDBOX)
    if judge_url is not None and judge is None:
        fail("--judge-url needs --judge, the model's name on that server")
    if judge is not None and answer is not None:
        fail("give --answer if the right answers are known, or --judge if they are not, but not both")
    _require_libraries()
    submit_if_address(address)
    from jobs.prove.work import ProveTask
    from jobs.prove.work import prove as work

    recipe = load_or_fail(config)
    with exit_on_user_error():
        name = dataset or DEFAULT_SET
        run = folder or Path(f"proof-{recipe.name}-{Path(name).stem}".replace("/", "-"))
        if page_only:
            must_be_run(run)
        else:
            if dataset is None:
                _say(
                    "no --set is given, so the 100 questions of GSM8K (sums in words) are asked; your "
                    "own questions would tell you more"
                )
            loaded = load_questions(name, limit, column)
            form = _form(name, loaded, answer, judged=judge is not None)
            by, remote = (
                ("", None) if form is not None else _judge(recipe, judge, judge_url, judge_key_env)
            )
            work(
                ProveTask(run, recipe, loaded, form, by, remote, seed, in_flight, verbose, _file(name)),
                command_line(),
                err,
            )
    _show(run, as_json=as_json)


def _file(name: str) -> str:
    """The name of a file of the user's own, without its folder; empty for a public set."""
    return Path(name).name if Path(name).is_file() else ""


def _require_libraries() -> None:
    """End the command before it asks anything if the page could not be written at the end."""
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        fail(f"prove needs {' and '.join(missing)}: pip install 'slimmoa[bench]'")


def _form(name: str, loaded: "LoadedSet", answer: str | None, *, judged: bool) -> "AnswerForm | None":
    """Where the answers stand; None if a judge compares them."""
    from cli.calibrate import answer_form
    from jobs.calibrate import right_answers
    from jobs.prove.form import find_form, known_answers
    from jobs.sets.checkable import known_name

    if judged:
        return None
    known = known_answers(loaded.rows)
    form = find_form(known) if answer is None else answer_form(answer)
    if answer is not None and not known:
        fail(f"--answer: {name} {NO_ANSWERS} to compare with")
    if form is None:
        texts = "are whole texts" if known else "are not known"
        _say(f"the right answers of {name} {texts}, so a judge compares the answers")
        if known_name(name) == "humaneval":
            _say("programs are compared as texts: nothing runs them")
        return None
    found = [answers for each in known if (answers := right_answers(each, form))]
    if not found:
        fail(
            f"--answer {answer}: nothing is found by this in the right answers of {name}, for example "
            f"in {known[0][0]!r:.80}; name the place where a right answer stands, or leave it out"
        )
    shown = form if isinstance(form, str) else "text"
    having = "1 question has" if len(found) == 1 else f"{len(found)} questions have"
    _say(f"{having} a right answer, a {shown}, for example {min(found[0])!r:.80}")
    if len(found) < loaded.count:
        _say(f"{loaded.count - len(found)} questions have no such answer and are not counted")
    return form


def _judge(
    recipe: "Recipe", judge: str | None, url: str | None, key_env: str | None
) -> "tuple[str, RemoteJudge | None]":
    from jobs.judges.remote import RemoteJudge

    if judge is None:
        by = recipe.aggregator.model
        _say(
            f"the judge is {by}, a model of the mixture itself: it is partial, and a small model is a "
            "weak judge; --judge and --judge-url name another one"
        )
        return by, None
    if url is not None:
        return judge, RemoteJudge(judge, api_root(url, "--judge-url", adds_version=False), key_env)
    if judge not in recipe.names:
        _unknown_judge(judge, recipe)
    return judge, None


def _unknown_judge(judge: str, recipe: "Recipe") -> NoReturn:
    fail(
        f"--judge: {judge!r} is not a model of the recipe (it has: {', '.join(recipe.names)}); for a "
        "model elsewhere give --judge-url"
    )


def _show(folder: Path, *, as_json: bool) -> None:
    from jobs.prove.facts import read_proof
    from jobs.prove.page import lines, table, to_json, write
    from jobs.store import Store

    with exit_on_user_error(), Store.open(folder, read_only=True) as store:
        proof = read_proof(store, folder)
        page = write(proof, folder)
    if as_json:
        print(json.dumps(to_json(proof), indent=2))
    else:
        for line in lines(proof):
            out.print(line, highlight=False, markup=False)
        out.print()
        show(table(proof))
    _say(f"the page: {page}")
    if proof.failed:
        fail(f"{proof.failed} answers or verdicts failed; the same command tries them again")


def _say(text: str) -> None:
    err.print(text, highlight=False, markup=False)
