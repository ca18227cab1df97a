"""The warm-ups of a replica: its engine reads the beginning of a prompt before the call for it comes.

At most one runs at a time. It never waits for a turn, and never has a call wait for longer than the
step in which the engine is.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from actors.engine import Message, Warmer
from actors.keeper.replica_turns import TurnClient


class WarmUps:
    """Runs the warm-ups of one replica.

    Args:
        turns: the replica's part in the turns of its slot.
        alone: whether a warm-up may run only while the engine has no call. An engine on a CPU lets the
            tokens of its calls wait while it reads a prompt.
    """

    def __init__(self, turns: TurnClient, *, alone: bool) -> None:
        self._turns = turns
        self._alone = alone
        self._running: asyncio.Task[int] | None = None
        self.tokens = 0
        """Tokens that warm-ups have read, of those that came to their end."""
        self.cancelled = 0
        """Warm-ups that were ended early."""

    async def run(
        self, writer: Warmer, messages: Sequence[Message], template: Mapping[str, Any]
    ) -> int | None:
        """Warm a prompt; see `Replica.warm`. To cancel this ends the warm-up, and waits for its end."""
        if self._running is not None or not writer.can_warm:
            return None
        with self._turns.warm_up(self._end, alone=self._alone) as may_run:
            if not may_run:
                return None
            self._running = running = asyncio.create_task(_read(writer, messages, template))
            try:
                await asyncio.wait([running])
            finally:
                self._end()
                await _wait_until_done(running)
                self._running = None
        if running.cancelled():  # by a call, or by the end of the turn
            self.cancelled += 1
            return None
        self.tokens += (read := running.result())
        return read

    async def make_way(self) -> None:
        """Have a call wait for the end of a warm-up in two cases: it is being ended, or it may run only
        while the engine has no call. The engine then works on no more than the step in which it is, and
        what the warm-up has read is free to be used."""
        running = self._running
        if running is not None and (self._alone or running.cancelling()):
            self._end()
            await asyncio.wait([running])

    def _end(self) -> None:
        running = self._running
        # A second cancellation would break into the engine's closing.
        if running is not None and not running.done() and not running.cancelling():
            running.cancel()


async def _read(writer: Warmer, messages: Sequence[Message], template: Mapping[str, Any]) -> int:
    return await writer.warm(messages, template)


async def _wait_until_done(running: asyncio.Task[int]) -> None:
    """Wait for the end of a warm-up, even if the waiting is cancelled: until then the engine works."""
    cancellation = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation
