"""A call whose replica is lost is made again on another one.

Only what can be lost with a replica is asked for again: EngineUnavailable. A model that answers with
an error, is overloaded or late would be so again, ServerUnreachable comes from an engine that has
tried again itself, and NoReplica says that there is none. Ray Serve makes a call again only as long as
no replica has accepted it.

Nothing is waited for but a short probe. While no replica answers, its error is the call's: a proposer
is dropped, the next aggregator takes over. Nor does the probe choose the replica; Serve sends no more
calls to one whose death it has seen.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from configs.errors import EngineUnavailable, NoReplica, ServerUnreachable
from serve_app.mixture.context_budget import Models

ATTEMPTS = 3
FIRST_WAIT_S = 0.05  # doubles; at least half of it is waited, so that lost calls spread

T = TypeVar("T")


class Replicated(Models, Protocol):
    """Models of which a call that is lost with its replica can be made again."""

    async def is_alive(self, model: str) -> bool:
        """Whether a replica of the model answers, after some seconds at most."""


class Retries:
    """The attempts at one task of a model: ATTEMPTS in all, whatever calls it takes."""

    def __init__(self, models: Replicated, model: str) -> None:
        self._models = models
        self._model = model
        self._left = ATTEMPTS - 1
        self._wait_s = FIRST_WAIT_S

    async def of(
        self, attempt: Callable[[], Awaitable[T]], lost: Callable[[EngineUnavailable], None]
    ) -> T:
        """What the attempt gives. lost: is told of each that is made again.

        Raises:
            RequestError: of the last attempt.
        """
        while True:
            try:
                return await attempt()
            except EngineUnavailable as error:
                if not await self.allow(error):
                    raise
                lost(error)

    async def allow(self, error: EngineUnavailable) -> bool:
        """Whether to make the call that failed with this error again. Returns when it is time."""
        if isinstance(error, ServerUnreachable | NoReplica) or not self._left:
            return False
        self._left -= 1
        if not await self._models.is_alive(self._model):
            return False
        await asyncio.sleep(self._wait_s * random.uniform(0.5, 1))
        self._wait_s *= 2
        return True
