"""Settings of vLLM: adapters and speculation."""

from pathlib import Path
from typing import Any

import pytest

from configs.load import RecipeError, parse
from configs.schema import Recipe, VllmModel

BASE = """
name: mix
models:
  base:
    engine: vllm
    weights: [{path: base}]
    context_tokens: 1024
    template: {enable_thinking: false, x: 1}
    adapters:
      poet: {weights: [{path: poet}], template: {x: 2}}
      coder: {weights: [{hub: maker/coder}]}
layers:
  - proposers: [{model: poet, samples: 2}, {model: coder}]
aggregator: {model: base}
"""


def load(text: str = BASE, folder: Path = Path("/r")) -> Recipe:
    return parse(text, folder=folder)


def test_adapters_are_names_beside_their_model() -> None:
    recipe = load()
    assert recipe.names == ("base", "poet", "coder")
    assert recipe.adapters == {"poet": "base", "coder": "base"}
    assert [recipe.host(name) for name in recipe.names] == ["base"] * 3
    poet = recipe.settings("poet")
    assert isinstance(poet, VllmModel)
    assert (poet.context_tokens, poet.adapters) == (1024, {})
    assert poet.template == {"enable_thinking": False, "x": 2}
    base = recipe.models["base"]
    assert isinstance(base, VllmModel)
    assert base.adapters["poet"].weights[0].path == "/r/poet"  # type: ignore[union-attr]
    with pytest.raises(KeyError):
        recipe.host("painter")


def test_calls_of_adapters_count_as_calls_of_their_model() -> None:
    recipe = load()
    assert recipe.calls_at_once("mix") == {"base": 3}
    assert recipe.calls_at_once("poet") == {"base": 1}
    assert recipe.calls_per_answer("base") == 4
    assert recipe.longest_answer("base") == 512


def test_a_recipe_with_adapters_survives_being_written() -> None:
    recipe = load()
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            "coder: {weights: [{hub",
            "base: {weights: [{hub",
            "another model or adapter is called 'base'",
        ),
        ("coder: {weights: [{hub", "mix: {weights: [{hub", "another model or adapter is called 'mix'"),
        ("{model: coder}", "{model: coda}", "'coda' is not a model of this recipe"),
        ("aggregator: {model: base}", "aggregator: {model: poem}", "it has: poet, coder, base"),
        ("[{hub: maker/coder}]", "[]", "at least one is needed here"),
        ("{weights: [{hub: maker/coder}]}", "{}", "this key is required"),
        ("{weights: [{hub: maker/coder}]}", "x", "coder"),
        ("{path: poet}]", "{path: poet}], rank: 5", "this key is not known here"),
        ("{model: coder}", "{model: coder, sampling: {max_tokens: 2000}}", "leave a prompt no room"),
        (
            "context_tokens: 1024",
            "context_tokens: 1024\n    speculation: medusa",
            "ngram, draft, eagle",
        ),
        ("context_tokens: 1024", "context_tokens: 1024\n    speculation: eagle", "needs draft"),
        (
            "context_tokens: 1024",
            "context_tokens: 1024\n    speculation: {method: ngram, draft: [{path: x}]}",
            "no weights of its own",
        ),
        (
            "context_tokens: 1024",
            "context_tokens: 1024\n    speculation: {method: mtp, match_tokens: 2}",
            "match_tokens is for the method ngram",
        ),
        (
            "context_tokens: 1024",
            "context_tokens: 1024\n    speculation: {method: ngram, tokens: 0}",
            "this has to be at least 1, not 0",
        ),
        ("context_tokens: 1024", "context_tokens: 1024\n    speculation: [1]", "speculation"),
        ("engine: vllm", "engine: llamacpp", "adapters"),
    ],
    ids=str,
)
def test_mistakes_are_named(old: str, new: str, why: str) -> None:
    assert old in BASE
    with pytest.raises(RecipeError) as refused:
        load(BASE.replace(old, new))
    assert why in str(refused.value)
    assert "Traceback" not in str(refused.value)


@pytest.mark.parametrize(
    ("written", "dumped"),
    [
        ("ngram", {"method": "ngram", "tokens": 3, "match_tokens": 3}),
        ("mtp", {"method": "mtp", "tokens": 3}),
        (
            {"method": "eagle3", "tokens": 5, "draft": [{"hub": "maker/head"}]},
            {
                "method": "eagle3",
                "tokens": 5,
                "draft": [{"hub": "maker/head", "revision": "main"}],
            },
        ),
    ],
)
def test_speculation_is_written_with_what_its_method_has(written: Any, dumped: Any) -> None:
    model = VllmModel.model_validate(
        {"engine": "vllm", "weights": [{"path": "x"}], "speculation": written}
    )
    assert model.model_dump(mode="json")["speculation"] == dumped
    assert VllmModel.model_validate(model.model_dump(mode="json")) == model
    draft = model.draft_model
    assert (draft is not None) == ("draft" in dumped)
    if draft is not None:
        assert (draft.weights[0].hub, draft.speculation) == ("maker/head", None)  # type: ignore[union-attr]
