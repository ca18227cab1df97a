"""What an adapter is to a benchmark run: its model, its weights and its template."""

import os
from pathlib import Path
from typing import Any

import pytest

from configs.schema import Recipe, VllmModel
from jobs.app_choice import ModelAppMismatch, require_same
from jobs.identity import adapter_identity, model_identity, recipe_identities, to_generator
from jobs.variants import alone, mixture, without
from tests.unit.lora_folders import adapter


def model(**settings: Any) -> VllmModel:
    return VllmModel.model_validate({"engine": "vllm", "weights": [{"hub": "maker/base"}]} | settings)


def settings(*names: str, **more: Any) -> dict[str, Any]:
    return {name: {"weights": [{"hub": f"maker/{name}"}]} | more for name in names}


def test_adapters_leave_the_identity_of_their_model_as_it_was() -> None:
    assert model_identity(model(adapters=settings("poet"))) == model_identity(model())
    assert model_identity(model(speculation="ngram")) == model_identity(model())


def test_an_adapter_is_its_model_its_weights_and_its_template() -> None:
    found = {
        adapter_identity(model(adapters=settings("poet")), "poet"),
        adapter_identity(model(adapters=settings("poet", template={"x": 1})), "poet"),
        adapter_identity(model(adapters=settings("poet"), dtype="float16"), "poet"),
        adapter_identity(model(adapters=settings("poet", "coder")), "coder"),
        model_identity(model()),
    }
    assert len(found) == 5
    both = model(adapters=settings("poet", "coder"))
    assert adapter_identity(both, "poet") == adapter_identity(model(adapters=settings("poet")), "poet")


def test_another_file_of_a_local_adapter_is_another_adapter(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "poet")
    local = {"poet": {"weights": [{"path": str(folder)}]}}
    before = adapter_identity(model(adapters=local), "poet")
    assert adapter_identity(model(adapters=local), "poet") == before
    os.utime(folder / "adapter_model.safetensors", (1, 1))
    assert adapter_identity(model(adapters=local), "poet") != before


def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": {"base": model(adapters=settings("poet", "coder")).model_dump(mode="json")},
            "layers": [{"proposers": [{"model": "poet"}, {"model": "coder"}]}],
            "aggregator": {"model": "base"},
        }
    )


def test_variants_and_generators_know_adapters_by_name() -> None:
    identities = recipe_identities(recipe())
    assert identities.keys() == {"base", "poet", "coder"}
    made = [
        to_generator(variant, identities, 1)
        for variant in (mixture(recipe()), alone(recipe(), "poet"), without(recipe(), "coder"))
    ]
    assert len({each.identity for each in made}) == 3
    assert [each.name for each in made] == ["mix", "poet", "mix-without-coder"]


def test_a_running_model_needs_the_adapters_of_the_recipe_and_may_have_more() -> None:
    both, one = model(adapters=settings("poet", "coder")), model(adapters=settings("poet"))
    require_same("app", "base", one, both)
    with pytest.raises(ModelAppMismatch, match="'base'"):
        require_same("app", "base", both, one)
    other = model(adapters={"poet": {"weights": [{"hub": "another/poet"}]}})
    with pytest.raises(ModelAppMismatch):
        require_same("app", "base", one, other)
