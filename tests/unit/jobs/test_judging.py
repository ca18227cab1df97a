"""Judging the answers of a run: whose answers, by whom, and what is refused."""

import re
import socket
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from configs.errors import UserError
from configs.schema import Recipe
from jobs.folder_lock import RunTaken, lock_folder
from jobs.judges.remote import RemoteJudge
from jobs.judging import (
    EvaluationTask,
    choose_generators,
    judge_answers,
    require_judge,
)
from jobs.records import Answer, Generator, Row
from jobs.run import RunError
from jobs.store import Store
from tests.unit.jobs.answering import recipe
from tests.unit.jobs.fake_apps import Apps

CONSOLE = Console(quiet=True)
REMOTE = RemoteJudge("gpt", "http://localhost:1/v1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run with two rows that `mix` and `base` answered, `solo` only one of them."""
    with Store.open(tmp_path) as store:
        store.add_rows([Row(0, ("one",)), Row(1, ("two",))])
        for name, rows in {"mix": 2, "base": 2, "solo": 1}.items():
            store.add_generator(Generator(name, "file", name))
            store.add_answers(Answer(name, row, 0, f"{name} {row}") for row in range(rows))
        about = recipe().model_dump(mode="json", exclude_defaults=True)
        store.set_about(recipe=about, seed=0, set={"name": "set", "count": 2})
    return tmp_path


@pytest.mark.parametrize(
    ("generators", "baseline", "chosen"),
    [
        ((), "base", ["mix", "solo"]),
        ((), None, ["mix", "base", "solo"]),
        (("solo", "mix"), "base", ["solo", "mix"]),
        (("base",), "base", ["base"]),
    ],
)
def test_all_generators_but_the_baseline_are_judged_unless_some_are_named(
    folder: Path, generators: tuple[str, ...], baseline: str | None, chosen: list[str]
) -> None:
    task = EvaluationTask(folder, "a", baseline, generators)
    with Store.open(folder, read_only=True) as store:
        assert choose_generators(store, task) == chosen


@pytest.mark.parametrize("baseline", ["base", None], ids=["pairs", "grades"])
def test_a_judge_where_nothing_listens_ends_the_command_at_once(
    folder: Path, baseline: str | None
) -> None:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
        task = EvaluationTask(folder, "gpt", baseline, remote=RemoteJudge("gpt", url))
        with pytest.raises(UserError, match=r"^[^\n]*gpt[^\n]*" + re.escape(url) + r"[^\n]*$"):
            judge_answers(task, "slimmoa bench judge", CONSOLE)


@pytest.mark.parametrize(
    ("generators", "baseline"), [(("nobody",), "base"), (("mix", "nobody"), None), ((), "nobody")]
)
def test_an_unknown_generator_is_named_with_the_known_ones(
    folder: Path, generators: tuple[str, ...], baseline: str | None
) -> None:
    task = EvaluationTask(folder, "a", baseline, generators)
    with Store.open(folder, read_only=True) as store, pytest.raises(RunError) as refused:
        choose_generators(store, task)
    assert str(refused.value) == (
        f"there is no generator 'nobody' in {folder}; known: mix, base, solo (add a file of outputs by "
        "`slimmoa bench import`)"
    )


def test_a_run_without_answers_has_no_generators(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, pytest.raises(RunError, match="known: none"):
        choose_generators(store, EvaluationTask(tmp_path, "a", "base"))


def test_a_judge_is_a_model_of_the_recipe_or_elsewhere() -> None:
    require_judge(recipe(), EvaluationTask(Path("run"), "c"))
    require_judge(recipe(), EvaluationTask(Path("run"), "gpt", remote=REMOTE))
    with pytest.raises(RunError) as refused:
        require_judge(recipe(), EvaluationTask(Path("run"), "gpt"))
    assert str(refused.value) == (
        "--judge: 'gpt' is not a model of the run's recipe (it has: a, b, c, y, z); for a model "
        "elsewhere give --judge-url"
    )


@pytest.mark.parametrize(
    ("judge", "baseline", "message"),
    [
        ("gpt", None, "^--judge: 'gpt' is not a model"),
        ("a", "nobody", "^there is no generator 'nobody'"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_models_start(
    apps: Apps,
    folder: Path,
    judge: str,
    baseline: str | None,
    message: str,
) -> None:
    with pytest.raises(RunError, match=message):
        judge_answers(EvaluationTask(folder, judge, baseline), "bench judge", CONSOLE)
    assert apps.events == []


def test_a_run_without_a_recipe_is_refused(apps: Apps, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a new run: give --config, the recipe"):
        judge_answers(EvaluationTask(tmp_path, "a"), "bench judge", CONSOLE)
    assert apps.events == []


def test_a_folder_in_use_is_refused_with_its_owner(apps: Apps, folder: Path) -> None:
    with (
        lock_folder(folder, "bench run"),
        pytest.raises(RunTaken, match=r"is in use by .*: bench run$"),
    ):
        judge_answers(EvaluationTask(folder, "a"), "bench judge", CONSOLE)
    assert apps.events == []


def test_a_model_of_the_recipe_grades_every_generator(apps: Apps, folder: Path) -> None:
    apps.models.scripts["c"] = ["Good.\nRating: [[7]]"]
    task = EvaluationTask(folder, "c", in_flight=3)
    found = judge_answers(task, "bench grade", CONSOLE)
    counts = {name: (each.judged, each.missing, each.reused) for name, each in found.items()}
    assert counts == {"mix": (2, 0, 0), "base": (2, 0, 0), "solo": (1, 1, 0)}
    assert apps.events == [f"open {folder.name} for 3", "close"]
    with Store.open(folder, read_only=True) as store:
        assert [verdict.value for verdict in store.verdicts()] == [7] * 5
        assert {(judge.partition(":")[0], kind) for judge, kind, _ in store.judgements()} == {
            ("c", "grade")
        }
    again = judge_answers(task, "bench grade", CONSOLE)
    assert {name: each.reused for name, each in again.items()} == {"mix": 2, "base": 2, "solo": 1}
    assert len(apps.models.calls("c")) == 5


def test_the_recipe_of_a_run_is_the_one_that_counts(apps: Apps, folder: Path) -> None:
    models = {name: {"engine": "scripted"} for name in "abz"}
    other = Recipe.model_validate(recipe().model_dump() | {"models": models})
    with Store.open(folder) as store:
        store.set_about(recipe=other.model_dump(mode="json", exclude_defaults=True))
    with pytest.raises(RunError, match=r"\(it has: a, b, z\)"):
        judge_answers(EvaluationTask(folder, "c"), "bench grade", CONSOLE)
    assert apps.events == []
