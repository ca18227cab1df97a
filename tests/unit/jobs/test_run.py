"""A run from its folder to its answers: what it refuses, what it keeps, and what it ends."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from configs.schema import Recipe
from jobs.app_choice import ModelAppMismatch
from jobs.folder_lock import RunTaken, lock_folder
from jobs.generate import GenerateProgress
from jobs.run import RunError, RunModels, RunTask, answer_set, prepare_run
from jobs.sets import LoadedSet, load_set
from jobs.store import Store
from jobs.variants import VariantError
from tests.unit.jobs.answering import recipe
from tests.unit.jobs.fake_apps import Apps

CONSOLE = Console(quiet=True)


def a_set(folder: Path, *prompts: str, name: str = "set") -> LoadedSet:
    """The set of a file with these prompts."""
    file = folder / f"{name}.csv"
    file.write_text("\n".join(["prompt", *prompts]), "utf-8")
    return load_set(file)


def prepare(folder: Path, given: Recipe | None = None, loaded: LoadedSet | None = None) -> Recipe:
    with Store.open(folder) as store:
        return prepare_run(store, RunTask(folder, given, loaded))[0]


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a run over the prompts one, two and three that has its recipe."""
    folder = tmp_path / "run"
    with Store.open(folder) as store:
        prepare_run(store, RunTask(folder, recipe(), a_set(tmp_path, "one", "two", "three")))
        store.set_about(recipe=recipe().model_dump(mode="json", exclude_defaults=True), seed=5)
    return folder


def test_a_further_part_of_the_set_is_added_by_its_offset(begun: Path, tmp_path: Path) -> None:
    a_set(tmp_path, "one", "two", "three", "four", "five")
    prepare(begun, loaded=load_set(tmp_path / "set.csv", 1, offset=4))
    with Store.open(begun) as store:
        assert [row.index for row in store.rows()] == [0, 1, 2, 4]
        assert store.about()["set"]["count"] == 4


def test_a_new_run_needs_a_recipe_and_a_set(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    loaded = a_set(tmp_path, "one")
    with pytest.raises(RunError) as refused:
        prepare(folder, None, loaded)
    assert str(refused.value) == f"{folder} is a new run: give --config, the recipe"
    with pytest.raises(RunError) as refused:
        prepare(folder, recipe())
    assert str(refused.value) == f"{folder} is a new run: give --set, what is to be answered"
    assert prepare(folder, recipe(), loaded) == recipe()


def test_a_run_goes_on_without_a_recipe_and_a_set(begun: Path) -> None:
    with Store.open(begun) as store:
        began = store.about()["began"]
        assert prepare_run(store, RunTask(begun)) == (recipe(), 5)
        assert prepare_run(store, RunTask(begun, seed=0)) == (recipe(), 0)
        other = recipe(aggregator={"model": "y"})
        assert prepare_run(store, RunTask(begun, other)) == (other, 5)
        assert (store.about()["began"], store.row_count()) == (began, 3)


def test_a_set_may_grow_and_may_be_given_under_another_name(begun: Path, tmp_path: Path) -> None:
    same = a_set(tmp_path, "one", "two", "three", name="copy")
    prepare(begun, loaded=same)
    prepare(begun, loaded=a_set(tmp_path, "one", "two", "three", "four", name="copy"))
    with Store.open(begun, read_only=True) as store:
        assert [row.turns[0] for row in store.rows()] == ["one", "two", "three", "four"]
        assert (store.about()["set"]["name"], store.about()["set"]["count"]) == ("copy", 4)


@pytest.mark.parametrize(
    ("prompts", "name", "message"),
    [
        (
            ["one", "two"],
            "set",
            r"^the run has 3 rows of 'set' and the set that is given has 2: give no fewer rows, or "
            r"another folder$",
        ),
        (["a", "b", "c"], "other", r"^--set: the run's set is 'set', not 'other'$"),
        (
            ["one", "two", "else"],
            "set",
            r"^--set: the run has another set: row 2 is stored with other content: .*'three'.*'else'",
        ),
    ],
)
def test_a_set_that_is_not_the_runs_is_refused(
    begun: Path, tmp_path: Path, prompts: list[str], name: str, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        prepare(begun, loaded=a_set(tmp_path, *prompts, name=name))
    with Store.open(begun, read_only=True) as store:
        assert [row.turns[0] for row in store.rows()] == ["one", "two", "three"]
        assert store.about()["set"]["name"] == "set"


def answers(folder: Path) -> dict[str, int]:
    """How many rows each generator of a run has answered."""
    with Store.open(folder, read_only=True) as store:
        return {each.name: store.answered_count(each.name) for each in store.generators()}


def test_a_run_answers_its_set_and_goes_on_from_its_folder_alone(apps: Apps, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    loaded = a_set(tmp_path, "one", "two")
    task = RunTask(folder, recipe(), loaded, members=("a",), seed=3, in_flight=5)
    assert answer_set(task, "bench run", CONSOLE) == GenerateProgress(rows=4, answered=4)
    assert apps.events == ["open run for 5", "close"]
    with Store.open(folder, read_only=True) as store:
        about = store.about()
        assert (Recipe.model_validate(about["recipe"]), about["seed"]) == (recipe(), 3)
        assert about["calls_expected"] == 2 * 3 + 2 * 1
        last = store.progress("mix")[-1]
        # The proposals of `a` are its answers alone.
        assert (last.rows, last.failed, last.calls, last.reused) == (2, 0, 6, 2)
    assert answer_set(RunTask(folder), "bench run", CONSOLE) == GenerateProgress(rows=2, answered=2)
    with Store.open(folder, read_only=True) as store:
        assert store.about()["calls_expected"] == 0


def test_another_mixture_under_a_known_name_is_another_generator(apps: Apps, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    loaded = a_set(tmp_path, "one", "two")
    answer_set(RunTask(folder, recipe(), loaded), "bench run", CONSOLE)
    answer_set(RunTask(folder, recipe(aggregator={"model": "y"})), "bench run", CONSOLE)
    answer_set(RunTask(folder, recipe(aggregator={"model": "y"})), "bench run", CONSOLE)
    names = list(answers(folder))
    assert names[0] == "mix"
    assert [name[:4] for name in names] == ["mix", "mix-"]
    assert set(answers(folder).values()) == {2}
    assert len(apps.models.calls("y")) == 2


def test_a_folder_in_use_is_refused_with_its_owner(apps: Apps, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    task = RunTask(folder, recipe(), a_set(tmp_path, "one"))
    with (
        lock_folder(folder, "bench judge"),
        pytest.raises(RunTaken, match=r"/run is in use by .*, process \d+, since 20.*: bench judge$"),
    ):
        answer_set(task, "bench run", CONSOLE)
    assert apps.events == []


def test_a_member_that_the_recipe_lacks_is_refused_before_models_start(
    apps: Apps, tmp_path: Path
) -> None:
    task = RunTask(tmp_path / "run", recipe(), a_set(tmp_path, "one"), members=("nobody",))
    with pytest.raises(VariantError, match="'nobody' alone: 'nobody' is not among the recipe's models"):
        answer_set(task, "bench run", CONSOLE)
    assert apps.events == []


def test_a_recipe_whose_models_are_refused_does_not_become_the_runs(apps: Apps, begun: Path) -> None:
    apps.refuses = ModelAppMismatch("the running application slimmoa has no model y")
    with pytest.raises(ModelAppMismatch):
        answer_set(RunTask(begun, recipe(aggregator={"model": "y"})), "bench run", CONSOLE)
    assert prepare(begun) == recipe()


def test_models_whose_weights_have_gone_are_closed_again(apps: Apps, tmp_path: Path) -> None:
    def gone(_: object) -> str:
        raise FileNotFoundError("weights.gguf")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.run.recipe_identities", gone)
        with pytest.raises(FileNotFoundError):
            RunModels(RunTask(tmp_path), recipe(), CONSOLE).__enter__()
    assert apps.events == [f"open {tmp_path.name} for 1024", "close"]


def test_a_run_goes_on_when_its_progress_cannot_be_stored(
    apps: Apps,  # noqa: ARG001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def breaks(*_: Any) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("jobs.progress.Reporter.watch", breaks)
    console = Console(record=True, file=io.StringIO(), width=200)
    task = RunTask(tmp_path / "run", recipe(), a_set(tmp_path, "one"))
    assert answer_set(task, "bench run", console).answered == 1
    assert "progress is no longer kept: ZeroDivisionError: a defect" in console.export_text()
