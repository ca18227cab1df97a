"""Schemas in the form that llguidance needs."""

from typing import Any

import pytest

from actors.engines.llamacpp_schema import OPTIONS, one_line


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"exclusiveMinimum": 0, "maximum": 0.5}, {"maximum": 0.5, "minimum": 5e-7}),
        ({"minimum": 0, "exclusiveMaximum": 0.5}, None),
        ({"minimum": -2.5, "exclusiveMaximum": -2}, {"minimum": -2.5, "maximum": -2 - 5e-7}),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, None),
        ({"exclusiveMinimum": 0, "maximum": 10}, None),
        ({"exclusiveMinimum": 0}, None),
        ({"exclusiveMinimum": True, "minimum": 1, "maximum": 1.5}, None),
        ({"minimum": 0.25, "exclusiveMinimum": 0, "maximum": 0.5}, None),
    ],
)
@pytest.mark.parametrize("place", ["itself", "property", "items", "any"])
def test_a_whole_number_that_is_an_exclusive_bound_of_a_small_range_moves_inwards(
    given: dict[str, Any], made: dict[str, Any] | None, place: str
) -> None:
    def placed(schema: dict[str, Any]) -> dict[str, Any]:
        places: dict[str, dict[str, Any]] = {
            "itself": schema,
            "property": {"type": "object", "properties": {"default": schema}},
            "items": {"type": "array", "items": schema},
            "any": {"anyOf": [{"type": "null"}, schema]},
        }
        return places[place]

    number = {"type": "number"}
    expected = {"x-guidance": OPTIONS} | placed(number | (given if made is None else made))
    assert one_line(placed(number | given)) == expected


def test_values_of_a_schema_are_not_schemas() -> None:
    data = {"exclusiveMinimum": 0, "maximum": 0.5}
    schema = {"enum": [data], "default": data}
    assert one_line(schema) == {"x-guidance": OPTIONS} | schema
    assert one_line({"const": data})["const"] == data
