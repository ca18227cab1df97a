"""To which parts of a schema llama.cpp can hold an answer."""

from typing import Any

import pytest

from configs.held_schemas import Unheld, held, unheld_part

LOOKS = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"
"""The pattern that pydantic writes for a decimal number as text."""


def form(part: Any, *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": part}, "required": list(required)}


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ({"type": "array", "uniqueItems": True}, "'uniqueItems' at properties.x.uniqueItems"),
        ({"type": "array", "items": {"not": {"const": 1}}}, "'not' at properties.x.items.not"),
        ({"type": "string", "pattern": LOOKS}, "'pattern' at properties.x.pattern"),
        ({"type": "string", "pattern": r"(a)\1"}, "'pattern' at properties.x.pattern"),
        ({"type": "string", "pattern": r"\bfoo"}, "'pattern' at properties.x.pattern"),
        (form({}) | {"minProperties": 1}, "'minProperties' at properties.x.minProperties"),
        ({"anyOf": [{"not": {}}, {"if": {}}]}, "'not' at properties.x.anyOf.0.not"),
    ],
)
def test_what_cannot_be_held_is_named_and_left_out_leniently(part: dict[str, Any], where: str) -> None:
    with pytest.raises(Unheld) as caught:
        held(form(part), leniently=False)
    assert str(caught.value) == where
    problem = unheld_part({"json_schema": form(part)})
    assert (
        problem == f"llama.cpp cannot hold an answer to {where} of the JSON schema; leave this part out"
    )
    key = where.split("'")[1]
    assert repr(key) not in repr(held(form(part), leniently=True))


@pytest.mark.parametrize(
    ("part", "made"),
    [
        ({"type": "string", "format": "uri"}, {"type": "string"}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"type": "array", "uniqueItems": False}, {"type": "array"}),
        ({"type": "string", "pattern": r"^\(\?=\\b"}, {"type": "string", "pattern": r"^\(\?=\\b"}),
        (
            {"anyOf": [{"type": "number"}, {"type": "string", "pattern": LOOKS}]},
            {"anyOf": [{"type": "number"}]},
        ),
        (form({}, "x") | {"maxProperties": 1}, form({}, "x") | {"maxProperties": 1}),
        (form({}) | {"minProperties": 0}, form({}) | {"minProperties": 0}),
        ({"type": "object", "dependencies": {}}, {"type": "object"}),
        (
            {"type": "string", "enum": None, "items": None, "const": None, "default": None},
            {"type": "string", "const": None, "default": None},
        ),
        ({"type": "object", "properties": {"y": None}}, {"type": "object", "properties": {"y": {}}}),
        ({"enum": [{"not": 1, "format": "uri"}]}, {"enum": [{"not": 1, "format": "uri"}]}),
        (form({"type": "null"}) | {"$schema": "x"}, form({"type": "null"}) | {"$schema": "x"}),
    ],
)
def test_what_can_be_held_stays(part: dict[str, Any], made: dict[str, Any]) -> None:
    assert held(form(part), leniently=False) == form(made)


@pytest.mark.parametrize("required", [None, True, "x", [["x"]], {}])
@pytest.mark.parametrize("properties", [None, {"y": {}}, ["y"], "y"])
def test_a_schema_of_a_wrong_form_is_no_defect(required: Any, properties: Any) -> None:
    schema = {"minProperties": 1, "properties": properties, "required": required}
    assert held(schema, leniently=True).get("properties") == properties


def test_properties_may_have_the_names_of_keys() -> None:
    schema = {"type": "object", "properties": {"not": {"type": "null"}, "format": {"const": "uri"}}}
    assert held(schema, leniently=False) == schema
