"""One line of the log: an event and its fields, as text for people or as JSON.

    2026-11-30T13:30:12.123Z INFO answer process=ingress request=req-7 key=alice model=mix seconds=12.4

The text is logfmt behind time, level and event. A message that is no `Line` becomes the event `log`.
Whatever a stranger may have chosen, such as a path, cannot forge a line or a field: blanks, quotes and
signs that are not printable are quoted or escaped.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from configs.errors import UserError

Shape = Literal["text", "json"]
"""The shape of the log's lines: text for people, or a JSON object each."""
SHAPES: tuple[Shape, ...] = get_args(Shape)
VARIABLE = "SLIMMOA_LOG"
"""The environment variable that holds the shape where no option or argument says it."""
MOST_CHARACTERS = 400
"""Most characters of one text in a line. Longer texts are cut; a traceback is not."""
PLAIN = re.compile(r'[^\s"=\\]+')
"""Texts that stand in a line of text without quotes, if they are printable."""
CONTINUED = "    "
"""What each further line of a message of several lines begins with."""

current_request: ContextVar[str | None] = ContextVar("current_request", default=None)
"""The ID of the request on whose behalf this task works. Each line of the task has it."""


class BadShape(UserError):
    """The log cannot have such a shape."""


@dataclass(frozen=True, slots=True)
class Line:
    """A message of a logger that is an event with fields.

    The text of the object is the line without time and level, for handlers of others.
    """

    event: str
    """What happened, in a word."""
    fields: Mapping[str, Any]
    """Numbers, texts, booleans, and lists or mappings of these. A field that is None is left out."""

    def __str__(self) -> str:
        return " ".join([self.event, *_pairs(self.fields)])


def shape_of(value: str | None) -> Shape:
    """The shape that a person has named; `text` if nobody has.

    Raises:
        BadShape: there is no such shape.
    """
    if not value:
        return "text"
    for shape in SHAPES:
        if value == shape:
            return shape
    raise BadShape(f"{VARIABLE} is {value!r:.40}; it has to be {' or '.join(SHAPES)}")


class Formatter(logging.Formatter):
    """Makes a line of each record.

    Args:
        shape: the shape of the lines.
        process: what this process is, such as `ingress`; each line has it.
    """

    def __init__(self, shape: Shape, process: str) -> None:
        super().__init__()
        self._is_json = shape == "json"
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, without the end of the line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        at = at.replace("+00:00", "Z")
        event, fields, more = self._content(record)
        if self._is_json:
            known = {"time": at, "level": record.levelname, "event": event}
            if more:
                fields["more"] = "\n".join(more)
            given = {name: _plain(value) for name, value in fields.items() if value is not None}
            return _escaped(json.dumps(known | given, ensure_ascii=False, separators=(",", ":")))
        line = " ".join([at, record.levelname, event, *_pairs(fields)])
        return "\n".join([line, *(CONTINUED + _escaped(text) for text in more)])

    def _content(self, record: logging.LogRecord) -> tuple[str, dict[str, Any], list[str]]:
        """The event of a record, its fields, and the further lines of its message."""
        fields: dict[str, Any] = {"process": self._process, "request": current_request.get()}
        said = record.msg
        if isinstance(said, Line):
            fields.update(said.fields)
            return said.event, fields, []
        first, *more = record.getMessage().splitlines() or [""]
        if record.exc_info:
            more += self.formatException(record.exc_info).splitlines()
        fields |= {"msg": first, "from": record.name}
        return "log", fields, more


def _pairs(fields: Mapping[str, Any]) -> list[str]:
    """The fields as `key=value`."""
    return [f"{name}={_quoted(_text(value))}" for name, value in fields.items() if value is not None]


def _text(value: Any) -> str:
    """A value in one text, without quotes: `true`, `1.25`, `a,b`, `layer 1:2.5,aggregator:1`."""
    if isinstance(value, str):  # first, because the check for a mapping takes longest
        return shortened(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{round(value, 3):g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, int):
        return shortened(str(value))
    if isinstance(value, Mapping):
        return ",".join(f"{_text(key)}:{_text(item)}" for key, item in value.items())
    if isinstance(value, Sequence):
        return ",".join(_text(item) for item in value)
    return shortened(str(value))


def _plain(value: Any) -> Any:
    """A value for JSON, with rounded numbers and shortened texts."""
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 3)
    if not isinstance(value, str):  # the check for a mapping takes longest
        if isinstance(value, Mapping):
            return {str(key): _plain(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [_plain(item) for item in value]
    text = str(value)
    return text if "\n" in text else shortened(text)


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text of at most `most` characters, and three dots if it was longer."""
    return text if len(text) <= most else f"{text[:most]}..."


def _quoted(text: str) -> str:
    if PLAIN.fullmatch(text) and text.isprintable():
        return text
    return f'"{_escaped(text, quotes=True)}"'


def _escaped(text: str, *, quotes: bool = False) -> str:
    """A text whose signs that are not printable are escaped, as in JSON."""
    if quotes:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)
