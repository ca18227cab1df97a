"""How many replicas run now, for the ledger: nodes join and leave, and replicas follow the load."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from serve_app.ledger import Ledger

LOOK_S = 2.0
"""Nobody counts while no request comes, and no more often than this: until then an ingress that is left
alone gives out no more than its part."""
FIRST_S = 2.0
"""The first request waits so long for the first count."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """Replicas that run. models: of each model, by name; ingresses: of the HTTP entry."""

    models: Mapping[str, int]
    ingresses: int


Count = Callable[[], Awaitable[Running]]


class Census:
    """Tells a ledger how many there are. count: looks; None where their number never changes."""

    def __init__(self, ledger: Ledger, count: Count | None) -> None:
        self._ledger, self._count = ledger, count
        self._looked_at: float | None = None
        self._look: asyncio.Task[None] | None = None

    async def keep(self) -> None:
        """Call for each request. Only the first one waits, and none fails for it."""
        now, first = asyncio.get_running_loop().time(), self._looked_at is None
        if self._count is None:
            return
        if self._looked_at is None or now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._look = asyncio.create_task(self._counted(self._count))
        if first and self._look is not None:
            await asyncio.wait([self._look], timeout=FIRST_S)

    async def _counted(self, count: Count) -> None:
        try:
            running = await count()
        except Exception:
            logger.exception("the replicas could not be counted")
        else:
            self._ledger.count(running.models, running.ingresses)
