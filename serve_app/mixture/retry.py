"""A call that is lost with its replica is made again on another replica.

The connections to the replicas repeat no call. The mixture decides whether a call that failed is made
again:

1. Any error but EngineUnavailable: no. A model that returned an error, is overloaded or timed out would
   do so again.
2. ServerUnreachable: no, because the engine has tried again itself. NoReplica: no, because the model
   has no replica.
3. `ATTEMPTS` are used up: no.
4. No replica answers a probe: no. So the error comes at once, and a proposer is dropped or the next
   aggregator takes over.
5. Otherwise: yes, after a short random wait.

The probe does not choose the replica of the next attempt. A replica whose connection is lost gets no
more calls (`actors/calls/replica_pool.py`).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from configs.errors import EngineUnavailable, NoReplica, ServerUnreachable
from serve_app.mixture.models import Models

ATTEMPTS = 3
"""Most attempts at one task of a model, the first one included."""
FIRST_WAIT_S = 0.05
"""Longest wait in seconds before the second attempt; doubled before each further attempt. The wait is
drawn between half of this time and all of it, so that calls that were lost together do not return
together."""

T = TypeVar("T")


class Retries:
    """The attempts at one task of a model. A task may take several calls, which share the attempts."""

    def __init__(self, models: Models, model: str) -> None:
        self._models = models
        self._model = model
        self._left = ATTEMPTS - 1
        self._wait_s = FIRST_WAIT_S

    async def run(
        self, attempt: Callable[[], Awaitable[T]], on_retry: Callable[[EngineUnavailable], None]
    ) -> T:
        """Make a call, and make the call again while `may_retry` allows.

        Args:
            attempt: makes the call.
            on_retry: gets the error of each lost call before the call is made again.

        Raises:
            RequestError: the last attempt's error.
        """
        while True:
            try:
                return await attempt()
            except EngineUnavailable as error:  # 1: other errors are final
                if not await self.may_retry(error):
                    raise
                on_retry(error)

    async def may_retry(self, error: EngineUnavailable) -> bool:
        """Whether to make the call again after `error`; returns after the wait before the new attempt.

        The numbers are those of the file's docstring. A probe that no replica answers uses up an
        attempt too.
        """
        if isinstance(error, ServerUnreachable | NoReplica):  # 2
            return False
        if not self._left:  # 3
            return False
        self._left -= 1
        if not await self._models.is_alive(self._model):  # 4
            return False
        await asyncio.sleep(self._wait_s * random.uniform(0.5, 1))  # 5
        self._wait_s *= 2
        return True
