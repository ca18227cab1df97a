"""A value as a message shows it: as a person has written it in YAML or JSON, and shortened."""

import json
import math
import reprlib
from typing import Any

LONGEST = 80
"""Most characters of a value."""
SHORT = reprlib.Repr()
"""Shortens texts and numbers."""
SHORT.maxstring = LONGEST
SHORT.maxother = LONGEST
SHORT.maxlong = LONGEST


def shown(value: Any) -> str:
    """The value in YAML's words: `true`, `.nan`, `nothing` for an empty value."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case float() if not math.isfinite(value):
            return f"{value}".replace("inf", ".inf").replace("nan", ".nan")
        case str():
            return SHORT.repr(value.encode("utf-8", "replace").decode())
        case int() | float():
            return SHORT.repr(value)
        case dict() | list() | tuple():
            try:
                text = json.dumps(value, ensure_ascii=False, default=str)
            except (TypeError, ValueError, RecursionError):
                return "what stands here"
            return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return str(value)[:LONGEST]
