"""The commands of `slimmoa bench` on a finished run, with a judge behind a local server."""

import asyncio
import http.server
import json
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from jobs.judges.pairwise import is_switched
from jobs.records import Answer, Generator, Row
from jobs.store import Store
from jobs.variants import alone, mixture
from tests.unit.jobs.report.report_run import InventedRun, begin, recipe

ROWS = 3
MEMBER = "qwen2.5-7b"


class Judge(http.server.BaseHTTPRequestHandler):
    """A judge that always gives the same answer, as a stream of events."""

    says: ClassVar[str] = "Good.\nRating: [[7]]"
    logprobs: ClassVar[dict[str, Any] | None] = None
    """Log-probabilities of the answer, in OpenAI's form."""
    broken: ClassVar[bool] = False
    """Refuse all calls."""
    requests: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.broken:
            self._reply(400, "application/json", json.dumps({"error": {"message": "broken"}}))
            return
        choice = {"delta": {"content": self.says}, "logprobs": self.logprobs, "finish_reason": "stop"}
        events = f"data: {json.dumps({'choices': [choice]})}\n\ndata: [DONE]\n\n"
        self._reply(200, "text/event-stream", events)

    def _reply(self, status: int, content_type: str, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The options that name the judge; its server runs until the end of the test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Judge, "requests", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield f"--judge m --judge-url http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run whose rows a mixture and one of its models alone have answered."""
    folder = tmp_path / "run"
    folder.mkdir()
    with Store.open(folder) as store:
        begin(store, ROWS)
        variants = [mixture(recipe()), alone(recipe(), MEMBER)]
        asyncio.run(_answer(InventedRun(store, ROWS), variants))
    return folder


async def _answer(invented: InventedRun, variants: list[Any]) -> None:
    await invented.answer_with(variants)


def bench(command: str) -> Result:
    """The result of `slimmoa bench COMMAND`. A defect raises its own error."""
    result = CliRunner().invoke(app, ["bench", *shlex.split(command)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def table_rows(result: Result, exit_code: int = 0) -> dict[str, list[str]]:
    """The rows of a printed table: the words after the first word, by this first word."""
    assert result.exit_code == exit_code, result.output
    cells = [line.split() for line in result.stdout.splitlines()]
    return {line[0]: line[1:] for line in cells if line}


def test_grade_has_every_answer_graded_once(run: Path, judge: str) -> None:
    shown = table_rows(bench(f"grade {run} {judge}"))
    assert shown["generator"] == ["judged", "identical", "unusable", "failed", "missing", "judge"]
    assert shown["trio"][:5] == shown[MEMBER][:5] == ["3", "0", "0", "0", "0"]
    assert shown["trio"][5].startswith("m:grade-")
    assert len(Judge.requests) == 2 * ROWS
    assert {request["model"] for request in Judge.requests} == {"m"}
    with Store.open(run, read_only=True) as store:
        verdicts = [(each.generator, each.kind, each.value) for each in store.verdicts()]
    assert verdicts == [(MEMBER, "grade", 7)] * ROWS + [("trio", "grade", 7)] * ROWS

    Judge.requests.clear()
    assert table_rows(bench(f"grade {run} {judge}"))["trio"][:5] == ["3", "0", "0", "0", "0"]
    assert Judge.requests == []


def test_grade_shows_the_judge_the_references_of_a_file(run: Path, judge: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("index,output\n0,Known to be right.\n")
    bench(f"grade {run} {judge} --generator trio --references {path}")
    shown = ["Known to be right." in json.dumps(request) for request in Judge.requests]
    assert sorted(shown) == [False, False, True]
    with Store.open(run, read_only=True) as store:
        assert list(store.about()["references"].values()) == [{"file": "mine.csv", "rows": [0]}]
    refused = bench(f"grade {run} {judge} --references {tmp_path / 'none.csv'}")
    assert (refused.exit_code, "none.csv" in refused.stderr) == (1, True)


def test_a_judge_elsewhere_needs_no_recipe(tmp_path: Path, judge: str) -> None:
    folder = tmp_path / "imported"
    with Store.open(folder) as store:
        store.add_rows([Row(0, ("a",))])
        store.add_generator(Generator("x", "file", "1"))
        store.add_answers([Answer("x", 0, 0, "A")])
    assert table_rows(bench(f"grade {folder} {judge}"))["x"][:5] == ["1", "0", "0", "0", "0"]


def test_grade_takes_only_the_generators_that_are_named(run: Path, judge: str) -> None:
    shown = table_rows(bench(f"grade {run} {judge} --generator {MEMBER}"))
    assert MEMBER in shown
    assert "trio" not in shown
    assert len(Judge.requests) == ROWS


def test_failed_calls_end_the_command_with_1_and_are_made_again(
    run: Path, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "broken", True)
    failed = bench(f"grade {run} {judge} --generator trio")
    assert table_rows(failed, exit_code=1)["trio"][:5] == ["0", "0", "0", "3", "0"]
    assert "error: some calls of the judge failed; the same command retries them" in failed.stderr
    [[cause, count, detail]] = json.loads(bench(f"status {run} --json").stdout)["causes"]
    assert (cause.startswith("judge: "), count) == (True, ROWS)
    assert "broken" in detail

    monkeypatch.setattr(Judge, "broken", False)
    again = table_rows(bench(f"grade {run} {judge} --generator trio"))
    assert again["trio"][:5] == ["3", "0", "0", "0", "0"]


def test_judge_compares_with_a_baseline(run: Path, judge: str, monkeypatch: pytest.MonkeyPatch) -> None:
    top = [{"token": "m", "logprob": -0.1}, {"token": "M", "logprob": -3.0}]
    monkeypatch.setattr(Judge, "says", "m")
    monkeypatch.setattr(Judge, "logprobs", {"content": [{**top[0], "top_logprobs": top}]})
    shown = table_rows(bench(f"judge {run} {judge} --baseline {MEMBER}"))
    assert shown["trio"][:5] == ["3", "0", "0", "0", "0"]
    with Store.open(run, read_only=True) as store:
        questions = {row.index: row.turns[0] for row in store.rows()}
        for verdict in store.verdicts():
            assert verdict.value is not None
            assert (verdict.value > 1.5) == is_switched(questions[verdict.row])


def test_score_shows_the_mean_grades(run: Path, judge: str) -> None:
    assert bench(f"score {run}").stdout.startswith("no verdicts yet")
    bench(f"grade {run} {judge}")
    shown = table_rows(bench(f"score {run}"))
    assert shown["trio"][:3] == shown[MEMBER][:3] == ["3", "7.00", "7.00"]
    grades = json.loads(bench(f"score {run} --json").stdout)["grades"]
    assert [(each["generator"], each["n"], each["mean"]) for each in grades] == [
        (MEMBER, 3, 7.0),
        ("trio", 3, 7.0),
    ]


def test_score_takes_a_folder_or_a_file_of_judgements(run: Path) -> None:
    for command in ("score", f"score {run} --preferences judgements.csv"):
        result = bench(command)
        assert result.exit_code == 1
        assert "error: give either the folder of a run or --preferences" in result.stderr


def test_status_shows_how_far_the_generators_are(run: Path) -> None:
    result = bench(f"status {run}")
    assert result.exit_code == 0
    assert f"{run}: 3 rows of alpaca_eval" in result.stdout
    assert "nobody works on it" in result.stdout
    assert table_rows(result)["trio"] == ["mixture", "3/3", "0"]
    status = json.loads(bench(f"status {run} --json").stdout)
    assert (status["rows"], status["owner"], status["work"]) == (3, "", None)
    assert [(each["name"], each["answered"]) for each in status["generators"]] == [
        ("trio", 3),
        (MEMBER, 3),
    ]


def test_export_writes_the_answers_of_the_mixture(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "model_outputs.json"
    result = bench(f"export {run} -o {output}")
    assert result.exit_code == 0
    assert result.stderr == f"3 answers of trio: {output}\n"
    written = json.loads(output.read_text("utf-8"))
    assert [each["generator"] for each in written] == ["trio"] * ROWS

    bench(f"export {run} -o {output} --generator {MEMBER}")
    assert json.loads(output.read_text("utf-8"))[0]["generator"] == MEMBER
    assert bench(f"export {run} -o {output} --form xml").exit_code == 1


def test_report_writes_two_files(run: Path, judge: str) -> None:
    bench(f"grade {run} {judge}")
    result = bench(f"report {run}")
    assert result.exit_code == 0
    assert result.stderr.split() == [str(run / "report.html"), str(run / "report.md")]
    assert "## Grades" in (run / "report.md").read_text("utf-8")


@pytest.mark.parametrize(
    "command",
    [
        "grade {} --judge m --judge-url http://127.0.0.1:9/v1",
        "judge {} --judge m --judge-url http://127.0.0.1:9/v1 --baseline base",
        "status {}",
        "score {}",
        "export {} -o out.json",
        "report {}",
    ],
)
def test_a_folder_without_a_run_is_refused(tmp_path: Path, command: str) -> None:
    folder = tmp_path / "misspelt"
    result = bench(command.format(folder))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: no run in {folder}: there is no ")
    assert not folder.exists()


def test_a_judge_that_is_no_model_of_the_recipe_needs_a_url(run: Path) -> None:
    result = bench(f"grade {run} --judge gpt")
    assert result.exit_code == 1
    assert "error: --judge: 'gpt' is not a model of the run's recipe" in result.stderr
    assert "give --judge-url" in result.stderr


def test_an_address_that_is_no_url_is_refused(run: Path) -> None:
    result = bench(f"grade {run} --judge m --judge-url ftp://host/v1")
    assert result.exit_code == 1
    assert "'ftp://host/v1' is not the URL of an API" in result.stderr
