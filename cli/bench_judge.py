"""The commands of `slimmoa bench` that ask a judge: judge, grade and ablate."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.bench_options import (
    AddressOption,
    BaselineOption,
    InFlightOption,
    JsonOption,
    JudgeKeyOption,
    JudgeOption,
    JudgeUrlOption,
    PromptOption,
    RunArgument,
    VerboseOption,
    command_line,
    must_be_run,
    submit_if_address,
)
from cli.console import err, exit_on_user_error, fail, show
from configs.urls import api_root

if TYPE_CHECKING:
    from jobs.judging import EvaluationTask


def judge(
    folder: RunArgument,
    judge: JudgeOption,
    baseline: BaselineOption,
    generator: Annotated[
        list[str] | None,
        typer.Option(help="Judge only this generator's answers, not all; may be repeated."),
    ] = None,
    prompt: PromptOption = None,
    judge_url: JudgeUrlOption = None,
    judge_key_env: JudgeKeyOption = None,
    in_flight: InFlightOption = 256,
    address: AddressOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Have a judge compare each answer with a baseline's.

    It is asked as AlpacaEval 2 asks: which of the two is better?

    Verdicts that are there are not asked for again. A judge must give log-probabilities.
    """
    submit_if_address(address)
    where = (judge_url, judge_key_env, prompt, in_flight)
    _judge_and_show(_task(folder, judge, baseline, generator, *where, verbose=verbose))


def grade(
    folder: RunArgument,
    judge: JudgeOption,
    generator: Annotated[
        list[str] | None,
        typer.Option(help="Grade only this generator's answers, not all; may be repeated."),
    ] = None,
    prompt: PromptOption = None,
    references: Annotated[
        Path | None,
        typer.Option(help="Reference answers, such as FastChat's reference_answer/gpt-4.jsonl."),
    ] = None,
    judge_url: JudgeUrlOption = None,
    judge_key_env: JudgeKeyOption = None,
    in_flight: InFlightOption = 256,
    address: AddressOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Have a judge grade each answer from 1 to 10.

    It grades as MT-Bench does, up to two turns.

    MT-Bench's judge sees reference answers for math, reasoning and coding only.
    """
    submit_if_address(address)
    where = (judge_url, judge_key_env, prompt, in_flight)
    task = _task(folder, judge, None, generator, *where, verbose=verbose)
    _judge_and_show(replace(task, references=references))


def ablate(
    folder: RunArgument,
    judge: JudgeOption,
    baseline: BaselineOption,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="proposers, aggregators, members or quantized; the first three by default. Repeatable."
        ),
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(help="A model to add as proposer and to aggregate with; all by default."),
    ] = None,
    unquantized: Annotated[
        list[str] | None,
        typer.Option(help="QUANTIZED=UNQUANTIZED, two models of the recipe. Repeatable."),
    ] = None,
    prompt: PromptOption = None,
    judge_url: JudgeUrlOption = None,
    judge_key_env: JudgeKeyOption = None,
    in_flight: InFlightOption = 1024,
    as_json: JsonOption = False,
    address: AddressOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Measure what each part of a mixture adds to its answers.

    The parts are each proposer, each aggregator and the mixture itself; intervals are of a paired
    bootstrap. Variants are answered and judged on the run's rows; what is stored is not computed again.
    """
    submit_if_address(address)
    from jobs.judging import AblationOptions, run_ablation

    parts: Any = part or (["quantized"] if unquantized else ["proposers", "aggregators", "members"])
    pairs = dict(_pair(text) for text in unquantized or ())
    where = (judge_url, judge_key_env, prompt, in_flight)
    task = _task(folder, judge, baseline, None, *where, verbose=verbose)
    with exit_on_user_error():
        findings = run_ablation(task, AblationOptions(parts, candidate, pairs), command_line(), err)
    if as_json:
        print(json.dumps(findings.to_json(), indent=2))
        return
    from jobs.ablation.table import tables

    for table in tables(findings):
        show(table)


def _task(
    folder: Path,
    judge: str,
    baseline: str | None,
    generators: list[str] | None,
    url: str | None,
    key_env: str | None,
    prompt: Path | None,
    in_flight: int,
    *,
    verbose: bool,
) -> "EvaluationTask":
    from jobs.judges.remote import RemoteJudge
    from jobs.judging import EvaluationTask

    must_be_run(folder)
    remote = None
    if url is not None:
        root = api_root(url, "--judge-url", adds_version=False)
        remote = RemoteJudge(judge, root, key_env)
    names = tuple(generators or ())
    return EvaluationTask(
        folder, judge, baseline, names, remote, prompt, in_flight=in_flight, verbose=verbose
    )


def _judge_and_show(task: "EvaluationTask") -> None:
    from jobs.judging import judge_answers
    from jobs.scores.table import summary_table

    with exit_on_user_error():
        found = judge_answers(task, command_line(), err)
    show(summary_table(found))
    if any(each.failed for each in found.values()):
        fail("some calls of the judge failed; the same command retries them")


def _pair(text: str) -> tuple[str, str]:
    quantized, sign, unquantized = text.partition("=")
    if not (sign and quantized and unquantized):
        fail(f"--unquantized: {text!r} does not name two models of the recipe as QUANTIZED=UNQUANTIZED")
    return quantized, unquantized
