"""Turns an entry of a file into a row of a set.

Besides the prompts, these fields are read if the entry has them: an id (ID_FIELDS), `dataset`,
`category`, a reference answer for each turn (REFERENCES), and `required_temperature`. Names of columns
may be written in capitals, as spreadsheets often have them.
"""

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

from actors.engine import Message
from jobs.records import Row
from jobs.sets.files import FileEntry
from jobs.sets.known_sets import MT_BENCH_TEMPERATURES, is_mt_bench
from jobs.sets.opened import SetError
from jobs.sets.shapes import Fields, as_prompt, parse_list, plain_text

COLUMNS = ("messages", "prompt", "instruction", "question", "turns")
"""Names of the columns that may hold the prompts."""

OTHER_COLUMNS = ("query", "problem", "input")
"""Further such names. They count only if a file has none of COLUMNS."""

REFERENCES = (
    "references",
    "reference",
    "reference_answer",
    "correct_answer",
    "expected_answer",
    "expected_output",
    "expected",
    "ground_truth",
    "ideal",
    "gold",
    "answer",
    "answers",
    "target",
    "label",
    "solution",
)
"""Names of the fields that may hold the right answer to a prompt; the first one that has a value
counts."""

OWN_REFERENCES = ("references", "reference")
"""Those that mean nothing else, so that a value of a wrong form is refused."""

LISTS = ("messages", "turns")
"""The columns whose values are lists."""

ROLES = ("system", "user", "assistant")
"""Roles that a message may have."""

OWN_IDS = ("question_id", "uid", "custom_id", "doc_id")
"""Names of the fields by which a benchmark's own tools find a prompt. Each of their values is
unique."""

ID_FIELDS = (*OWN_IDS, "id")
"""Names of the fields that may hold the id of a prompt; the first one that an entry has counts."""


def to_row(index: int, column: str, entry: FileEntry, *, own_temperature: bool = True) -> Row:
    """An entry as the row at `index` of the set, with the prompts from the field `column`.

    Args:
        index: The row's position in the set, from 0.
        column: The field with the prompts.
        entry: The entry, in its plain form (`shapes.as_prompt`).
        own_temperature: Whether the row keeps the temperature that the benchmark gives it.

    Raises:
        SetError: a field is missing or has the wrong form; the message names position and field.
    """
    position, fields = entry
    where = f"{position}, field {column!r}"
    value = _value(where, column, fields)
    before: list[Message] = []
    if _are_messages(column, value):
        *before, last = _messages(where, value)
        if last["role"] != "user":
            raise SetError(f"{where} must end with a message of the user, not of the {last['role']}")
        turns: tuple[str, ...] = (last["content"],)
    else:
        turns = _turns(where, value)
    if plain_name(column) == "instruction" and len(turns) == 1 and (text := _label(fields, "input")):
        turns = (f"{turns[0]}\n\n{text}",)  # as Alpaca's own prompts have it
    for text in (*turns, *(message["content"] for message in before)):
        _require_whole_characters(where, text)
    row = Row(
        index,
        turns,
        tuple(before),
        _label(fields, "dataset"),
        _label(fields, "category"),
        _references(position, fields, column, len(turns)),
        row_id(fields),
    )
    return replace(row, temperature=_temperature(position, fields, row)) if own_temperature else row


def plain_entry(entry: FileEntry) -> FileEntry:
    """An entry in its plain form, whichever tool of the field wrote the entry."""
    return FileEntry(entry.position, dict(as_prompt(*entry)))


def row_id(fields: Fields) -> int | str | None:
    """The id of a prompt, from the first of ID_FIELDS that has a text or a whole number."""
    found = (fields.get(name) for name in ID_FIELDS)
    return next(
        (own for own in found if isinstance(own, int | str) and not isinstance(own, bool)), None
    )


def _temperature(position: str, fields: Fields, row: Row) -> float | None:
    """The temperature that the benchmark gives a row, as FastChat decides it."""
    wanted = fields.get("required_temperature")
    if wanted is None:
        return MT_BENCH_TEMPERATURES.get(row.category) if is_mt_bench(row) else None
    try:
        temperature = float(wanted)
    except (TypeError, ValueError):
        temperature = -1.0
    if not 0 <= temperature <= 2:
        raise SetError(
            f"{position}, field 'required_temperature' must be a number from 0 to 2; it is {wanted!r}"
        )
    return temperature


def plain_name(column: str) -> str:
    """The name of a column without capitals and spaces at its ends."""
    return column.strip().lower()


def _field(fields: Fields, name: str) -> Any:
    """The value of a field, also if its name is written in capitals; None if it has none."""
    if (value := fields.get(name)) is not None:
        return value
    return next((value for key, value in fields.items() if plain_name(key) == name), None)


def _value(where: str, column: str, fields: Fields) -> Any:
    value = fields.get(column)
    if plain_name(column) in LISTS:
        return parse_list(where, value)
    # Tables of text write a list as JSON, also in a column with a name of the user's own.
    if plain_name(column) not in COLUMNS and isinstance(value, str) and value.startswith(("[{", '["')):
        return parse_list(where, value)
    return value


def _are_messages(column: str, value: Any) -> bool:
    if plain_name(column) in COLUMNS:
        return plain_name(column) == "messages"
    return isinstance(value, list) and any(isinstance(m, dict) and "role" in m for m in value)


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
    return plain_text(where, turn.get("content"))


def _messages(where: str, value: Any) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise SetError(f"{where} must be a list of messages; it is {value!r}")
    found = []
    for message in value:
        role, content = (
            message.get(key) if isinstance(message, dict) else None for key in Message.__annotations__
        )
        role, content = "system" if role == "developer" else role, plain_text(where, content)
        if role not in ROLES or not isinstance(content, str):
            raise SetError(
                f"{where}: a message has a role ({', '.join(ROLES)}) and a content, a text; "
                f"it is {message!r}"
            )
        found.append(Message(role=role, content=content))
    return found


def _require_whole_characters(where: str, text: str) -> None:
    """Raise SetError if a text has half of a character, which no engine and no store takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start : error.end]
        raise SetError(f"{where} has {half!r}, half of a character, at {error.start}") from error


def _as_text(value: Any) -> Any:
    """The value; if it is a number, or true or false, its text. Some sets give right answers so."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and "e" in repr(value):
        return format(Decimal(repr(value)), "f")
    return str(value) if isinstance(value, int | float) else value


def _label(fields: Fields, name: str) -> str:
    value = _field(fields, name)
    return "" if value is None else str(value)


def _references(position: str, fields: Fields, column: str, turns: int) -> tuple[str, ...]:
    """The reference answers. Some names of fields are used for other things too. Such a field does not
    count if its value does not have the form of an answer: if it is an object, for example."""
    for name in REFERENCES:
        for key in (name, *(key for key in fields if key != name and plain_name(key) == name)):
            if key == column or _is_missing(fields.get(key)):
                continue
            where, found = f"{position}, field {key!r}", _answers(fields[key])
            are_texts = all(isinstance(text, str) for text in found)
            if are_texts and (turns == 1 or len(found) in (0, turns)):
                for text in found:
                    _require_whole_characters(where, text)
                return tuple(found)
            if name in OWN_REFERENCES:
                wrong = f"must be a text or a list of texts; it is {fields[key]!r}"
                many = f"has {len(found)} answers for {turns} turns"
                raise SetError(f"{where} {many if are_texts else wrong}")
    return ()


def _answers(value: Any) -> list[Any]:
    """The answers of a field, each as a text where that is possible."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # as in SQuAD
        value = value["text"]
    if isinstance(value, str) and value.startswith('["'):
        value = _listed(value)
    return [_as_text(each) for each in (value if isinstance(value, list) else [value])]


def _is_missing(value: Any) -> bool:
    """Whether a field has no answer. Tables write an empty cell as an empty text or as `NaN`."""
    return value is None or value in ("", [], {}) or value != value


def _listed(text: str) -> Any:
    """A list that a table of text has as JSON; the text itself if it is no JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
