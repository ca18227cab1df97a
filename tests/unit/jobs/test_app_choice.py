"""Which application a job uses, which one it ends, and which one it refuses."""

from pathlib import Path
from typing import Any

import pytest

from cluster.ray_runtime import APP_NAME, SERVED
from configs.schema import Recipe
from jobs.app_choice import (
    JOB_APP,
    ModelAppMismatch,
    app_name,
    choose_app,
    require_models,
    require_same,
    suits,
)
from tests.unit.jobs.answering import recipe

OWN, OTHER = f"{JOB_APP}1111", f"{JOB_APP}2222"


@pytest.mark.parametrize(
    ("running", "chosen"),
    [
        ([], None),
        (["somebody-elses"], None),
        ([APP_NAME], APP_NAME),
        ([OWN], OWN),
        ([OTHER, OWN], OWN),
        ([OTHER, OWN, APP_NAME], APP_NAME),
        ([OWN, f"{SERVED}mix-8000"], f"{SERVED}mix-8000"),
        ([f"{SERVED}mix-8000", APP_NAME], APP_NAME),
    ],
)
def test_a_served_application_comes_before_the_jobs_own(running: list[str], chosen: str | None) -> None:
    assert choose_app(running, OWN) == chosen


def test_a_cluster_with_another_jobs_application_is_refused() -> None:
    with pytest.raises(
        ModelAppMismatch, match=f"^another job's application, {OTHER}, runs on this cluster$"
    ):
        choose_app(["somebody-elses", OTHER], OWN)


def test_every_folder_has_an_application_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app_name(Path("run")) == app_name(tmp_path / "run")
    assert app_name(tmp_path / "other" / ".." / "run") == app_name(tmp_path / "run")
    assert app_name(tmp_path / "run") != app_name(tmp_path / "other")
    assert app_name(tmp_path / "run").startswith(JOB_APP)


def test_an_application_without_a_model_of_the_recipe_is_refused() -> None:
    deployed = [f"model-{name}" for name in "abcyz"]
    require_models(recipe(), APP_NAME, [*deployed, "model-more", "ingress"])
    with pytest.raises(ModelAppMismatch, match=r"^the running application slimmoa has no model b, z$"):
        require_models(recipe(), APP_NAME, ["model-a", "model-c", "model-y", "ingress", "b"])


def served(**model: Any) -> Recipe:
    """A recipe whose model `a` has these settings."""
    models = {name: {"engine": "scripted"} for name in "bcyz"}
    return recipe(models=models | {"a": {"engine": "scripted"} | model})


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"tokens": 99}, "engine, weights or settings"),
        ({"engine": "openai_http", "base_url": "http://x/v1", "model": "a"}, "engine, weights or"),
        ({"context_tokens": 8192}, "context_tokens"),
        ({"context_tokens": 8192, "tokens": 99}, "engine, weights or settings"),
    ],
)
def test_an_application_with_another_model_is_refused(other: dict[str, Any], what: str) -> None:
    wanted = served().models["a"]
    with pytest.raises(ModelAppMismatch) as refused:
        require_same(APP_NAME, "a", wanted, served(**other).models["a"])
    message = str(refused.value)
    assert message.startswith("the running application slimmoa has another model 'a' than the recipe")
    assert f"({what}" in message
    assert message.endswith("differ); end it, or give the recipe that it serves")
    assert not suits(served(), served(**other))


@pytest.mark.parametrize("other", [{}, {"concurrency": 9}, {"replicas": 2}, {"token_s": 0.5}])
def test_what_changes_no_answer_makes_no_other_model(other: dict[str, Any]) -> None:
    require_same(APP_NAME, "a", served().models["a"], served(**other).models["a"])
    assert suits(served(), served(**other))


def test_a_server_suits_if_it_has_all_models_of_the_recipe_and_maybe_more() -> None:
    more = served().model_copy(update={"models": served().models | {"more": served().models["a"]}})
    assert suits(served(), more)
    assert not suits(more, served())
