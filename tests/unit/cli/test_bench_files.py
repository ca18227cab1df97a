"""The commands of `slimmoa bench` with files of the field, and with names as people type them."""

import asyncio
import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from jobs.records import Answer, Generator, Row, Verdict
from jobs.store import Store

PAIRWISE, GRADE = "org/judge:7b:pairwise-0123abcd", "org/judge:7b:grade-89abcdef"


def bench(command: str) -> Result:
    """The result of `slimmoa bench COMMAND`. A defect raises its own error."""
    result = CliRunner().invoke(app, ["bench", *shlex.split(command)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two rows with two turns, in which `one` is judged against `base`, and graded."""
    folder = tmp_path / "run"
    with Store.open(folder) as store:
        store.add_rows(Row(n, (f"q{n}", "and?"), category="math", id=101 + n) for n in range(2))
        for name in ("base", "one"):
            store.add_generator(Generator(name, "file", name))
            store.add_answers(Answer(name, n, t, f"{name} {n}.{t}") for n in range(2) for t in (0, 1))
        asyncio.run(judged(store))
    return folder


async def judged(store: Store) -> None:
    for row in range(2):
        await store.keep_verdict(Verdict(PAIRWISE, "pairwise", "one", "base", row, 0, 2.0))
        await store.keep_verdict(Verdict(GRADE, "grade", "one", "", row, 0, 7.0))


@pytest.mark.parametrize(
    ("options", "scores", "grades"),
    [
        ("", 1, 1),
        ("--judge org/judge:7b", 1, 1),
        (f"--judge {PAIRWISE}", 1, 0),
        ("--judge org/judge:7b:grade", 0, 1),
        ("--baseline base", 1, 0),
        ("--judge org/judge:7b --baseline base", 1, 0),
    ],
)
def test_a_models_name_finds_its_verdicts(run: Path, options: str, scores: int, grades: int) -> None:
    found = json.loads(bench(f"score {run} --json {options}").stdout)
    assert (len(found["scores"]), len(found["grades"])) == (scores, grades)


@pytest.mark.parametrize("options", ["--judge judge", "--judge org/judge", "--baseline nobody"])
def test_a_name_without_verdicts_ends_the_command_with_1(run: Path, options: str) -> None:
    for more in ("", "--json"):
        result = bench(f"score {run} {options} {more}")
        assert (result.exit_code, result.stdout) == (1, "")
        assert (
            f"has no verdicts for {options.split()[0]} {options.split()[1]!r}; judges: "
            in result.stderr
        )
        assert f"judges: {GRADE}, {PAIRWISE}; baselines: base" in result.stderr


def test_a_win_rate_over_first_turns_says_so(run: Path) -> None:
    (found,) = json.loads(bench(f"score {run} --json").stdout)["scores"]
    assert "only the first turn of 2 rows with several turns" in found["reasons"]
    assert "set: 2 of 2 rows are not AlpacaEval's" in found["reasons"]


def test_difficulties_of_alpaca_eval_are_refused_for_another_set(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "instruction_difficulty.csv"
    path.write_text("index,instruction_difficulty\n0,0.5\n1,0.25\n")
    for command in ("score", "report"):
        result = bench(f"{command} {run} --difficulty {path}")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "2 of 2 rows of 'one' have other instructions" in result.stderr


def test_a_file_of_judgements_is_filtered_by_the_names_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "judgements.tsv"
    path.write_text(
        "generator\tinstruction\tpreference\tlen_1\tlen_2\tjudge\tbaseline\n"
        "one\ta\t2\t1\t1\tJ\tB\none\ta\t1\t1\t1\tK\tB\n"
    )
    both = json.loads(bench(f"score --preferences {path} --json").stdout)["scores"]
    assert [(each["judge"], each["win_rate"]) for each in both] == [("J", 100), ("K", 0)]
    (one,) = json.loads(bench(f"score --preferences {path} --judge K --json").stdout)["scores"]
    assert (one["judge"], one["baseline"], one["win_rate"]) == ("K", "B", 0)
    result = bench(f"score --preferences {path} --judge L")
    assert result.exit_code == 1
    assert "has no verdicts for --judge 'L'; judges: J, K; baselines: B" in result.stderr


def test_import_counts_what_is_missing(run: Path, tmp_path: Path) -> None:
    answers = tmp_path / "gpt.jsonl"
    choices = [{"index": 0, "turns": ["A", "B"]}]
    answers.write_text(json.dumps({"question_id": 102, "model_id": "gpt", "choices": choices}))
    result = bench(f"import {run} {answers} --name gpt")
    assert (result.exit_code, result.stderr) == (0, "gpt: 1 answers; 1 of 2 rows have none (0)\n")
    assert (
        bench(f"export {run} --generator gpt -o {tmp_path / 'o.jsonl'} --form fastchat").exit_code == 1
    )
    result = bench(
        f"export {run} --generator gpt -o {tmp_path / 'o.jsonl'} --form fastchat --allow-partial"
    )
    assert result.exit_code == 0
    assert result.stderr.startswith("1 answers of gpt, without 1 rows that have no answer: ")
    assert json.loads((tmp_path / "o.jsonl").read_text())["choices"] == choices


def test_import_can_make_a_run_without_a_recipe(tmp_path: Path) -> None:
    folder, questions, answers = (tmp_path / name for name in ("new", "s.ndjson", "o.csv"))
    questions.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    answers.write_text("prompt,output\na,A\n")
    result = bench(f"import {folder} {answers} --name x --set {questions}")
    assert (result.exit_code, result.stderr) == (0, "x: 1 answers; 1 of 2 rows have none (1)\n")
    assert bench(f"import {folder} {answers} --name y").exit_code == 0
    assert "2 rows of s" in bench(f"status {folder}").stdout
    assert bench(f"score {folder}").stdout.startswith("no verdicts yet")
    assert bench(f"report {folder}").exit_code == 0
    other = tmp_path / "other.csv"
    other.write_text("prompt\nc\nd\n")
    refused = bench(f"import {folder} {answers} --name z --set {other}")
    assert (refused.exit_code, "the run's set is 's', not 'other'" in refused.stderr) == (1, True)


def test_import_takes_columns_of_any_name(tmp_path: Path) -> None:
    table = tmp_path / "answers.csv"
    table.write_text("frage;antwort\nq0;A\n")
    single = tmp_path / "single"
    with Store.open(single) as store:
        store.add_rows([Row(0, ("q0",))])
    result = bench(f"import {single} {table} --name x --column frage --output-column antwort")
    assert (result.exit_code, result.stderr) == (0, "x: 1 answers\n")
    result = bench(f"import {single} {table} --name y --column frage")
    assert result.exit_code == 1
    assert "the field 'output' must be a text, it is missing" in result.stderr
