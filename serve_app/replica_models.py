"""The mixture's calls to its models, straight to their replicas. This file knows nothing of Ray."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any

from pydantic import TypeAdapter

from actors.calls.address import Address
from actors.calls.connection import Connection
from actors.calls.replica_pool import ReplicaPool
from actors.engine import NONE, Delta, Message
from actors.replica import ReplicaSettings, ReplicaStats
from configs.errors import RequestError
from configs.schema import Sampling
from serve_app.safe_traceback import safe_traceback

PROBE_S = 2.0
"""Longest wait for a probe, in seconds. A running replica answers within milliseconds, or within this
time if its machine is busy."""
FIRST_NOTICE_S = 5.0
"""Seconds from the start of the watch for which calls wait for the first notice of their model's
replicas. Serve gives no notice of a model before the model's first replica runs."""
WATCH_AGAIN_S = 1.0
"""Seconds after which a watch that has failed begins again."""

SETTINGS = TypeAdapter(ReplicaSettings)
STATS = TypeAdapter(ReplicaStats)

logger = logging.getLogger(__name__)

Notice = Callable[[str, Mapping[str, Address]], None]
"""Takes in the addresses of a model's replicas, by the names of the model and of each replica."""
Watch = Callable[[Notice], Awaitable[None]]
"""Gives a notice for each model now, and again whenever its replicas change, until it is cancelled."""


class ReplicaModels:
    """`mixture.models.Models` over connections to the models' replicas.

    The connections belong to the event loop of the first call. Another loop gets new ones.

    Args:
        models: names of the models.
        adapters: the model of each adapter, by the adapter's name. Calls to an adapter go to a replica
            of its model.
        node: Ray's ID of this process's own node.
        watch: tells which replicas there are.
        patience_s: seconds that a `complete` call waits before it ends another model's turn; None for
            the recipe's `patience_s`.
        is_busy: whether answers are in work that may still need the models.
        on_change: called when the number of a model's replicas has changed.
    """

    def __init__(
        self,
        models: Iterable[str],
        node: str,
        watch: Watch,
        *,
        adapters: Mapping[str, str] = NONE,
        patience_s: float | None = None,
        is_busy: Callable[[], bool] = lambda: False,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.names = tuple(models)
        """Names of the models."""
        self._adapters = dict(adapters)
        self._node = node
        self._watch = watch
        self._patience_s = patience_s
        self._is_busy = is_busy
        self._on_change = on_change
        self._pools: dict[str, ReplicaPool] = {}
        self._watching: asyncio.Task[None] | None = None
        self._noticed: dict[str, asyncio.Event] = {}
        """Set, by the model's name, once there was a notice of the model."""
        self._notice_due = 0.0
        """When a model without a notice counts as one without replicas, on the event loop's clock."""

    @property
    def counts(self) -> dict[str, int]:
        """How many replicas of each model can be called now."""
        return {name: pool.count for name, pool in self._pools.items()}

    def start(self) -> None:
        """Begin to watch the replicas, in the running event loop. A call does so too."""
        loop = asyncio.get_running_loop()
        if self._watching is not None and self._watching.get_loop() is loop:
            return
        self._noticed = {name: asyncio.Event() for name in self.names}
        self._notice_due = loop.time() + FIRST_NOTICE_S
        self._pools = {
            name: ReplicaPool(name, self._node, self._is_busy, self._on_change) for name in self.names
        }
        # In a context of its own: when a client leaves, Ray cancels all calls that were made on behalf
        # of its request, and would cancel the watch with them.
        self._watching = loop.create_task(self._run(self._pools, self._noticed), context=Context())

    async def close(self) -> None:
        """Let go of all replicas. Calls that are open end with EngineUnavailable."""
        if self._watching is not None and not self._watching.done():
            self._watching.cancel()
            await asyncio.wait([self._watching])

    def on_behalf(self, origin: Mapping[str, str]) -> "ModelsOnBehalf":
        """See `ModelsWithOrigin`."""
        return ModelsOnBehalf(self, origin)

    async def stream(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: Sampling,
        streamed: bool = True,
        origin: Mapping[str, str] = NONE,
    ) -> AsyncGenerator[Delta]:
        """See `Models`.

        Args:
            origin: where the call comes from; see `actors/origin.py`.
        """
        connection = await (await self._pool(model)).choose()
        # Not delegated by `async for`: closing this generator has to close the other one too.
        adapter = self._adapter(model)
        deltas = connection.stream(
            messages, sampling, streamed=streamed, adapter=adapter, origin=origin
        )
        try:
            async for delta in deltas:
                yield delta
        finally:
            await deltas.aclose()

    async def complete(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: Sampling,
        origin: Mapping[str, str] = NONE,
    ) -> Delta:
        connection = await (await self._pool(model)).choose()
        return await connection.complete(
            messages, sampling, self._patience_s, self._adapter(model), origin
        )

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        connection = await (await self._pool(model)).choose()
        return await connection.count_tokens(messages, template, self._adapter(model))

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        connection = await (await self._pool(model)).choose()
        return await connection.token_ends(texts)

    async def warm(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int | None:
        """See `serve_app.mixture.models.warm`. A warm-up helps only at the replica that will answer. If
        there are several replicas, nobody knows which replica will answer."""
        connections = [each for each in (await self._pool(model)).connections if not each.is_leaving]
        if len(connections) != 1:
            return None
        return await connections[0].warm(messages, template, self._adapter(model))

    async def is_alive(self, model: str) -> bool:
        """Whether a replica of the model answers within `PROBE_S`.

        A replica whose engine restarts answers too: its calls wait until the engine is back.
        """
        try:
            async with asyncio.timeout(PROBE_S):
                await self.stats(model)
        except (TimeoutError, RequestError):
            return False
        return True

    async def stats(self, model: str) -> ReplicaStats:
        """The counts of one of the model's replicas.

        Raises:
            RequestError: NoReplica if no replica can be called, EngineUnavailable if it is lost.
        """
        connection = await (await self._pool(model)).choose()
        return STATS.validate_python(await connection.about("stats"))

    async def all_stats(self, model: str) -> list[ReplicaStats | None]:
        """The counts of each of the model's replicas; None for a replica that does not answer within
        PROBE_S. The list is empty if no replica can be called."""
        return await asyncio.gather(
            *(_stats_in_time(each) for each in (await self._pool(model)).connections)
        )

    async def settings(self, model: str) -> ReplicaSettings:
        """The settings with which one of the model's replicas runs; see `stats`."""
        connection = await (await self._pool(model)).choose()
        return SETTINGS.validate_python(await connection.about("settings"))

    def _adapter(self, name: str) -> str | None:
        """The adapter that a call names; None if it names a model."""
        return name if name in self._adapters else None

    async def _pool(self, model: str) -> ReplicaPool:
        self.start()
        model = self._adapters.get(model, model)
        noticed = self._noticed[model]
        if not noticed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._notice_due):
                    await noticed.wait()
        return self._pools[model]

    async def _run(
        self, pools: Mapping[str, ReplicaPool], noticed: Mapping[str, asyncio.Event]
    ) -> None:
        def notice(model: str, found: Mapping[str, Address]) -> None:
            pools[model].update(found)
            noticed[model].set()

        try:
            while True:
                try:
                    await self._watch(notice)
                except Exception as error:  # without the watch, no new replica would ever be found
                    logger.error("the watch of the replicas failed: %s", safe_traceback(error))
                await asyncio.sleep(WATCH_AGAIN_S)
        finally:
            for pool in pools.values():
                pool.close()


async def _stats_in_time(connection: Connection) -> ReplicaStats | None:
    try:
        async with asyncio.timeout(PROBE_S):
            return STATS.validate_python(await connection.about("stats"))
    except (TimeoutError, RequestError):
        return None


class ModelsOnBehalf:
    """The models of a `ReplicaModels`, whose calls carry where they come from.

    Args:
        models: makes the calls.
        origin: see `actors/origin.py`.
    """

    def __init__(self, models: ReplicaModels, origin: Mapping[str, str]) -> None:
        self._models = models
        self._origin = origin
        self.count_tokens = models.count_tokens
        self.token_ends = models.token_ends
        self.is_alive = models.is_alive
        self.warm = models.warm

    def on_behalf(self, origin: Mapping[str, str]) -> "ModelsOnBehalf":
        """The same models. Their calls carry these facts beside those that they carry already."""
        return ModelsOnBehalf(self._models, {**self._origin, **origin})

    def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        """See `Models`."""
        return self._models.stream(model, messages, sampling, streamed, self._origin)

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await self._models.complete(model, messages, sampling, self._origin)
