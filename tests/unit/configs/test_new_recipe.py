"""The text of a new recipe: it loads, and its settings follow from the models."""

from dataclasses import replace
from pathlib import Path

import pytest

from configs.load import parse
from configs.new_recipe import Choices, NewModel, against_thinking, model_name, recipe_text

ONE = NewModel("one", "vllm", {"hub": "o/one"}, "5 GB", {}, 32_768, 1)
TWO = NewModel("two", "llamacpp", {"path": "/a b: c#/ü.gguf"}, "2 GB", {"enable_thinking": False}, 0, 2)
CHOICES = Choices("mine", "two", gpu=True, concurrency=4, deadline_s=300)


def test_the_text_loads_as_what_was_chosen() -> None:
    recipe = parse(recipe_text([ONE, TWO], CHOICES), folder=Path("/x"))
    assert recipe.samples == (3,)
    assert recipe.aggregator.model == "two"
    assert recipe.aggregator.fallbacks == ("one",)
    one, two = (model.model_dump() for model in recipe.models.values())
    assert two["weights"][0]["path"] == "/a b: c#/ü.gguf"
    assert two["template"] == {"enable_thinking": False}
    assert (one["context_tokens"], one["concurrency"], one["kv_tokens"]) == (7168, 4, 14_336)
    assert two["concurrency"] == 8
    assert (recipe.limits.deadline_s, recipe.limits.layer_deadline_s) == (300, 180)


def test_a_context_is_no_longer_than_the_model_was_made_for() -> None:
    text = recipe_text([replace(ONE, most_tokens=2048), TWO], CHOICES)
    recipe = parse(text, folder=Path())
    assert recipe.models["one"].context_tokens == 2048
    assert recipe.aggregator.sampling.max_tokens == 1024  # "one" is the fallback


def test_a_model_that_cannot_stop_thinking_gets_room_for_a_thought() -> None:
    model = replace(ONE, template={"reasoning_effort": "low"})
    recipe = parse(recipe_text([model, TWO], CHOICES), folder=Path())
    assert [p.sampling.thinking_tokens for p in recipe.proposers()] == [512, None]


def test_a_model_that_only_aggregates_is_no_proposer() -> None:
    writer = replace(TWO, samples=0)
    recipe = parse(recipe_text([ONE, writer], CHOICES), folder=Path())
    assert [p.model for p in recipe.proposers()] == ["one"]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Qwen2.5-7B-Instruct-AWQ", "qwen2.5-7b"),
        ("gemma-4-31B-it-qat-w4a16-ct", "gemma-4-31b"),
        ("Qwen3-4B-Instruct-2507-Q4_K_M", "qwen3-4b-instruct-2507"),
        ("Qwen3-4B-GGUF", "qwen3-4b"),
        ("Ünïcode model!", "n-code-model"),
        ("-it", "it"),
        ("!!!", "model"),
    ],
)
def test_models_get_short_names(label: str, expected: str) -> None:
    assert model_name(label, []) == expected
    assert model_name(label, [expected]) == f"{expected}-2"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% if enable_thinking is false %}x{% endif %}", {"enable_thinking": False}),
        ("{{ thinking }}", {"thinking": False}),
        ("Say enable_thinking in a text", {}),
        ("{{ 'Reasoning: ' + reasoning_effort }}", {"reasoning_effort": "low"}),
        ("{{ messages }}", {}),
        ("", {}),
    ],
)
def test_thinking_is_turned_off_where_the_template_has_a_switch(
    template: str, expected: dict[str, object]
) -> None:
    assert against_thinking(template) == expected
