"""A record of a file -> a row of a set.

Besides the prompts these fields are read where they are: `dataset`, `category`, and `reference` or
`references`, one reference answer per turn.
"""

import json
from typing import Any

from actors.engine import Message
from jobs.records import Row
from jobs.sets.files import Placed, SetError

COLUMNS = ("messages", "prompt", "instruction", "question", "turns")
LISTS = ("messages", "turns")
ROLES = ("system", "user", "assistant")


def row_of(index: int, column: str, placed: Placed) -> Row:
    """The row whose prompts are in `column`.

    Raises:
        SetError: a field is missing or of the wrong form; the message names place and field.
    """
    place, record = placed
    where = f"{place}, field {column!r}"
    value = _listed(where, record.get(column)) if column in LISTS else record.get(column)
    if column == "messages":
        *before, last = _messages(where, value)
        if last["role"] != "user":
            raise SetError(f"{where} must end with a message of the user, not of the {last['role']}")
        turns: tuple[str, ...] = (last["content"],)
    else:
        before, turns = [], _turns(where, value)
    if column == "instruction" and record.get("input"):
        raise SetError(f"{place}, field 'input' would be lost: join it into the instruction")
    labels = (_label(record, "dataset"), _label(record, "category"))
    return Row(index, turns, tuple(before), *labels, _references(place, record, len(turns)))


def _listed(where: str, value: Any) -> Any:
    """CSV has no lists: there they are JSON in a field."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise SetError(f"{where} must be a list, in CSV as JSON: {error}") from error


def _turns(where: str, value: Any) -> tuple[str, ...]:
    found = value if isinstance(value, list) else [value]
    turns = tuple(_content(where, turn) if isinstance(turn, dict) else turn for turn in found)
    if not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise SetError(f"{where} must be a text, or a list of texts, one per turn; it is {value!r}")
    return turns


def _content(where: str, turn: dict[str, Any]) -> Any:
    """Arena-Hard's first form of a turn."""
    if turn.get("role", "user") != "user":
        raise SetError(
            f"{where} holds turns of the user, not of the {turn['role']}: call it 'messages'"
        )
    return turn.get("content")


def _messages(where: str, value: Any) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise SetError(f"{where} must be a list of messages; it is {value!r}")
    for message in value:
        role, content = (
            message.get(key) if isinstance(message, dict) else None for key in Message.__annotations__
        )
        if role not in ROLES or not isinstance(content, str):
            raise SetError(
                f"{where}: a message has a role ({', '.join(ROLES)}) and a content, a text; "
                f"it is {message!r}"
            )
    return [Message(role=message["role"], content=message["content"]) for message in value]


def _label(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    return "" if value is None else str(value)


def _references(place: str, record: dict[str, Any], turns: int) -> tuple[str, ...]:
    name = "references" if "references" in record else "reference"
    value = record.get(name) or []
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in found):
        raise SetError(f"{place}, field {name!r} must be a text or a list of texts; it is {value!r}")
    if len(found) not in (0, turns):
        raise SetError(f"{place}, field {name!r} has {len(found)} answers for {turns} turn(s)")
    return tuple(found)
