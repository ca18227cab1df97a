"""The JSON object of a request's body, and how the mistakes in its values are told."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from configs.errors import BadRequest
from serve_app.http.parameters import LONGEST_PARAM

UNION_TAGS = frozenset({"str", "bool", "int", "float"})
"""How pydantic names alternatives of a union in an error's path."""


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body holds, without the names whose value is null.

    Raises:
        BadRequest: the body is no JSON object.
    """
    try:
        text = body.decode()
        data = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_nulls)
        # A lone surrogate is valid in JSON, but cannot be encoded when the text is sent on.
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not valid UTF-8: byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise BadRequest("the body has a lone surrogate (\\ud800 to \\udfff) in a text") from error
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    if not isinstance(data, dict):
        raise BadRequest("the body has to be a JSON object")
    return data


def _without_nulls(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without its nulls: as in OpenAI's API, null means that a field is absent.

    A repeated name is refused, because proxies and servers differ in which of its values they take.

    Raises:
        ValueError: a name is repeated.
    """
    names = {name for name, _ in pairs}
    if len(names) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return {name: value for name, value in pairs if value is not None}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def bad_request(error: ValidationError, sent: Mapping[str, str] | None = None) -> BadRequest:
    """The refusal of a value.

    Args:
        sent: how the client has named parameters, by our name.
    """
    # For a union, pydantic reports an error of every alternative. The deepest error fits best.
    worst = max(error.errors(include_url=False), key=lambda problem: len(problem["loc"]))
    steps = [step for step in worst["loc"] if not _is_union_tag(step)]
    if steps and str(steps[0]) in (sent or {}):
        steps[0] = (sent or {})[str(steps[0])]
    where = ".".join(map(str, steps))[:LONGEST_PARAM]
    value = "" if worst["type"] == "missing" else f", not {worst['input']!r:.80}"
    return BadRequest(f"{where or 'body'}: {worst['msg']}{value}", param=where or None)


def too_deep(fields: Mapping[str, Any], sent: Mapping[str, str] | None = None) -> BadRequest:
    """The refusal of a body with too many levels of objects and lists, naming the deepest field."""
    name = max(fields, key=lambda field: _levels(fields[field]))
    name = (sent or {}).get(name, name)
    return BadRequest(f"{name!r:.80} is nested too deeply", param=name[:LONGEST_PARAM])


def _levels(value: Any) -> int:
    """How many levels of objects and lists a value has."""
    levels, inner = 0, [value]
    while inner := [v for v in inner if isinstance(v, dict | list)]:
        inner = [v for each in inner for v in (each.values() if isinstance(each, dict) else each)]
        levels += 1
    return levels


def _is_union_tag(step: str | int) -> bool:
    """Whether a step of an error's path names an alternative of a union rather than a field."""
    return isinstance(step, str) and (step in UNION_TAGS or "[" in step)
