"""Which parts of a JSON schema llama.cpp can hold an answer to.

llama.cpp's grammars are those of llguidance 1.0. If llguidance does not take a schema, llama.cpp writes
an error into its log and holds the answer to nothing. So a schema is looked through before that:

1. A `format` that llguidance does not know is left out. A format is an annotation (JSON Schema 2020-12,
   Validation, 7.2.1), and the rest of the schema still holds.
2. UNHELD keys, patterns with look-around and counts of properties that may be missing cannot be held.
   Where values may take one of several forms (`anyOf`), a form that has such a part is left out.
3. A range of numbers that is smaller than 1 begins a little beside a whole number that is an exclusive
   bound, because llguidance allows that number: 0 for `exclusiveMinimum: 0` and `maximum: 0.5`.
4. `oneOf` is held as `anyOf`.
"""

import re
from typing import Any, TypeGuard, cast

MAPS = ("properties", "patternProperties", "$defs", "definitions")
"""Keys of a JSON schema whose values are schemas by their names."""
DATA = ("enum", "const", "default", "examples")
"""Keys of a JSON schema that hold values, not schemas."""
FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
"""Values of `format` that llguidance knows."""
UNHELD = frozenset(
    {
        "$dynamicRef",
        "$recursiveRef",
        "contains",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "maxContains",
        "minContains",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    }
)
"""Keys that llguidance does not have."""
VOID = {"uniqueItems": False, "$dynamicAnchor": None, "$recursiveAnchor": None}
"""Keys that llguidance does not take and that say nothing, with this value; None for any value."""
LOOK_AROUND = re.compile(r"\\.|\(\?<?[=!]|\(\?P=")
"""Finds what llguidance's regular expressions lack, among the escapes of a pattern."""
BOUNDS = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}
"""The keys for the bounds of a number: a bound that is allowed, and one that is not."""
GAP = 1e-6
"""How far from a bound that is not allowed the numbers begin, as a share of the range."""


class Unheld(Exception):
    """A schema has a part that llama.cpp cannot hold an answer to. The message names the part."""


def held(schema: dict[str, Any], *, leniently: bool) -> dict[str, Any]:
    """The schema as llama.cpp can hold an answer to it.

    Args:
        schema: a JSON schema.
        leniently: whether parts that cannot be held are left out (case 2).

    Raises:
        Unheld: the schema has such a part, and it is not read leniently.
    """
    return cast("dict[str, Any]", _Reader(leniently).read(schema, ""))


def unheld_part(structure: dict[str, Any]) -> str | None:
    """What llama.cpp cannot hold of a form; None if it can hold an answer to the whole form.

    Args:
        structure: the form (`configs.extra_parameters.Structure`).
    """
    try:
        held(structure.get("json_schema", {}), leniently=False)
    except Unheld as unheld:
        return f"llama.cpp cannot hold an answer to {unheld} of the JSON schema"
    return None


class _Reader:
    def __init__(self, leniently: bool) -> None:
        self._leniently = leniently

    def read(self, schema: Any, where: str) -> Any:
        if isinstance(schema, list):
            return [self.read(each, f"{where}.{n}") for n, each in enumerate(schema)]
        if not isinstance(schema, dict):
            return schema
        made: dict[str, Any] = {}
        for key, value in schema.items():
            at = f"{where}.{key}" if where else key
            if self._takes(schema, key, value, at):
                made[key] = self._value(key, value, at)
        return _bounded(made)

    def _takes(self, schema: dict[str, Any], key: str, value: Any, at: str) -> bool:
        """Whether a key stays in the schema.

        Raises:
            Unheld: the key cannot be held, and may not be left out.
        """
        if key == "format":
            return value in FORMATS
        if key in VOID and VOID[key] in (None, value):
            return False
        if key not in UNHELD and not _is_hard(schema, key, value):
            return True
        if self._leniently:
            return False
        raise Unheld(f"{key!r} at {at}")

    def _value(self, key: str, value: Any, at: str) -> Any:
        if key in DATA:
            return value
        if key in MAPS and isinstance(value, dict):
            return {name: self.read(each, f"{at}.{name}") for name, each in value.items()}
        if key == "anyOf" and isinstance(value, list):
            return self._alternatives(value, at)
        return self.read(value, at)

    def _alternatives(self, schemas: list[Any], at: str) -> list[Any]:
        made = []
        unheld: Unheld | None = None
        for n, each in enumerate(schemas):
            try:
                made.append(self.read(each, f"{at}.{n}"))
            except Unheld as error:
                unheld = unheld or error
        if unheld is not None and not made:
            raise unheld
        return made


def _is_hard(schema: dict[str, Any], key: str, value: Any) -> bool:
    """Whether llguidance cannot hold this key because of its value, or of the keys beside it."""
    if key == "pattern" and isinstance(value, str):
        found = {match[0] for match in LOOK_AROUND.finditer(value)}
        return any(not each.startswith("\\") or each[1] in "bB123456789" for each in found)
    if key in ("minProperties", "maxProperties"):
        return bool(set(schema.get("properties", ())) - set(schema.get("required", ())))
    return False


def _bounded(made: dict[str, Any]) -> dict[str, Any]:
    """The schema with its bounds moved where llguidance would allow an excluded number (case 3)."""
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
