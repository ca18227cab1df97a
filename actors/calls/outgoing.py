"""The deltas of an answer on their way to the caller: each by itself, or merged for a slow reader."""

from typing import Protocol

from actors.calls.frames import Frame, Part
from actors.engine import Delta, merge

MOST_UNREAD = 32
"""Deltas of one call that may be on their way to a reader who has not taken them. Further deltas wait
at the replica and are merged into one, until the reader has taken some."""


class Writer(Protocol):
    """The replica's end of a connection."""

    @property
    def is_writable(self) -> bool:
        """Whether the other process reads what is sent to it."""

    def send(self, message: Frame) -> None:
        """Send a frame."""


class Outgoing:
    """The deltas of one answer on their way to the caller.

    1. A delta is sent as it comes while the reader keeps up.
    2. While `MOST_UNREAD` deltas are unread, or the connection is full, further deltas wait here. When
       the reader has taken some, all that wait are sent as one delta.
    3. The last delta is always sent at once. So a slow reader does not hold the engine.

    Args:
        connection: the connection to the caller.
        call: the number of the call.
    """

    def __init__(self, connection: Writer, call: int) -> None:
        self._connection = connection
        self._call = call
        self._unread = 0
        self._waiting: list[Delta] = []

    def add(self, delta: Delta) -> None:
        """Send a delta, or keep it until the reader has taken earlier ones."""
        self._waiting.append(delta)
        self.flush(at_once=delta.last)

    def note_taken(self, count: int) -> None:
        """The reader has taken `count` more deltas."""
        self._unread -= count
        self.flush()

    def flush(self, *, at_once: bool = False) -> None:
        """Send what waits, if the reader keeps up.

        Args:
            at_once: whether to send even if the reader does not keep up.
        """
        if not self._waiting:
            return
        keeps_up = self._unread < MOST_UNREAD and self._connection.is_writable
        if keeps_up or at_once:
            self._unread += 1
            self._connection.send(Part(self._call, merge(self._waiting)))
            self._waiting.clear()
