"""Turns JSON schemas into the form that llguidance needs, whose grammars llama.cpp uses."""

from typing import Any

from configs.errors import BadRequest
from configs.held_schemas import held, unheld_part

OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": True,
}
"""Options of llguidance. The first three keep JSON on one line: by default, a grammar allows any number
of blanks between all parts of JSON, and small models may write blanks until they have no tokens left.
The last option holds `oneOf` as `anyOf`. Without it, llguidance takes few schemas that have `oneOf`."""


def one_line(schema: dict[str, Any], *, leniently: bool = False) -> dict[str, Any]:
    """The schema with OPTIONS, and as `held` changes it. A schema's own `x-guidance` wins over OPTIONS.

    Args:
        schema: the schema of a request.
        leniently: whether parts to which llama.cpp cannot hold an answer are left out.

    Raises:
        BadRequest: the schema has such a part, and it is not read leniently.
    """
    if not leniently and (problem := unheld_part({"json_schema": schema})) is not None:
        raise BadRequest(problem, param="response_format")
    return {"x-guidance": OPTIONS} | held(schema, leniently=leniently)
