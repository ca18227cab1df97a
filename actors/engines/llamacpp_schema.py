"""JSON schemas as llama.cpp's grammars, which are those of llguidance, have to be given them."""

from typing import Any

from configs.errors import BadRequest
from configs.held_schemas import held, unheld_part

OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": True,
}
"""Options of llguidance by which JSON stands on one line. By default a grammar allows blanks without
end between all parts of JSON, and small models may write them until they have no tokens left. And
`oneOf` is held as `anyOf`, because otherwise most schemas with it are not held at all."""


def one_line(schema: dict[str, Any], *, leniently: bool = False) -> dict[str, Any]:
    """A JSON schema for JSON on one line, unless the schema says otherwise in words of llguidance.

    Args:
        schema: the schema of a request.
        leniently: whether parts that cannot be held are left out.

    Raises:
        BadRequest: the schema has a part that cannot be held, and it is not read leniently.
    """
    if not leniently and (problem := unheld_part({"json_schema": schema})) is not None:
        raise BadRequest(problem, param="response_format")
    return {"x-guidance": OPTIONS} | held(schema, leniently=leniently)
