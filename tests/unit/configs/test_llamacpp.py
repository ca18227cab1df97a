"""Settings that only models of llama.cpp have: shortest forms, and refusals that name the field."""

from pathlib import Path
from typing import Any

import pytest

from configs.load import RecipeError, parse
from configs.schema import LlamaCppModel, Recipe

RECIPE = """
name: x
models:
  m:
    engine: llamacpp
    weights: [{path: a.gguf}]
SETTINGS
layers: [{proposers: [{model: m}]}]
aggregator: {model: m}
"""


def read(*settings: str) -> LlamaCppModel:
    text = RECIPE.replace("SETTINGS", "\n".join(f"    {line}" for line in settings))
    recipe = parse(text, folder=Path("/f"), name="r.yaml")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    model = recipe.models["m"]
    assert isinstance(model, LlamaCppModel)
    return model


@pytest.mark.parametrize(
    ("line", "shortest"),
    [
        ("gpu_layers: 12", 12),
        ("gpu_layers: 0", 0),
        ("gpu_layers: all", "all"),
        ("kv_cache_type: q8_0", "q8_0"),
        ("kv_cache_type: {k: q8_0}", {"k": "q8_0", "v": "f16"}),
        ("flash_attention: on", "on"),
        ("flash_attention: 'off'", "off"),
        ("speculation: ngram", {"method": "ngram"}),
        ("speculation: {method: ngram, tokens: 4, match_tokens: 2}", None),
        ("speculation: {method: draft, draft: [{path: d.gguf}]}", None),
    ],
)
def test_forms_that_a_recipe_may_have(line: str, shortest: Any) -> None:
    key = line.partition(":")[0]
    found = read(line).model_dump(mode="json", exclude_defaults=True)[key]
    assert shortest is None or found == shortest


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["gpu_layers: some"],
            "gpu_layers: this has to be auto, all, or a whole number of layers from 0",
        ),
        (["gpu_layers: -1"], "gpu_layers: this has to be auto, all, or a whole number"),
        (["gpu_layers: true"], "gpu_layers: this has to be auto, all, or a whole number"),
        (["kv_cache_type: q6_K"], "kv_cache_type: this has to be one of f32, f16, bf16, q8_0, q5_1"),
        (["kv_cache_type: {v: q9}"], "kv_cache_type.v: this has to be f32, f16"),
        (["flash_attention: maybe"], "flash_attention: this has to be auto, on or off"),
        (
            ["flash_attention: off", "kv_cache_type: q4_0"],
            "flash_attention: this cannot be off, because values in q4_0 (kv_cache_type) need",
        ),
        (
            ["speculation: eagle3"],
            "speculation.method: this has to be ngram or draft; the other methods",
        ),
        (["speculation: {method: draft}"], "speculation: method draft needs draft, the weights of a"),
        (["speculation: {method: ngram, tokens: 65}"], "speculation.tokens: this has to be at most 64"),
        (
            ["speculation: {method: ngram, draft: [{path: d.gguf}]}"],
            "speculation: draft is for the method draft, and this is ngram",
        ),
        (
            ["speculation: {method: draft, draft: [{path: 1}]}"],
            "speculation.draft.0.path: this has to be text, not 1",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_refusals_name_the_field(lines: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(*lines)
    assert f"r.yaml:{6 if len(lines) < 3 else 7}: models.m.{message}" in str(caught.value).replace(
        "r.yaml:7", "r.yaml:6"
    )
    assert str(caught.value).count("\n") == 0


def test_paths_of_a_draft_model_count_from_the_recipe() -> None:
    draft = read("speculation: {method: draft, draft: [{path: d.gguf}]}").draft_model
    assert draft is not None
    assert draft.weights[0].model_dump()["path"] == "/f/d.gguf"
    assert read("speculation: ngram").draft_model is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{path: m-00001-of-00002.gguf, sha256: SUM}",
            "sha256 is for one file; 2 parts need part_sha256",
        ),
        ("{path: m.gguf, part_sha256: [SUM, SUM]}", "for each part: 2 given, 1 parts"),
        ("{hub: o/n, file: m-00001-of-00003.gguf, part_sha256: [SUM]}", "part: 1 given, 3 parts"),
    ],
)
def test_checksums_of_split_files(source: str, message: str) -> None:
    text = RECIPE.replace("SETTINGS\n", "").replace("{path: a.gguf}", source.replace("SUM", "a" * 64))
    with pytest.raises(RecipeError) as caught:
        parse(text, folder=Path("/f"), name="r.yaml")
    assert message in str(caught.value)
