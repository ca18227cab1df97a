"""How many replicas of each model and of the ingress run now: admission control needs these counts.

A count is taken only when requests come, at most every COUNT_EVERY_S, in the background. While no
request comes, the last count grows old; the first request after such a pause waits for a new one,
because with an old count an ingress that is the last one left would still give out only its former
part.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass

from serve_app.access.admission import AdmissionControl

COUNT_EVERY_S = 2.0
"""Least time between the starts of two counts: each asks Serve's controller."""
STALE_S = 3 * COUNT_EVERY_S
"""A count that was taken longer ago is not relied on: requests wait for the next one."""
WAIT_S = 2.0
"""Longest time from the start of a count for which requests wait for it. After that they go on with
what is known: Serve's controller can be slow or away while replicas still answer."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """Replicas that run now."""

    models: Mapping[str, int]
    """Of each model, by name."""
    ingresses: int
    """Of the HTTP entry."""


CountReplicas = Callable[[], Awaitable[ReplicaCounts]]


class ReplicaCounter:
    """Keeps an admission control up to date with the replicas that run.

    Args:
        count: takes a count; None where the numbers never change.
    """

    def __init__(self, admission: AdmissionControl, count: CountReplicas | None) -> None:
        self._admission = admission
        self._count = count
        self._started_at_s = -math.inf
        """When the last count was started."""
        self._counted_at_s = -math.inf
        """When the last count succeeded."""
        self._counting: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Call before each request is admitted.

        1. If no count runs and the last one began COUNT_EVERY_S ago or earlier, starts a count.
        2. If the last count that succeeded is older than STALE_S, waits for the count that runs, but no
           longer than WAIT_S from its start.

        With a recent count it returns at once. A count that fails is logged and fails no request.
        """
        if self._count is None:
            return
        now = asyncio.get_running_loop().time()
        is_counting = self._counting is not None and not self._counting.done()
        if not is_counting and now - self._started_at_s >= COUNT_EVERY_S:  # 1
            self._started_at_s = now
            # In a context of its own: Ray cancels what is asked on behalf of a request when its client
            # leaves, and with it the count would be lost to all requests.
            self._counting = asyncio.create_task(self._take_count(self._count), context=Context())
        wait_s = self._started_at_s + WAIT_S - now
        if self._counting and now - self._counted_at_s > STALE_S and wait_s > 0:  # 2
            await asyncio.wait([self._counting], timeout=wait_s)

    async def _take_count(self, count: CountReplicas) -> None:
        try:
            running = await count()
        except Exception:
            logger.exception("the replicas could not be counted")
        else:
            self._counted_at_s = asyncio.get_running_loop().time()
            self._admission.set_counts(running.models, running.ingresses)
