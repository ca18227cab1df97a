"""The replicas of one model as a caller knows them: connections to them, and the choice among them."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping

from actors.calls.address import Address
from actors.calls.connection import Connection, connect
from configs.errors import NoReplica

RECONNECT_S = 0.25
"""Seconds before another attempt to reach a replica that should be there, after an attempt has failed
or a connection was lost."""
WAIT_S = 1.0
"""Longest wait, in seconds, for the connection to a replica that is known and not reached yet."""
LOOK_S = 0.25
"""Seconds between two looks whether the answers in work still need a replica that is leaving."""

logger = logging.getLogger(__name__)


class ReplicaPool:
    """Keeps one connection to each replica of a model, and chooses a replica for each call.

    1. `update` tells which replicas there are. The pool connects to a new replica at once.
    2. A connection that is lost takes its replica out of the choice at once. If the replica is still
       among those of the last `update`, the pool tries to reach it again.
    3. A connection lasts until it is lost, even if the replica is no longer among those of the last
       `update`: a replica itself knows best whether it is there.
    4. A replica that is leaving is chosen only if there is no other. Its connection is closed as soon
       as no call over it is open, and there is another replica or `is_busy` says no.

    Args:
        model: the model's name.
        node: Ray's ID of the caller's own node.
        is_busy: whether answers are in work that may still need the model.
        on_change: called when the number of replicas that can be called has changed.
    """

    def __init__(
        self,
        model: str,
        node: str,
        is_busy: Callable[[], bool] = lambda: False,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._model = model
        self._node = node
        self._is_busy = is_busy
        self._on_change = on_change
        self._known: dict[str, Address] = {}
        self._connections: dict[str, Connection] = {}
        self._connecting: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._count = 0
        self._closing: asyncio.TimerHandle | None = None

    @property
    def count(self) -> int:
        """Number of replicas that can be called and are not leaving."""
        return self._count

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections to the replicas that can be called, those that are leaving included."""
        return tuple(self._connections.values())

    def update(self, found: Mapping[str, Address]) -> None:
        """Take in which replicas there are, by their names."""
        self._known = dict(found)
        for name in self._known:
            if name not in self._connections and name not in self._connecting:
                self._connecting[name] = asyncio.create_task(self._connect(name))
        for name in self._connecting.keys() - self._known.keys():
            self._connecting.pop(name).cancel()

    async def choose(self) -> Connection:
        """The replica for a call: of those that have the fewest calls of this caller, any.

        Raises:
            NoReplica: no replica can be called. If one is known and not reached yet, the error comes
                after `WAIT_S`.
        """
        if (chosen := self._choose()) is not None:
            return chosen
        if self._connecting:
            try:
                async with asyncio.timeout(WAIT_S):
                    while (chosen := self._choose()) is None:
                        self._changed.clear()
                        await self._changed.wait()
                    return chosen
            except TimeoutError:
                pass
        raise NoReplica(f"no replica of model {self._model!r} runs", model=self._model)

    def close(self) -> None:
        """Close all connections, which ends their calls."""
        self._known = {}
        if self._closing is not None:
            self._closing.cancel()
        for connecting in self._connecting.values():
            connecting.cancel()
        self._connecting = {}
        for connection in list(self._connections.values()):
            connection.close()

    def _choose(self) -> Connection | None:
        staying = [c for c in self._connections.values() if not c.is_leaving]
        candidates = staying or list(self._connections.values())
        if len(candidates) < 2:
            return candidates[0] if candidates else None
        fewest = min(connection.in_flight for connection in candidates)
        return random.choice([c for c in candidates if c.in_flight == fewest])

    async def _reconnect(self, name: str) -> None:
        # A replica that ends every connection at once would otherwise keep the event loop busy.
        await asyncio.sleep(RECONNECT_S)
        await self._connect(name)

    async def _connect(self, name: str) -> None:
        is_told = False
        while True:
            try:
                connection = await connect(
                    self._known[name], self._node, self._model, lambda: self._look(name)
                )
                break
            except Exception as error:  # whatever it is, the replica may be reached later
                if not is_told:
                    logger.warning("replica %s of model %s: %r", name, self._model, error)
                is_told = True
                await asyncio.sleep(RECONNECT_S)
        del self._connecting[name]
        self._connections[name] = connection
        self._look(name)

    def _look(self, name: str) -> None:
        """Take in that a replica's connection was made or lost, or that the replica is leaving."""
        connection = self._connections.get(name)
        if connection is not None and connection.is_lost:
            del self._connections[name]
            if name in self._known and not connection.is_leaving and name not in self._connecting:
                self._connecting[name] = asyncio.create_task(self._reconnect(name))
        count = sum(not each.is_leaving for each in self._connections.values())
        self._changed.set()
        if count != self._count:
            self._count = count
            self._on_change()
        self._close_unneeded()

    def _close_unneeded(self) -> None:
        """Close the connections to leaving replicas that nobody needs (4)."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        leaving = [each for each in self._connections.values() if each.is_leaving]
        for connection in leaving:
            if not connection.in_flight and (self._count or not self._is_busy()):
                connection.close()
        if any(not each.in_flight for each in leaving):
            loop = asyncio.get_running_loop()
            self._closing = loop.call_later(LOOK_S, self._close_unneeded)
