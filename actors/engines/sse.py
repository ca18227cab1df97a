"""A parser of server-sent events, for bytes that arrive in pieces of any size.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import re
from collections.abc import Iterator

MOST_BYTES = 4 << 20
"""Longest event, in bytes. A server that never ends an event would otherwise fill the memory."""
# A CR at the end of the received bytes is no line end yet: a LF may follow and belong to it.
LINE_END = re.compile(rb"\r\n|\n|\r(?=[^\n])")


class EventTooLong(Exception):
    """An event is longer than MOST_BYTES."""


class EventStream:
    """Parses one stream. Of each event only the field `data` is kept; comments are skipped."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Yield the data of each event that `received` completes.

        Raises:
            EventTooLong: the event that `received` leaves incomplete is longer than MOST_BYTES.
        """
        if not self._rest and not self._data and _is_one_line_event(received):
            yield received[6:-2]
            return
        received = self._rest + received
        # Few servers send a CR, and a plain split costs a third of the expression.
        parts = LINE_END.split(received) if b"\r" in received else received.split(b"\n")
        *lines, self._rest = parts
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data = []
        if len(self._rest) + sum(map(len, self._data)) > MOST_BYTES:
            raise EventTooLong(f"an event of more than {MOST_BYTES:,} bytes")

    def end(self) -> Iterator[bytes]:
        """End the stream: yield the data of an event that no blank line has completed."""
        yield from self.feed(b"\n\n")


def _is_one_line_event(received: bytes) -> bool:
    """Whether this is one whole event of one line, as nearly every packet of a model's answer is."""
    return (
        received.startswith(b"data: ")
        and received.endswith(b"\n\n")
        and received.find(b"\n") == len(received) - 2
        and b"\r" not in received
    )
