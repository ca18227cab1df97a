"""Server-sent events out of bytes that arrive cut anywhere."""

import re
from collections.abc import Iterator

MOST_BYTES = 4 << 20
# A CR at the end may be half of a CRLF: it waits for what follows.
LINE_END = re.compile(rb"\r\n|\n|\r(?=[^\n])")


class EventTooLong(Exception):
    """One event is longer than MOST_BYTES."""


class EventStream:
    """Parses one stream. Comments and all fields but `data` are skipped."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, received: bytes) -> Iterator[bytes]:
        """The data of each event that `received` completes."""
        *lines, self._rest = LINE_END.split(self._rest + received)
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data = []
        if len(self._rest) + sum(map(len, self._data)) > MOST_BYTES:
            raise EventTooLong(f"an event of more than {MOST_BYTES:,} bytes")

    def end(self) -> Iterator[bytes]:
        """The last event, of a server that ends without a blank line."""
        yield from self.feed(b"\n\n")
