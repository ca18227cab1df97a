"""Whether a replica may take its first calls: its engine has started, or no further try makes sense."""

import asyncio

from configs.errors import EngineUnavailable, UserError, WeightsError

FIRST_TRIES = 5
"""How often the first start is tried before the replica gives up. The keeper waits longer from try to
try (`Policy.retry_s`), so that memory which somebody else is about to free can come back."""
NEVER_HEALS = (WeightsError, UserError, ValueError, TypeError, ImportError, NotImplementedError)
"""Errors that another try would meet again: weights or settings are wrong, or a package is missing."""


class FirstStart:
    """Counts the failures of a replica's engine until the replica is up.

    Args:
        member: the replica's name as a member of its slot, for errors.
        tries: how often the first start is tried.
    """

    def __init__(self, member: str, tries: int) -> None:
        self._member = member
        self._tries = tries
        self._failures = 0
        self._gave_up: EngineUnavailable | None = None
        self._is_over = asyncio.Event()
        self.is_up = False
        """Whether the replica may take calls."""

    async def wait(self) -> None:
        """Return when the replica is up.

        Raises:
            EngineUnavailable: the replica has given up.
        """
        await self._is_over.wait()
        if not self.is_up and self._gave_up is not None:
            raise self._gave_up

    def note_up(self) -> None:
        """The keeper says that the replica may take calls."""
        self.is_up = True
        self._is_over.set()

    def note_failure(self, error: Exception) -> None:
        """A step of the engine failed. Before the replica is up, decide whether to try again."""
        if self.is_up:
            return
        self._failures += 1
        if _never_heals(error):
            self.give_up(f"cannot start: {error}")
        elif self._failures >= self._tries:
            self.give_up(f"did not start in {self._failures} tries: {error}")

    def give_up(self, cause: str) -> None:
        """Have `wait` raise the cause, unless the replica is up."""
        self._gave_up = EngineUnavailable(f"the engine of {self._member!r} {cause}")
        self._is_over.set()


def _never_heals(error: BaseException | None) -> bool:
    """Whether an error, or an error that caused it, is of a kind that another try would meet again."""
    while error is not None:
        if isinstance(error, NEVER_HEALS):
            return True
        error = error.__cause__
    return False
