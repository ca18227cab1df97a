"""How many replicas run now, for the ledger: nodes join and leave, and replicas follow the load."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import dataclass

from serve_app.access.admission import AdmissionControl

LOOK_S = 2.0
"""Nobody counts while no request comes, and no more often than this: until then an ingress that is left
alone gives out no more than its part."""
STALE_S = 3 * LOOK_S
"""A count that is older is none."""
WAIT_S = 2.0
"""Requests that come without a count wait for it until its look has lasted so long."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """Replicas that run. models: of each model, by name; ingresses: of the HTTP entry."""

    models: Mapping[str, int]
    ingresses: int


CountReplicas = Callable[[], Awaitable[ReplicaCounts]]


class ReplicaCounter:
    """Tells a ledger how many there are. count: looks; None where their number never changes."""

    def __init__(self, ledger: AdmissionControl, count: CountReplicas | None) -> None:
        self._ledger, self._count = ledger, count
        self._looked_at = self._counted_at = -math.inf
        self._look: asyncio.Task[None] | None = None

    async def keep(self) -> None:
        """Call for each request. It returns at once where there is a count, and none fails for it."""
        if self._count is None:
            return
        now = asyncio.get_running_loop().time()
        if self._look is None or (self._look.done() and now - self._looked_at >= LOOK_S):
            self._looked_at = now
            # In a context of its own: in that of the request that began it, what it asks of Ray would
            # be cancelled with that request when its client leaves, and the count be lost to all.
            self._look = asyncio.create_task(self._counted(self._count), context=Context())
        wait_s = self._looked_at + WAIT_S - now
        if now - self._counted_at > STALE_S and wait_s > 0:
            await asyncio.wait([self._look], timeout=wait_s)

    async def _counted(self, count: CountReplicas) -> None:
        try:
            running = await count()
        except Exception:
            logger.exception("the replicas could not be counted")
        else:
            self._counted_at = asyncio.get_running_loop().time()
            self._ledger.count(running.models, running.ingresses)
