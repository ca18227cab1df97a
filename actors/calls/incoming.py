"""The frames of one call on their way to its reader at the caller."""

import asyncio
from collections import deque
from typing import Protocol

from actors.calls.frames import Failed, Frame, Part, Result, Taken
from configs.errors import BadRequest, EngineUnavailable

TAKEN_EVERY = 16
"""How many deltas a reader takes before the replica is told. It has to be less than `MOST_UNREAD`."""

Answer = Part | Result | Failed
"""The frames that belong to a call."""


class Caller(Protocol):
    """The caller's end of a connection."""

    @property
    def is_lost(self) -> bool:
        """Whether the connection has ended, for whatever reason."""

    def send(self, message: Frame) -> None:
        """Send a frame."""

    def open_call(self, call: "Incoming") -> int:
        """Note a new call, and return its number."""

    def close_call(self, number: int, *, has_ended: bool) -> None:
        """Forget a call; if it has not ended, the replica is told to cancel it."""

    def lost_error(self) -> EngineUnavailable:
        """The error of a call whose connection is lost."""

    def rebuild(self, failed: Failed) -> Exception:
        """The error that a frame describes."""


class Incoming:
    """One call at the caller: the frames that have come and were not taken yet.

    Leaving the block closes the call.

    Args:
        connection: the connection to the replica.
    """

    def __init__(self, connection: Caller) -> None:
        self._connection = connection
        self._frames: deque[Answer] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._taken = 0
        self.number = 0
        self.has_ended = False
        """Whether the replica works on the call no more, so that nobody has to tell it to cancel."""

    def __enter__(self) -> "Incoming":
        if self._connection.is_lost:
            raise self._connection.lost_error()
        self.number = self._connection.open_call(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close_call(self.number, has_ended=self.has_ended)

    def send(self, message: Frame) -> None:
        """Send the question.

        Raises:
            BadRequest: the question is too long, or a text has a lone surrogate.
        """
        try:
            self._connection.send(message)
        except ValueError as error:
            self.has_ended = True
            raise BadRequest(f"the conversation cannot be sent: {error}") from None

    def put(self, frame: Answer) -> None:
        """Add a frame that has come."""
        self._frames.append(frame)
        self.wake()

    def wake(self) -> None:
        """Have the reader look for frames, or for the end of the connection."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def take(self) -> Answer:
        """Wait for the next frame.

        Raises:
            RequestError: the call has failed, or the connection is lost before the next frame.
        """
        while not self._frames:
            if self._connection.is_lost:
                self.has_ended = True
                raise self._connection.lost_error()
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        frame = self._frames.popleft()
        if isinstance(frame, Failed):
            self.has_ended = True
            raise self._connection.rebuild(frame)
        self._taken += 1
        if self._taken == TAKEN_EVERY:
            self._connection.send(Taken(self.number, self._taken))
            self._taken = 0
        return frame
