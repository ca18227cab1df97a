"""The warm-ups of a replica: its engine reads the beginning of a prompt before the call for it comes.

At most one warm-up runs at a time. It never waits for a turn, and it makes a call wait no longer than
until the end of the engine's current step.
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
        alone: whether a warm-up may run only while the engine has no call. This is so on a CPU: while
            such an engine reads a prompt, its calls get no tokens.
    """

    def __init__(self, turns: TurnClient, *, alone: bool) -> None:
        self._turns = turns
        self._alone = alone
        self._running: asyncio.Task[int] | None = None
        self.tokens = 0
        """Tokens that the complete warm-ups have read."""
        self.cancelled = 0
        """Number of warm-ups that were ended early."""

    @property
    def is_running(self) -> bool:
        """Whether a warm-up runs now."""
        return self._running is not None

    async def run(
        self, writer: Warmer, messages: Sequence[Message], template: Mapping[str, Any]
    ) -> int | None:
        """See `Replica.warm`. If this is cancelled, it ends the warm-up and waits for its end."""
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
                try:
                    await _wait_until_done(running)
                finally:
                    self._running = None
                    self.cancelled += running.cancelled()
        if running.cancelled():  # for a call, or at the end of the turn
            return None
        self.tokens += (read := running.result())
        return read

    async def make_way(self) -> None:
        """Have a call wait for the end of the warm-up, if the warm-up is being ended already or may
        run only while the engine has no call. The call waits for the engine's current step at most.
        Then the call can use what the warm-up has read."""
        running = self._running
        if running is not None and (self._alone or running.cancelling()):
            self._end()
            await asyncio.wait([running])

    def _end(self) -> None:
        running = self._running
        # A second cancellation would interrupt the engine while it ends the first one.
        if running is not None and not running.done() and not running.cancelling():
            running.cancel()


async def _read(writer: Warmer, messages: Sequence[Message], template: Mapping[str, Any]) -> int:
    return await writer.warm(messages, template)


async def _wait_until_done(running: asyncio.Task[int]) -> None:
    """Wait until a warm-up has ended, even if this is cancelled: the engine works until then."""
    cancellation = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation
