"""A parser of server-sent events, for bytes that arrive in pieces of any size.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import json
import re
from collections.abc import Iterable, Iterator

from actors.engines.openai_errors import ErrorData

MOST_BYTES = 4 << 20
"""Longest event, in bytes. A server that never ends an event would otherwise fill the memory."""
MOST_JSON_BYTES = 64 << 20
"""Longest answer of a server that does not stream, in bytes."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ERROR_NAMES = frozenset({b"error", b"exception"})
"""Names of events that are errors, in small letters."""
# A CR at the end of the received bytes is no line end yet: a LF may follow and belong to it.
LINE_END = re.compile(rb"\r\n|\n|\r(?=[^\n])")


class EventTooLong(Exception):
    """An event is longer than MOST_BYTES."""


class EventStream:
    """Parses one stream. Of each event only the field `data` is kept, and whether the event is named
    `error`; comments are skipped. What servers do against the standard is read as follows:

    1. An event without data, or with empty data, is none.
    2. A byte order mark and spaces before a field are skipped.
    3. A line that begins as JSON is an event, or continues the data of one.
    4. A field `error` (old servers of llama.cpp) is an event that is named `error`.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._is_error = False

    def feed(self, received: bytes) -> Iterable[bytes]:
        """The data of each event that `received` completes; that of an error as `ErrorData`.

        Raises:
            EventTooLong: while the events are read: the event that `received` leaves incomplete is
                longer than MOST_BYTES.
        """
        if not self._rest and not self._data and _is_one_line_event(received) and not self._is_error:
            return (received[6:-2],)
        return self._events(received)

    def _events(self, received: bytes) -> Iterator[bytes]:
        received = self._rest + received
        # Few servers send a CR, and a plain split costs a third of the expression.
        parts = LINE_END.split(received) if b"\r" in received else received.split(b"\n")
        *lines, self._rest = parts
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif line:
                yield from self._other_line(line.removeprefix(BYTE_ORDER_MARK).strip())
            elif self._data:
                yield from self._event()
            else:
                self._is_error = False
        if len(self._rest) + sum(map(len, self._data)) > MOST_BYTES:
            raise EventTooLong(f"an event of more than {MOST_BYTES:,} bytes")

    def _event(self) -> Iterator[bytes]:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        if data and not data.isspace():  # 1
            yield ErrorData(data) if self._is_error else data
        self._data = []
        self._is_error = False

    def _other_line(self, line: bytes) -> Iterator[bytes]:
        """A line that is neither blank nor data by the standard. The numbers are those of the class."""
        if line.startswith(b"event:"):
            self._is_error = line[6:].strip().lower() in ERROR_NAMES
        elif line.startswith(b"data:"):  # 2
            self._data.append(line[5:].removeprefix(b" "))
        elif line[:1] in (b"{", b"["):  # 3
            if self._data:
                self._data.append(line)
            else:
                yield line
        elif line.startswith(b"error:"):  # 4
            yield ErrorData(line[6:].strip())

    def end(self) -> Iterator[bytes]:
        """End the stream: yield the data of an event that no blank line has completed."""
        yield from self.feed(b"\n\n")


class JsonLines:
    """Parses JSON that comes without the frame of events: a value per line, or one value of any shape.

    The first line decides: if it is a whole value, each line is an event. Otherwise the whole body is.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_one: bool | None = None
        """Whether the whole body is one value; None until the first line is complete."""

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Yield each value that `received` completes.

        Raises:
            EventTooLong: the value that `received` leaves incomplete is longer than MOST_JSON_BYTES.
        """
        self._rest += received
        if not self._is_one and b"\n" in received:
            *lines, rest = bytes(self._rest).split(b"\n")
            values = [value for line in lines if (value := _value(line))]
            if self._is_one is None and values:
                self._is_one = not _is_json(values[0])
            if not self._is_one:
                self._rest = bytearray(rest)
                yield from values
        if len(self._rest) > MOST_JSON_BYTES:
            raise EventTooLong(f"an answer of more than {MOST_JSON_BYTES:,} bytes")

    def end(self) -> Iterator[bytes]:
        """End the body: yield the value that no line end has completed."""
        if value := _value(bytes(self._rest)):
            yield value


def _value(line: bytes) -> bytes:
    return line.removeprefix(BYTE_ORDER_MARK).strip().removeprefix(b"data:").strip()


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return line == b"[DONE]"
    return True


def _is_one_line_event(received: bytes) -> bool:
    """Whether this is one whole event of one line, as nearly every packet of a model's answer is."""
    return (
        received.startswith(b"data: {")
        and received.endswith(b"}\n\n")
        and received.find(b"\n") == len(received) - 2
        and b"\r" not in received
    )
