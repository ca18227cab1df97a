"""Turns an entry of a file into a row of a set.

Besides the prompts, these fields are read if the entry has them: `dataset`, `category`, and `reference`
or `references` with one reference answer per turn.
"""

import json
from typing import Any

from actors.engine import Message
from jobs.records import Row
from jobs.sets.files import FileEntry, SetError

COLUMNS = ("messages", "prompt", "instruction", "question", "turns")
"""Names of the columns that may hold the prompts."""

LISTS = ("messages", "turns")
"""The columns whose values are lists."""

ROLES = ("system", "user", "assistant")
"""Roles that a message may have."""


def to_row(index: int, column: str, entry: FileEntry) -> Row:
    """An entry as the row at `index` of the set, with the prompts from the field `column`.

    Raises:
        SetError: a field is missing or has the wrong form; the message names position and field.
    """
    position, fields = entry
    where = f"{position}, field {column!r}"
    value = _parse_list(where, fields.get(column)) if column in LISTS else fields.get(column)
    if column == "messages":
        *before, last = _messages(where, value)
        if last["role"] != "user":
            raise SetError(f"{where} must end with a message of the user, not of the {last['role']}")
        turns: tuple[str, ...] = (last["content"],)
    else:
        before = []
        turns = _turns(where, value)
    if column == "instruction" and fields.get("input"):
        raise SetError(f"{position}, field 'input' would be lost: join it into the instruction")
    labels = (_label(fields, "dataset"), _label(fields, "category"))
    return Row(index, turns, tuple(before), *labels, _references(position, fields, len(turns)))


def _parse_list(where: str, value: Any) -> Any:
    """A value as a list: CSV has no lists, so a text is read as JSON."""
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
    """The text of a turn that is an object, as in Arena-Hard's first version."""
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


def _label(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else str(value)


def _references(position: str, fields: dict[str, Any], turns: int) -> tuple[str, ...]:
    name = "references" if "references" in fields else "reference"
    value = fields.get(name) or []
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in found):
        raise SetError(f"{position}, field {name!r} must be a text or a list of texts; it is {value!r}")
    if len(found) not in (0, turns):
        raise SetError(f"{position}, field {name!r} has {len(found)} answers for {turns} turn(s)")
    return tuple(found)
