"""Engine calls whose results are kept: what is stored is never asked for again.

A call fails for good only when its model failed on it several times, or was not there for long: a
batch outlives a model that is restarted, and a queue that others have filled.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from actors.engine import Delta, Message
from configs.errors import EngineError, EngineUnavailable, Overloaded
from configs.schema import Sampling
from jobs.identity import call_key
from jobs.records import StoredCall
from jobs.store import Store
from serve_app.mixture.models import Models

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CallPatience:
    """How long a call is tried. attempts: in all, if the model fails on it; unavailable_s: for how
    long its model may be away; first_s, longest_s: waits in between, which double."""

    attempts: int = 3
    unavailable_s: float = 600.0
    first_s: float = 0.25
    longest_s: float = 10.0


@dataclass(slots=True)
class CallCounts:
    """Since the start. made: calls that engines finished; reused: found in the store, or asked for by
    several answers at once; retried: attempts that were repeated; tokens: that engines wrote."""

    made: int = 0
    reused: int = 0
    retried: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Room:
    """Places for calls of one model, so that its queue is not overrun."""

    places: asyncio.Semaphore
    under_way: dict[bytes, "asyncio.Task[Delta]"] = field(default_factory=dict)


class StoredCalls:
    """Calls to models, by name, over a store. Use as an async context manager: leaving it cancels what
    is under way.

    identities: of each model (`identity.model_identity`); room: most calls to each at once.
    """

    def __init__(
        self,
        store: Store,
        models: Models,
        identities: Mapping[str, str],
        room: Mapping[str, int],
        retries: CallPatience | None = None,
    ) -> None:
        self.models = models
        self.counts = CallCounts()
        self._store = store
        self._identities = dict(identities)
        self._rooms = {name: _Room(asyncio.Semaphore(places)) for name, places in room.items()}
        self._retries = retries or CallPatience()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        left = [task for room in self._rooms.values() for task in room.under_way.values()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def complete(
        self, model: str, messages: Sequence[Message], sampling: Sampling
    ) -> tuple[Delta, bytes]:
        """The model's answer in one piece, and the key that it is stored under.

        Equal calls at one time are one. A caller that is cancelled does not take the call back.

        Raises:
            RequestError: of the last attempt.
            StoreError: the result cannot be kept.
        """
        whole, key, _ = await self.kept(model, messages, sampling)
        return whole, key

    async def kept(
        self, model: str, messages: Sequence[Message], sampling: Sampling
    ) -> tuple[Delta, bytes, bool]:
        """As `complete`, and whether the answer was in the store already."""
        key = call_key(model, self._identities[model], messages, sampling)
        room = self._rooms[model]
        if (task := room.under_way.get(key)) is not None:
            whole = await asyncio.shield(task)
            self.counts.reused += 1
            return whole, key, False
        if (stored := self._store.call(key)) is not None:
            self.counts.reused += 1
            return stored.whole, key, True
        task = asyncio.create_task(self._make(key, model, messages, sampling))
        room.under_way[key] = task
        task.add_done_callback(lambda _: room.under_way.pop(key))
        return await asyncio.shield(task), key, False

    async def _make(
        self, key: bytes, model: str, messages: Sequence[Message], sampling: Sampling
    ) -> Delta:
        async with self._rooms[model].places:
            whole = await self.patiently(lambda: self.models.complete(model, messages, sampling))
        self.counts.made += 1
        self.counts.tokens += whole.completion_tokens
        await self._store.keep_call(StoredCall(key, model, sampling.seed, whole))
        return whole

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What the attempt gives, as often as `CallPatience` allows.

        Raises:
            RequestError: of the last attempt; at once if another would not help.
        """
        loop = asyncio.get_running_loop()
        away_since, wait_s, failures = None, self._retries.first_s, 0
        while True:
            try:
                return await attempt()
            except Overloaded:
                away_since = None  # others use the model too; the place in its queue will come
            except EngineUnavailable:
                # Not since the call began: before that it may have waited for a turn for hours.
                away_since = loop.time() if away_since is None else away_since
                if loop.time() - away_since >= self._retries.unavailable_s:
                    raise
            except EngineError:
                away_since = None
                failures += 1
                if failures >= self._retries.attempts:
                    raise
            self.counts.retried += 1
            await asyncio.sleep(wait_s * random.uniform(0.5, 1))
            wait_s = min(2 * wait_s, self._retries.longest_s)


class StoredModels:
    """`mixture.models.Models` of one answer over `StoredCalls`.

    keys: of its calls, by model and seed; all_stored: none of them had to be waited for.
    """

    def __init__(self, calls: StoredCalls) -> None:
        self._calls = calls
        self.keys: dict[tuple[str, int | None], bytes] = {}
        self.all_stored = True

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        whole, key, stored = await self._calls.kept(model, messages, sampling)
        self.keys[model, sampling.seed] = key
        self.all_stored = self.all_stored and stored
        return whole

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        """The answer in one piece: nobody watches a batch."""
        yield await self.complete(model, messages, sampling)

    async def is_alive(self, _model: str) -> bool:
        """No: its calls have waited for their model already, as long as `CallPatience` has it."""
        return False

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int:
        return await self._calls.patiently(lambda: self._calls.models.count_tokens(model, messages))

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        return await self._calls.patiently(lambda: self._calls.models.token_ends(model, texts))
