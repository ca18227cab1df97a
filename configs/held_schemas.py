"""Which parts of a JSON schema llama.cpp can hold an answer to.

llama.cpp's grammars are those of llguidance 1.0. If llguidance does not take a schema, llama.cpp only
writes an error into its log, and holds the answer to no part of the schema. So this module reads a
schema first, and treats its parts as follows:

1. A `format` that llguidance does not know is left out. A format is an annotation (JSON Schema 2020-12,
   Validation, 7.2.1), and the rest of the schema still holds.
2. These parts cannot be held: keys in UNHELD; patterns with look-around, word boundaries or
   backreferences; `minProperties` and `maxProperties` where properties may be missing. If a value may
   take one of several forms (`anyOf`), a form that has such a part is left out.
3. In a range of numbers that is smaller than 1, an exclusive bound that is a whole number is moved a
   little into the range, because llguidance would allow that number. An example is the 0 of
   `exclusiveMinimum: 0` beside `maximum: 0.5`.
4. `oneOf` is held as `anyOf`.
5. A key whose value is null is left out where no key may be null. Some clients write all keys of a
   schema, also those that have no value.
"""

import re
from typing import Any, TypeGuard, cast

MAPS = ("properties", "patternProperties", "$defs", "definitions")
"""Keys of a JSON schema whose values are maps from names to schemas."""
DATA = ("enum", "const", "default", "examples")
"""Keys of a JSON schema that hold values, not schemas."""
NULLABLE = ("const", "default")
"""Keys whose value may be null."""
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
"""Keys that llguidance does not know."""
VOID = {
    "uniqueItems": False,
    "dependencies": {},
    "dependentRequired": {},
    "dependentSchemas": {},
    "$dynamicAnchor": None,
    "$recursiveAnchor": None,
}
"""Keys that llguidance does not take, with the value with which they mean nothing; None: any value."""
LOOK_AROUND = re.compile(r"\\.|\(\?<?[=!]|\(\?P=")
"""Finds all escapes of a pattern, and the groups that llguidance's regular expressions lack."""
BOUNDS = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}
"""The keys for the bounds of a number: first for an inclusive bound, then for an exclusive bound."""
GAP = 1e-6
"""How far an exclusive bound is moved into the range, as a share of the range."""


class Unheld(Exception):
    """A schema has a part that llama.cpp cannot hold an answer to. The message names the part."""


def held(schema: dict[str, Any], *, leniently: bool) -> dict[str, Any]:
    """The schema, changed so that llama.cpp can hold an answer to it.

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
        return f"llama.cpp cannot hold an answer to {unheld} of the JSON schema; leave this part out"
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
        if value is None and key not in NULLABLE:  # 5
            return False
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
            return {
                name: {} if each is None else self.read(each, f"{at}.{name}")
                for name, each in value.items()
            }
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
        properties, required = schema.get("properties"), schema.get("required")
        needed = required if isinstance(required, list) else []
        named = list(properties) if isinstance(properties, dict) else []
        is_void = key == "minProperties" and value == 0
        return not is_void and any(name not in needed for name in named)
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
