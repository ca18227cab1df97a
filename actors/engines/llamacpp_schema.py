"""JSON schemas as llguidance, which holds llama.cpp's answers to them, has to be given them."""

from typing import Any, TypeGuard, cast

ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Options of llguidance by which JSON stands on one line. By default a grammar allows blanks without
end between all parts of JSON, and small models may write them until they have no tokens left."""
MAPS = ("properties", "patternProperties", "$defs", "definitions")
"""Keys of a JSON schema whose values are schemas by their names."""
DATA = ("enum", "const", "default", "examples")
"""Keys of a JSON schema that hold values, not schemas."""
BOUNDS = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}
"""The keys for the bounds of a number: a bound that is allowed, and one that is not."""
GAP = 1e-6
"""How far from a bound that is not allowed the numbers begin, as a share of the range."""


def one_line(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema for JSON on one line, unless the schema says otherwise in words of llguidance."""
    return {"x-guidance": ONE_LINE} | cast("dict[str, Any]", _bounded(schema))


def _bounded(schema: Any) -> Any:
    """The schema with bounds to which llguidance really holds numbers.

    If the range is smaller than 1, llguidance 1.7 allows a whole number that is an exclusive bound:
    0 for `exclusiveMinimum: 0` and `maximum: 0.5`. So the range then begins a little further in.
    """
    if isinstance(schema, list):
        return [_bounded(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in MAPS and isinstance(value, dict):
            made[key] = {name: _bounded(each) for name, each in value.items()}
        else:
            made[key] = value if key in DATA else _bounded(value)
    low, high = ([n for key in pair if _is_number(n := made.get(key))] for pair in BOUNDS.items())
    size = min(high) - max(low) if low and high else 0
    if not 0 < size < 1:
        return made
    for end, bound, inwards in (("minimum", max(low), GAP), ("maximum", min(high), -GAP)):
        excluded = made.get(BOUNDS[end])
        if _is_number(excluded) and excluded == bound and float(bound).is_integer():
            del made[BOUNDS[end]]
            made[end] = bound + inwards * size
    return made


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
