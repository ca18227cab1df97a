"""Contradictions within a recipe; each rule is tested just below and just above its limit."""

from typing import Any

import pytest
from pydantic import ValidationError

from configs.cross_checks import inconsistencies
from configs.schema import Recipe

Change = tuple[tuple[str | int, ...], Any]


def recipe(*changes: Change) -> dict[str, Any]:
    """A consistent recipe of two layers (3 proposals, then 2), with some settings changed.

    Args:
        changes: path and new value of each changed setting.
    """
    scripted = {"engine": "scripted", "context_tokens": 1000}
    data: dict[str, Any] = {
        "name": "mix",
        "models": {"a": scripted.copy(), "b": scripted.copy(), "c": scripted.copy()},
        "layers": [
            {"proposers": [{"model": "a", "samples": 2}, {"model": "b"}]},
            {"proposers": [{"model": "a"}, {"model": "b"}]},
        ],
        "aggregator": {"model": "a", "fallbacks": ["b"], "sampling": {"max_tokens": 100}},
        "references": {},
        "limits": {"quorum": 2, "deadline_s": 10, "layer_deadline_s": 4},
    }
    for where, value in changes:
        here: Any = data
        for key in where[:-1]:
            here = here.setdefault(key, {}) if isinstance(here, dict) else here[key]
        here[where[-1]] = value
    return data


SECOND = ("layers", 1, "proposers", 1)
CONTRADICTIONS: list[tuple[tuple[str | int, ...], Any, tuple[str | int, ...], str]] = [
    (
        (*SECOND, "model"),
        "x",
        (*SECOND, "model"),
        "'x' is not a model of this recipe (it has: a, b, c)",
    ),
    (("aggregator", "model"), "x", ("aggregator", "model"), "'x' is not a model"),
    (("aggregator", "fallbacks"), ["b", "x"], ("aggregator", "fallbacks", 1), "'x' is not a model"),
    (("name",), "a", ("name",), "'a' is also the name of a model"),
    (
        ("aggregator", "fallbacks"),
        ["a"],
        ("aggregator", "fallbacks", 0),
        "'a' is already the aggregator or an earlier fallback",
    ),
    (("aggregator", "fallbacks"), ["b", "b"], ("aggregator", "fallbacks", 1), "'b' is already the"),
    (("limits", "quorum"), 3, ("limits", "quorum"), "3 proposals can never come from layer 2, which"),
    (
        ("limits", "layer_deadline_s"),
        5,
        ("limits", "layer_deadline_s"),
        "2 layers may take 5 s each, so nothing of deadline_s",
    ),
    (
        (*SECOND, "sampling"),
        {"max_tokens": 1000},
        (*SECOND, "sampling", "max_tokens"),
        "1000 tokens of answer leave a prompt no room in model 'b', which holds 1000",
    ),
    (
        ("aggregator", "sampling", "max_tokens"),
        1001,
        ("aggregator", "sampling", "max_tokens"),
        "1001 tokens of answer leave a prompt no room in model 'a', which holds 1000",
    ),
    (
        ("models", "b", "context_tokens"),
        512,  # the default of max_tokens
        ("layers", 0, "proposers", 1, "sampling", "max_tokens"),
        "512 tokens of answer leave a prompt no room in model 'b', which holds 512",
    ),
    (
        ("references", "prompt_file"),
        "prompt.txt",
        ("references", "prompt_file"),
        "this key works in a recipe file only",
    ),
    (
        ("references", "item"),
        "{number}",
        ("references", "item"),
        "{text} is missing: ",
    ),
    (("references", "item"), "{{text}}", ("references", "item"), "{text} is missing"),
    (("references", "item"), "{text", ("references", "item"), "cannot be read: expected '}'"),
    (("references", "item"), "} {text}", ("references", "item"), "cannot be read: Single '}'"),
    (
        ("access",),
        {"allowance": {"models": ["a", "x"]}},
        ("access", "allowance", "models", 1),
        "this recipe serves no model 'x'; it serves ",
    ),
]
ONLY_NAMES = [
    "{text.__class__}",
    "{text[0]}",
    "{text!r}",
    "{text:>9999999999}",
    "{number:{number}}",
    "{}",
    "{0}",
    "{name}",
]
CONTRADICTIONS += [
    (("references", "item"), f"{{text}} {item}", ("references", "item"), "only {number} and {text} may")
    for item in ONLY_NAMES
]


@pytest.mark.parametrize(("where", "value", "at", "message"), CONTRADICTIONS)
def test_a_recipe_is_refused_for(
    where: tuple[str | int, ...], value: Any, at: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(recipe((where, value)))
    (error,) = caught.value.errors()
    found = error["ctx"]["problems"]
    assert [p.where for p in found][:1] == [at]
    assert message in found[0].message


def test_a_fallback_must_hold_the_aggregators_answer_too() -> None:
    data = recipe(
        (("models", "c", "context_tokens"), 200),
        (("aggregator", "fallbacks"), ["c"]),
        (("aggregator", "sampling", "max_tokens"), 200),
    )
    (found,) = inconsistencies(data)
    assert found.where == ("aggregator", "sampling", "max_tokens")
    assert "model 'c', which holds 200" in found.message


@pytest.mark.parametrize(
    "change",
    [
        (("limits", "quorum"), 2),
        (("limits", "layer_deadline_s"), 4.9),
        (("aggregator", "sampling", "max_tokens"), 935),
        (("references", "item"), "{{{number}}} {text} {text}"),
        (("references", "item"), "{text}"),
        (("aggregator", "fallbacks"), ["b", "c"]),
        ((*SECOND, "model"), "a"),  # Self-MoA
    ],
)
def test_a_recipe_is_accepted_with(change: Change) -> None:
    assert Recipe.model_validate(recipe(change)).name == "mix"


def test_all_contradictions_are_found_at_once() -> None:
    changes = [(where, value) for where, value, _, _ in CONTRADICTIONS[:11:3]]
    found = [problem.where for problem in inconsistencies(recipe(*changes))]
    assert set(found) == {at for _, _, at, _ in CONTRADICTIONS[:11:3]}


@pytest.mark.parametrize("shape", [None, 5, "x", [], [[]], {}, {"": None}, [{"model": []}], True])
@pytest.mark.parametrize("key", ["name", "models", "layers", "aggregator", "references", "limits"])
def test_any_shape_is_tolerated(key: str, shape: Any) -> None:
    for problem in inconsistencies(recipe(((key,), shape))):
        assert problem.message
