"""Benchmark runs through the command line, over a graph that serves already; calls are counted by the
engines themselves."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import ray_runtime
from configs.schema import Recipe
from jobs.judges.pairwise import is_switched
from tests.conftest import Endpoint, Serving, user_environment

ROWS = 24
QUICK = {"engine": "scripted", "tokens": 12, "first_token_s": 0.005, "token_s": 0.0005}


@dataclass
class Bench:
    """A folder to run in, beside an application that serves `models`."""

    folder: Path
    models: dict[str, Any]
    journal: Path
    endpoint: Endpoint

    def recipe(self, *proposers: str, aggregator: str = "w", **models: Any) -> str:
        """A recipe file over the served models, changed as `models` says."""
        recipe = {
            "name": "mix",
            "models": self.models | models,
            "layers": [{"proposers": [{"model": model} for model in proposers]}],
            "aggregator": {"model": aggregator},
        }
        file = self.folder / "recipe.yaml"
        file.write_text(yaml.safe_dump(recipe), "utf-8")
        return str(file)

    def slimmoa(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command in a user's shell. Other tests may have a Ray of their own on this machine, too."""
        command = [sys.executable, "-m", "cli", "bench", *arguments]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env=user_environment(**environment),
        )

    def run(self, config: str, *more: str) -> Counter[str]:
        """Start or go on with the run; which engine calls that cost, by model."""
        before = self.calls()
        done = self.slimmoa("run", "--config", config, "--out", str(self.folder / "run"), *more)
        assert done.returncode == 0, done.stderr
        assert "using the running application slimmoa" in done.stderr
        return self.calls() - before

    def calls(self) -> Counter[str]:
        lines = self.journal.read_text("utf-8").splitlines() if self.journal.exists() else []
        return Counter(json.loads(line)["model"] for line in lines)


@pytest.fixture(scope="module")
def bench(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    journal = folder / "journal.jsonl"
    noted = {**QUICK, "weight_bytes": 1_000_000, "journal": str(journal)}
    models = dict.fromkeys(("a", "b", "c", "w", "v"), noted) | {
        "judge": {**noted, "text": "m"},
    }
    questions = [{"instruction": f"Question {n}?", "dataset": "own"} for n in range(ROWS)]
    (folder / "set.json").write_text(json.dumps(questions), "utf-8")
    layers = [{"proposers": [{"model": "a"}]}]
    recipe = {"name": "any", "models": models, "layers": layers, "aggregator": {"model": "w"}}
    with serving(Recipe.model_validate(recipe)) as endpoint:
        yield Bench(folder, models, journal, endpoint)


def test_a_run_costs_only_what_no_run_before_has_paid_for(bench: Bench) -> None:
    dataset = ("--set", str(bench.folder / "set.json"))
    assert bench.run(bench.recipe("a", "b"), *dataset) == {"a": ROWS, "b": ROWS, "w": ROWS}
    assert bench.run(bench.recipe("a", "b")) == {}, "all is there"
    assert bench.run(bench.recipe("a", "b", "c")) == {"c": ROWS, "w": ROWS}, "a proposer more"
    assert bench.run(bench.recipe("a", "b", aggregator="v")) == {"v": ROWS}, "another aggregator"
    assert bench.run(bench.recipe("a", "b"), "--members") == {"w": ROWS}, "proposals are answers"
    status = json.loads(bench.slimmoa("status", str(bench.folder / "run"), "--json").stdout)
    answered = {each["name"]: each["answered"] for each in status["generators"]}
    assert answered.pop("mix") == ROWS
    assert {answered.pop(name) for name in ("a", "b", "w")} == {ROWS}
    assert [(name[:4], n) for name, n in answered.items()] == [("mix-", ROWS), ("mix-", ROWS)]


def test_a_named_application_with_another_model_is_refused(bench: Bench) -> None:
    other = bench.recipe("a", "b", b={**bench.models["b"], "tokens": 99})
    run, here = str(bench.folder / "run"), ray_runtime.this_cluster()
    done = bench.slimmoa("run", "--config", other, "--out", run, RAY_ADDRESS=here)
    assert done.returncode == 1
    assert "has another model 'b' than the recipe" in done.stderr
    with bench.endpoint.client() as client:
        assert next(model.id for model in client.models.list()) == "any", "it still serves"


def test_verdicts_scores_and_exports_of_a_run(bench: Bench) -> None:
    run = str(bench.folder / "run")
    judging = ("judge", run, "--judge", "judge", "--baseline", "w", "--generator", "mix")
    before = bench.calls()
    done = bench.slimmoa(*judging)
    assert done.returncode == 0, done.stderr
    spent = bench.calls() - before
    assert spent == {"judge": ROWS + 1}, "each pair once, and one trial"
    assert bench.slimmoa(*judging).returncode == 0
    assert bench.calls() - before == {"judge": ROWS + 1}, "verdicts are kept"
    (score,) = json.loads(bench.slimmoa("score", run, "--json").stdout)["scores"]
    # The scripted judge prefers what it is shown first.
    first = sum(is_switched(f"Question {n}?") for n in range(ROWS))
    assert score["win_rate"] == pytest.approx(100 * first / ROWS)
    assert "not comparable with the leaderboard" in score["note"]
    output = bench.folder / "outputs.json"
    done = bench.slimmoa("export", run, "--generator", "mix", "--output", str(output))
    assert done.returncode == 0, done.stderr
    exported = json.loads(output.read_text("utf-8"))
    assert [each["instruction"] for each in exported] == [f"Question {n}?" for n in range(ROWS)]
    assert {each["generator"] for each in exported} == {"mix"}
