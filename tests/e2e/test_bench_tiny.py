"""A benchmark run on real weights: answered, judged by a local model, scored, ablated, reported."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.load import load
from jobs.judges.pairwise import is_switched
from jobs.store import FILE, Store
from tests.conftest import Serving, user_environment

pytestmark = pytest.mark.weights

QWEN, SMOL = "qwen2.5-coder-0.5b", "smollm2-135m"
QUESTIONS = (
    "Name three colours.",
    "What is the capital of France?",
    "How many legs has a spider?",
)
Command = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the run and of what goes into it."""
    folder = tmp_path_factory.mktemp("bench")
    rows = [{"instruction": question, "dataset": "own"} for question in QUESTIONS]
    (folder / "set.json").write_text(json.dumps(rows), "utf-8")
    return folder


@pytest.fixture(scope="module")
def recipe(folder: Path) -> str:
    """The default recipe with short answers, as a file."""
    data = load("tiny_cpu").model_dump(mode="json", exclude_defaults=True)
    data["name"] = "short"
    for proposer in data["layers"][0]["proposers"]:
        proposer["sampling"] = {"temperature": 0.7, "max_tokens": 16}
    data["aggregator"]["sampling"] = {"temperature": 0.5, "max_tokens": 24}
    file = folder / "short.yaml"
    file.write_text(yaml.safe_dump(data), "utf-8")
    return str(file)


@pytest.fixture(scope="module")
def bench(serving: Serving, recipe: str) -> Iterator[Command]:
    """`slimmoa bench`, beside the application that serves the recipe; gives what it prints."""

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cli", "bench", *arguments],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env=user_environment(),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with serving(load(recipe)):
        yield command


@pytest.fixture(scope="module")
def run(bench: Command, folder: Path, recipe: str) -> str:
    """A run that is answered."""
    run = str(folder / "run")
    bench("run", "--set", str(folder / "set.json"), "--config", recipe, "--members", "--out", run)
    return run


def calls(run: str) -> int:
    with closing(sqlite3.connect(Path(run, FILE))) as file:
        count: int = file.execute("SELECT count(*) FROM calls").fetchone()[0]
        return count


def test_each_row_is_answered_by_the_mixture_and_its_members(run: str, bench: Command) -> None:
    status = json.loads(bench("status", run, "--json"))
    answered = {each["name"]: each["answered"] for each in status["generators"]}
    assert answered == dict.fromkeys(("short", QWEN, SMOL), len(QUESTIONS))
    assert calls(run) == 3 * len(QUESTIONS), "what a member proposed is its answer alone"


def test_a_local_judge_prefers_by_its_log_probabilities(run: str, bench: Command) -> None:
    bench("judge", run, "--judge", QWEN, "--baseline", SMOL, "--generator", "short")
    with Store.open(Path(run), read_only=True) as store:
        verdicts = list(store.verdicts(generator="short"))
    assert [verdict.switched for verdict in verdicts] == [is_switched(q) for q in QUESTIONS]
    values = [verdict.value for verdict in verdicts if verdict.value is not None]
    assert values
    assert all(1 <= value <= 2 for value in values)
    assert any(1 < value < 2 and value != 1.5 for value in values), "weighed, not counted"
    (score,) = json.loads(bench("score", run, "--json"))["scores"]
    assert score["win_rate"] == pytest.approx(100 * sum(v - 1 for v in values) / len(values))
    assert score["n"] + score["missing"] == len(QUESTIONS)
    assert score["note"].startswith("not comparable with the leaderboard (judge: qwen2.5-coder-0.5b")


def test_identical_outputs_cost_no_call(run: str, bench: Command, folder: Path) -> None:
    copy = str(folder / "copy.json")
    bench("export", run, "--generator", SMOL, "--output", copy)
    bench("import", run, copy, "--name", "copy")
    before = calls(run)
    shown = bench("judge", run, "--judge", QWEN, "--baseline", SMOL, "--generator", "copy")
    assert calls(run) == before
    assert shown.split("copy")[1].split()[:2] == ["0", str(len(QUESTIONS))], "judged, identical"


def test_an_ablation_and_a_report_of_it(run: str, bench: Command, folder: Path) -> None:
    found: dict[str, Any] = json.loads(
        bench("ablate", run, "--judge", QWEN, "--baseline", SMOL, "--json")
    )
    assert {gain["model"] for gain in found["gains"]} == {QWEN, SMOL}
    assert {each["model"] for each in found["aggregators"]} == {QWEN, SMOL}
    assert found["members"]["over_best"]["n"] > 0
    paid = calls(run)
    bench("ablate", run, "--judge", QWEN, "--baseline", SMOL)
    assert calls(run) == paid, "all of it was there"
    bench("report", run)
    page = (folder / "run" / "report.html").read_text("utf-8")
    assert "not comparable with the leaderboard" in page
