"""No command can end in a traceback, whatever a person gives it: every command of the tree, with bad
values for each of its parameters. Nothing is started here: a command that would start Ray has
passed."""

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from cli.main import app
from configs.errors import UserError
from jobs.store import Store
from jobs.variants import alone, mixture
from serve_app.access.api_keys import generate_key, key_line
from tests.unit.cli.bad_values import Case, cases, commands
from tests.unit.jobs.report.report_run import InventedRun, begin, recipe

ROOT = Path(__file__).parents[3]
ROWS = 2
RECIPE = """
name: mix
models: {a: {engine: scripted}}
layers: [{proposers: [{model: a}]}]
aggregator: {model: a}
"""
MEMBER = "qwen2.5-7b"
PYTHONS = re.compile(
    r"Traceback|\[Errno|pydantic|Input should|input should|valid string|valid integer|dictionary|tuple"
    r"|NoneType|<class|object at 0x|codec can't|MemoryError|\.partial|\w+Error\b|should match|__"
)
"""Words that only a person who knows Python understands."""


class Reached(UserError):
    """The command has read all that it was given, and would start something now."""


def reached(*_: object, **__: object) -> NoReturn:
    raise Reached("reached")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose rows have answers, a set, a recipe, and keys."""
    folder = tmp_path_factory.mktemp("given") / "a" / "b" / "c"
    (folder / "run").mkdir(parents=True)
    with Store.open(folder / "run") as store:
        begin(store, ROWS)
        variants = [mixture(recipe()), alone(recipe(), MEMBER)]
        asyncio.run(_answer(InventedRun(store, ROWS), variants))
    (folder / "mix.yaml").write_text(RECIPE)
    (folder / "set.jsonl").write_text('{"instruction": "Why?"}\n')
    (folder / "outputs.json").write_text('[{"index": 0, "output": "a"}, {"index": 1, "output": "b"}]')
    (folder / "keys.yaml").write_text(key_line("alice", generate_key()))
    return folder


async def _answer(invented: InventedRun, variants: list[Any]) -> None:
    await invented.answer_with(variants)


def valid(folder: Path) -> dict[tuple[str, ...], dict[str, list[str]]]:
    """Words for the parameters that each command needs, by the parameter's name."""
    run = [str(folder / "run")]
    judge = {"folder": run, "judge": ["--judge", "m"], "judge_url": ["--judge-url", "127.0.0.1:1"]}
    recipe_file = {"config": [str(folder / "mix.yaml")]}
    url = {"url": ["--url", "127.0.0.1:1"]}
    return {
        ("serve",): recipe_file,
        ("export",): recipe_file,
        ("plan",): {"config": ["moa_24gb"], "card": ["--card", "RTX-4090"]},
        ("models",): recipe_file,
        ("presets",): {"card": ["--card", "RTX-4090"]},
        ("check",): {"configs": [str(folder / "mix.yaml")]},
        ("calibrate",): {
            "config": [str(folder / "mix.yaml")],
            "dataset": [str(folder / "set.jsonl")],
            "answer": ["--answer", "number"],
        },
        ("prove",): {
            "config": [str(folder / "mix.yaml")],
            "dataset": ["--set", str(folder / "set.jsonl")],
            "answer": ["--answer", "number"],
        },
        ("ask",): {"question": ["Why?"], **url},
        ("chat",): url,
        ("status",): url,
        ("keys", "new"): {"name": ["--name", "alice"]},
        ("new",): {"names": [str(folder / "new.yaml"), "no-such-model"]},
        ("bench", "run"): {
            "folder": ["--out", str(folder / "fresh")],
            "dataset": ["--set", str(folder / "set.jsonl")],
            "config": ["--config", str(folder / "mix.yaml")],
        },
        ("bench", "status"): {"folder": run},
        ("bench", "import"): {
            "folder": run,
            "file": [str(folder / "outputs.json")],
            "name": ["--name", "base"],
        },
        ("bench", "export"): {"folder": run, "output": ["--output", str(folder / "out.json")]},
        ("bench", "judge"): {**judge, "baseline": ["--baseline", MEMBER]},
        ("bench", "grade"): judge,
        ("bench", "ablate"): {**judge, "baseline": ["--baseline", MEMBER]},
        ("bench", "score"): {"folder": run},
        ("bench", "report"): {"folder": run},
    }


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SLIMMOA_CACHE", str(folder / "cache"))
    for name in ("SLIMMOA_CARDS", "SLIMMOA_URL", "SLIMMOA_API_KEY", "SLIMMOA_API_KEYS"):
        monkeypatch.delenv(name, raising=False)
    for start in (
        "cluster.ray_runtime.connect",
        "cli.ray_job.submit",
        "jobs.run.open_model_app",
        "jobs.judges.remote.engines.create",
        "cli.serve.download_missing_weights",
        "cli.presets.Table",
    ):
        monkeypatch.setattr(start, reached)
    monkeypatch.setattr("cluster.ray_runtime.disconnect", lambda *_, **__: None)
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    monkeypatch.setattr("actors.weights.named_models.known_ids", lambda: ["Qwen/Qwen3-8B"])


def _no_network(*_: object, **__: object) -> list[Any]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def check(case: Case) -> str:
    """What is wrong with how a command ends; "" if nothing is."""
    ran = CliRunner().invoke(app, list(case.words), input="")
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        return f"{case}: raised {type(ran.exception).__name__}: {str(ran.exception)[:200]}"
    said = ran.output.replace("x" * 5000, "")
    if found := PYTHONS.search(said):
        return f"{case}: says {found[0]!r}: {said[:400]}"
    if ran.exit_code not in (0, 1, 2):
        return f"{case}: exit code {ran.exit_code}"
    if ran.exit_code and not ran.output.strip():
        return f"{case}: ends with {ran.exit_code} in silence"
    return ""


def everything() -> Iterator[str]:
    return (" ".join(path) for path, _ in commands())


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [
        ("> /dev/full", 1, "error: cannot write the output: the disk is full"),
        ("2> /dev/full", 0, ""),
        (">&-", 0, ""),
        ("| true", 0, ""),
    ],
)
def test_output_that_cannot_be_written_is_told_in_a_line_or_not_at_all(
    folder: Path, redirected: str, code: int, said: str
) -> None:
    command = f"{sys.executable} -m cli check {folder / 'mix.yaml'} {redirected}"
    ran = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.returncode, ran.stderr.strip()) == (code, said)


@pytest.mark.parametrize("command", sorted(everything()))
def test_no_bad_value_ends_a_command_in_a_traceback(command: str, folder: Path, tmp_path: Path) -> None:
    path = tuple(command.split())
    mine = list(cases(path, valid(folder)[path], tmp_path))
    assert len(mine) >= 5
    faults = [fault for case in mine if (fault := check(case))]
    assert not faults, "\n".join(faults)
