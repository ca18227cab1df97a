"""How many replicas of each model and of the ingress run now: admission control needs these counts.

A count is taken in the background, only when requests come, and at most every COUNT_EVERY_S seconds.
While no request comes, the last count grows old. The first request after such a pause waits for a new
count. With the old count, an ingress whose fellow ingresses have died would still give out only its
former part of the capacity.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass

from serve_app.access.admission import AdmissionControl

COUNT_EVERY_S = 2.0
"""Least seconds between the starts of two counts, because each count asks Serve's controller."""
STALE_S = 3 * COUNT_EVERY_S
"""Seconds after which a count is too old to rely on, so that requests wait for the next count."""
WAIT_S = 2.0
"""Seconds from the start of a count after which requests no longer wait for the count. They go on with
the last count, because Serve's controller can be slow or away while replicas still answer."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """How many replicas run now."""

    models: Mapping[str, int]
    """The number of replicas of each model, by the model's name."""
    ingresses: int
    """The number of replicas of the ingress, the deployment that has the HTTP API."""


CountReplicas = Callable[[], Awaitable[ReplicaCounts]]
"""Counts the replicas that run now."""


class ReplicaCounter:
    """Keeps an admission control up to date with the number of replicas that run.

    Args:
        admission: gets each new count.
        count: takes a count; None where the numbers never change.
    """

    def __init__(self, admission: AdmissionControl, count: CountReplicas | None) -> None:
        self._admission = admission
        self._count = count
        self._started_at_s = -math.inf
        """When the last count was started, in seconds on the event loop's clock."""
        self._counted_at_s = -math.inf
        """When the last count succeeded, in seconds on the same clock."""
        self._counting: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Bring the counts up to date. To be called before each request is admitted.

        1. If no count runs, and the last count began at least COUNT_EVERY_S ago, a count is started.
        2. If the last count that succeeded is older than STALE_S, this function waits for the count
           that runs, but no longer than WAIT_S from its start.

        With a recent count this function returns at once. A count that fails is logged and fails no
        request.
        """
        if self._count is None:
            return
        now = asyncio.get_running_loop().time()
        is_counting = self._counting is not None and not self._counting.done()
        if not is_counting and now - self._started_at_s >= COUNT_EVERY_S:  # 1
            self._started_at_s = now
            # In a context of its own: when a client leaves, Ray cancels all calls that were made on
            # behalf of its request, and would cancel the count for which other requests wait.
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
