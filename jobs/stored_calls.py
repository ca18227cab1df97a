"""Engine calls whose results are stored: a call that is stored is never made again.

A call fails for good only if its model fails on the call several times, or is away for long. So a batch
survives the restart of a model, and a queue that other clients have filled.
"""

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

from actors.engine import NONE, Delta, Message
from cluster.waiting import WaitTeller
from configs.errors import (
    EngineError,
    EngineUnavailable,
    Overloaded,
    ServerUnreachable,
    UserError,
)
from configs.schema import Sampling
from jobs.identity import call_key
from jobs.records import CallResult, StoredCall
from jobs.store import Store
from serve_app.mixture.models import Models

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ModelNotThere(UserError):
    """A model has been out of reach from the beginning; the message names it and the cause."""


@dataclass(frozen=True, slots=True)
class CallPatience:
    """How often and how long a call is tried."""

    attempts: int = 3
    """Number of failures of the model on the call after which the call fails for good."""

    unavailable_s: float = 600.0
    """Seconds that the model may be away."""

    first_contact_s: float = math.inf
    """Seconds that the server of a remote model may be out of reach as long as no call has reached it:
    nobody has started it then, or its address is wrong."""

    stall_s: float = math.inf
    """Seconds after which a call counts as failed, if no call of any model has ended meanwhile. A call
    may wait for hours behind others; if nothing ends at all, its engine hangs."""

    first_s: float = 0.25
    """Longest wait in seconds before the second attempt; doubled before each further attempt."""

    longest_s: float = 10.0
    """Longest wait in seconds before any attempt."""


@dataclass(slots=True)
class CallCounts:
    """What has happened to the calls of a StoredCalls so far."""

    made: int = 0
    """Calls that engines finished."""

    reused: int = 0
    """Calls whose result was in the store, or that several answers shared."""

    retried: int = 0
    """Attempts that were repeated."""

    tokens: int = 0
    """Tokens that engines wrote."""

    in_work: Counter[str] = field(default_factory=Counter)
    """Calls that engines work on, or that wait at a model, by the model's name."""


@dataclass(slots=True)
class _CallLimit:
    """Bounds the calls to one model at a time, so that they do not overrun the model's queue."""

    free: asyncio.Semaphore
    """One permit for each further call that may begin now."""

    under_way: dict[bytes, "asyncio.Task[Delta]"] = field(default_factory=dict)
    """The model's calls by key, with the calls that wait for a permit."""


class StoredCalls:
    """Calls models by name, and keeps the results in a store.

    Use it as an async context manager: leaving cancels the calls under way.
    """

    def __init__(
        self,
        store: Store,
        models: Models,
        identities: Mapping[str, str],
        call_limits: Mapping[str, int],
        patience: CallPatience | None = None,
        own_defaults: Collection[str] = (),
        say: Callable[[str], None] = logger.warning,
    ) -> None:
        """Calls over an open store.

        Args:
            store: has the results of earlier calls, and gets the results of new calls.
            models: the models for calls that are not stored.
            identities: what each model is, as a hash (`identity.model_identity`), by name of the model.
            call_limits: the most calls to each model at once, by name of the model.
            patience: how often and how long a call is tried.
            own_defaults: names of the models that decide what holds where a call's sampling says
                nothing (`identity.has_own_defaults`).
            say: gets a line for people while calls wait long for a model that is away.
        """
        self.models = models
        self.counts = CallCounts()
        self._store = store
        self._identities = dict(identities)
        self._limits = {name: _CallLimit(asyncio.Semaphore(n)) for name, n in call_limits.items()}
        self._own_defaults = frozenset(own_defaults)
        self._patience = patience or CallPatience()
        self._teller = WaitTeller(say)
        self._has_reached = False
        self._last_end = -math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        unfinished = [task for limit in self._limits.values() for task in limit.under_way.values()]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> CallResult:
        """The model's whole output: from the store, or from its engine and then stored.

        Equal calls that are under way at the same time share one engine call. Cancelling a caller does
        not cancel the engine call.

        Raises:
            RequestError: the error of the last attempt.
            StoreError: the result cannot be stored.
        """
        own = model in self._own_defaults
        key = call_key(model, self._identities[model], messages, sampling, own_defaults=own)
        under_way = self._limits[model].under_way
        if (task := under_way.get(key)) is not None:
            whole = await asyncio.shield(task)
            self.counts.reused += 1
            return CallResult(whole, key, was_stored=False)
        if (stored := self._store.call(key)) is not None:
            self.counts.reused += 1
            return CallResult(stored.whole, key, was_stored=True)
        task = asyncio.create_task(self._call_engine(key, model, messages, sampling))
        under_way[key] = task
        task.add_done_callback(lambda _: under_way.pop(key))
        return CallResult(await asyncio.shield(task), key, was_stored=False)

    async def _call_engine(
        self, key: bytes, model: str, messages: Sequence[Message], sampling: Sampling
    ) -> Delta:
        async with self._limits[model].free:
            self.counts.in_work[model] += 1
            try:
                whole = await self.retry(model, lambda: self._attempt(model, messages, sampling))
            finally:
                self.counts.in_work[model] -= 1
        self.counts.made += 1
        self.counts.tokens += whole.completion_tokens
        await self._store.keep_call(StoredCall(key, model, sampling.seed, whole))
        return whole

    async def _attempt(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        """One call of an engine.

        Raises:
            EngineError: the call has hung for `CallPatience.stall_s`, or failed.
            RequestError: any other error of the call.
        """
        if self._patience.stall_s == math.inf:
            return await self.models.complete(model, messages, sampling)
        loop = asyncio.get_running_loop()
        call = asyncio.ensure_future(self.models.complete(model, messages, sampling))
        began = loop.time()
        try:
            while (left_s := max(began, self._last_end) + self._patience.stall_s - loop.time()) > 0:
                if (await asyncio.wait([call], timeout=left_s))[0]:
                    return await call
            raise EngineError(
                f"no answer within {self._patience.stall_s:g} s, in which no other call ended either",
                model=model,
            )
        finally:
            self._last_end = loop.time()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

    async def retry(self, model: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of `attempt`, which is called again after an error as `CallPatience` allows.

        While `model` is away for long, a line says so.

        1. The model's queue is full: try again, however long it takes.
        2. The model is away: try again until it has been away for `unavailable_s`.
        3. The model failed: try again until it has failed `attempts` times.
        4. Any other error: raise the error at once, because another attempt would not help.

        Raises:
            RequestError: the error of the last attempt.
            ModelNotThere: no call has reached the model yet (`CallPatience.first_contact_s`).
        """
        loop = asyncio.get_running_loop()
        away_since = None
        wait_s = self._patience.first_s
        failures = 0
        while True:
            try:
                result = await attempt()
            except Overloaded:  # 1
                away_since = None
            except EngineUnavailable as error:  # 2
                # Counted from the first such error. The call may have waited hours for a turn before.
                away_since = loop.time() if away_since is None else away_since
                if loop.time() - away_since >= self._patience.unavailable_s:
                    raise
                self._wait_for(model, error, loop.time(), away_since)
            except EngineError:  # 3
                away_since = None
                failures += 1
                if failures >= self._patience.attempts:
                    raise
            else:
                self._has_reached = True
                self._teller.ends(f"model {model!r}")
                return result
            self.counts.retried += 1
            await asyncio.sleep(wait_s * random.uniform(0.5, 1))
            wait_s = min(2 * wait_s, self._patience.longest_s)

    def _wait_for(self, model: str, error: EngineUnavailable, now: float, away_since: float) -> None:
        """Say that calls wait for a model.

        Raises:
            ModelNotThere: see `retry`.
        """
        is_unknown = isinstance(error, ServerUnreachable) and not self._has_reached
        if is_unknown and now - away_since >= self._patience.first_contact_s:
            raise ModelNotThere(f"model {model!r} cannot be reached: {error.message}") from error
        self._teller.waits(f"model {model!r}", now, error.message)


class StoredModels:
    """The models as the mixture calls them for one answer: implements `Models` over a StoredCalls."""

    def __init__(self, calls: StoredCalls) -> None:
        self._calls = calls

        self.keys: dict[tuple[str, int | None], bytes] = {}
        """Keys of the answer's calls, by model and sampling seed."""

        self.all_stored = True
        """True as long as every call was in the store already."""

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        result = await self._calls.complete(model, messages, sampling)
        self.keys[model, sampling.seed] = result.key
        self.all_stored = self.all_stored and result.was_stored
        return result.whole

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        """The whole output in one delta: nobody watches a batch."""
        yield await self.complete(model, messages, sampling)

    async def is_alive(self, _model: str) -> bool:
        """Always False, so that the mixture does not retry: calls have waited for their model already,
        as long as `CallPatience` allows."""
        return False

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return await self._calls.retry(
            model, lambda: self._calls.models.count_tokens(model, messages, template)
        )

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        return await self._calls.retry(model, lambda: self._calls.models.token_ends(model, texts))
