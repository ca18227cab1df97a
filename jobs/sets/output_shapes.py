"""Reads an output from an entry of a file, whichever tool of the field wrote the entry.

| shape | the row | the text |
| AlpacaEval, and plain tables | instruction, or index | output, response, answer or completion |
| FastChat, and Arena-Hard until 2024 | question_id | choices[0].turns |
| Arena-Hard | uid | the last of messages: content, or its field answer |
| OpenAI's batch API | custom_id | response.body |
| lm-eval's samples | the prompt in arguments | resps |
| ShareGPT, chats | the last message of the user | the message after it |
| our own export `jsonl` | row | answers |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.sets.files import FileEntry
from jobs.sets.opened import SetError
from jobs.sets.prompt_rows import OWN_IDS
from jobs.sets.shapes import (
    CONVERSATIONS,
    Fields,
    as_prompt,
    is_batch_reply,
    is_conversation,
    is_lm_eval,
    last_answer,
    parse_list,
    plain_text,
)

TEXT_COLUMNS = ("output", "response", "answer", "completion")
"""Names of the columns that may hold the outputs; the first one that an entry has counts."""
PROMPT_COLUMNS = ("instruction", "prompt", "question")
"""Names of the columns that may hold the prompt that an output answers."""
INDEX_COLUMNS = ("index", "row")
"""Names of the columns that may hold the position of the row that an output answers."""
NAME_COLUMNS = ("generator", "model_id", "model")
"""Names of the columns that may say who wrote an output."""


@dataclass(frozen=True, slots=True)
class OutputColumns:
    """Columns of a table of outputs whose names are not the usual ones."""

    prompt: str | None = None
    """The column with the prompt, or with the id or index of the row; None looks for the usual
    names."""

    text: str | None = None
    """The column with the outputs; None looks for the usual names."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a file. What tells its row is None if the file does not have it."""

    position: str
    """Where the output is, for messages."""

    texts: tuple[str, ...] | None
    """The answer to each turn; None if the file has no answer, because the request failed."""

    own_id: int | str | None = None
    """The id by which a benchmark's own tools find the prompt."""

    prompt: str | None = None
    """The text of the prompt."""

    index: int | None = None
    """The position of the row in the set, from 0."""

    other_id: int | str | None = None
    """Any other id of the row."""

    generator: str = ""
    """Who wrote the output, as the file says; empty if the file does not say."""

    @property
    def text(self) -> str:
        """The answer to the first turn; empty if the file has no answer."""
        return self.texts[0] if self.texts else ""

    @property
    def described(self) -> str:
        """The row that the output answers, in words."""
        if self.own_id is not None:
            return f"the id {self.own_id!r}"
        if self.prompt is not None:
            return f"the prompt {self.prompt[:60]!r}"
        return f"row {self.index}" if self.index is not None else f"the id {self.other_id!r}"


def to_output(entry: FileEntry, columns: OutputColumns) -> Output:
    """The output in an entry.

    Raises:
        NothingToAsk: the entry is a conversation in which the user says nothing.
        SetError: the entry tells no row, or has no text where one must be.
    """
    position, fields = entry
    texts = _texts(position, fields, columns)
    for text in texts or ():
        if not isinstance(text, str):
            raise SetError(f"{position}: the field 'output' must be a text, it is {text!r}")
    own_id, index, other_id = _first_id(fields, OWN_IDS), None, None
    prompt = _prompt(position, fields, columns)
    if columns.prompt is not None and prompt is not None:  # the prompt, an id or an index
        own_id, index = prompt, int(prompt) if prompt.isdigit() else None
        prompt = prompt if index is None else None
    elif prompt is None:
        index, other_id = _index(position, fields), _first_id(fields, ("id",))
    if (own_id, prompt, index, other_id) == (None, None, None, None):
        raise SetError(
            f"{position}: the field 'instruction' or 'index' is needed, a text or a number; or "
            f"{', '.join(OWN_IDS)}, or another column by --column"
        )
    name = next((fields[each] for each in NAME_COLUMNS if fields.get(each)), "")
    return Output(position, texts, own_id, prompt, index, other_id, str(name))


def _texts(position: str, fields: Fields, columns: OutputColumns) -> tuple[str, ...] | None:
    """The answer to each turn, from whichever field of the entry has them; None if there is none."""
    if columns.text is not None:
        if columns.text not in fields:
            raise SetError(f"{position} has no column {columns.text!r} (--output-column)")
        return _one(fields[columns.text])
    if isinstance(fields.get("choices"), list) and "turns" in dict((fields["choices"] or [{}])[0]):
        return _from_choices(position, fields["choices"])
    if is_batch_reply(fields):
        return _from_batch(fields)
    if is_lm_eval(fields):
        return _from_lm_eval(position, fields["resps"])
    if isinstance(fields.get("answers"), list) and "turns" in fields:
        return tuple(fields["answers"])
    if (said := _chat(position, fields)) is not None:
        return _one(last_answer(said))
    name = next((each for each in TEXT_COLUMNS if each in fields), None)
    if name is None:
        raise SetError(
            f"{position}: the field 'output' must be a text, it is missing; it may also be "
            f"{', '.join(TEXT_COLUMNS[1:])}, or another column by --output-column"
        )
    return _one(fields[name])


def _one(text: Any) -> tuple[str, ...] | None:
    return None if text is None else (text,)


def _from_choices(position: str, choices: list[Any]) -> tuple[str, ...]:
    """FastChat's first choice, which is the one that its judge reads."""
    turns = choices[0]["turns"]
    if not isinstance(turns, list) or not turns:
        raise SetError(f"{position}, field 'choices': the first choice has no turns")
    texts: list[Any] = [turn.get("content") if isinstance(turn, dict) else turn for turn in turns]
    return tuple(texts)


def _from_batch(fields: Fields) -> tuple[str, ...] | None:
    """The text of a reply to a batch request; None if the request failed."""
    response = fields.get("response") or {}
    body = response.get("body") if isinstance(response, dict) else None
    if not isinstance(body, dict) or fields.get("error") or response.get("status_code", 200) != 200:
        return None
    if choices := body.get("choices"):
        message = choices[0].get("message")
        return _one(choices[0].get("text") if message is None else message.get("content"))
    parts = [part for item in body.get("output") or () for part in item.get("content") or ()]
    texts = [part["text"] for part in parts if part.get("type") == "output_text"]
    return ("".join(texts),) if texts else None


def _from_lm_eval(position: str, resps: Any) -> tuple[str, ...]:
    """The first response to a sample's only call. Files have lists, or objects in newer versions."""
    found = resps
    for _ in range(2):
        values = list(found.values()) if isinstance(found, dict) else found
        if not isinstance(values, list) or not values or len(resps) > 1:
            raise SetError(f"{position}, field 'resps': one response of a task that generates text")
        found = values[0]
        if isinstance(found, str):
            break
    return (found,)


def _chat(position: str, fields: Fields) -> list[Any] | None:
    """The messages of a chat in an entry; None if it has none."""
    names = ("messages", *CONVERSATIONS) if is_conversation(fields) else ("messages",)
    name = next((each for each in names if isinstance(fields.get(each), list | str)), None)
    if name is None:
        return None
    said = parse_list(f"{position}, field {name!r}", fields[name])
    return said if isinstance(said, list) else None


def _prompt(position: str, fields: Fields, columns: OutputColumns) -> str | None:
    """The text of the first turn that the output answers; None if the entry has none."""
    if columns.prompt is not None:
        if columns.prompt not in fields:
            raise SetError(f"{position} has no column {columns.prompt!r} (--column)")
        return str(fields[columns.prompt])
    if is_lm_eval(fields) or _chat(position, fields) is not None:
        return _asked(as_prompt(position, _plain_answer(fields)))
    found = next((fields[each] for each in PROMPT_COLUMNS if each in fields), None)
    if found is None and isinstance(fields.get("turns"), list) and fields["turns"]:
        found = fields["turns"][0]
    return found if isinstance(found, str) else None


def _plain_answer(fields: Fields) -> Fields:
    """The fields with Arena-Hard's answer, an object, as a text."""
    said = fields.get("messages")
    if not (isinstance(said, list) and said and isinstance(said[-1], dict)):
        return fields
    answer = last_answer(said)
    return (
        fields
        if answer is None
        else {**fields, "messages": [*said[:-1], {**said[-1], "content": answer}]}
    )


def _asked(plain: Mapping[str, Any]) -> str | None:
    """The last message of the user."""
    if "messages" not in plain:
        return plain.get("prompt")
    said = [each for each in plain["messages"] if isinstance(each, dict) and each.get("role") == "user"]
    content = plain_text("messages", said[-1].get("content")) if said else None
    return content if isinstance(content, str) else None


def _index(position: str, fields: Fields) -> int | None:
    """The position of the row. Tables of text have digits in place of a number."""
    value = next((fields[each] for each in INDEX_COLUMNS if each in fields), None)
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise SetError(f"{position}: the field 'index' must be a whole number, it is {value!r}")
    return value


def _first_id(fields: Fields, names: tuple[str, ...]) -> int | str | None:
    found = (fields.get(name) for name in names)
    return next(
        (own for own in found if isinstance(own, int | str) and not isinstance(own, bool)), None
    )
