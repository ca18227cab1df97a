"""The mixture's calls to its models over Ray Serve handles. Ray's errors become ours here."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from actors.engine import Delta, Message
from actors.replica import ReplicaStats
from configs.errors import EngineError, EngineUnavailable, NoReplica, Overloaded, RequestError
from configs.schema import Model, Sampling

PROBE_S = 2.0
"""Longest wait for a probe, in seconds. A running replica answers within milliseconds, or within this
time if its machine is busy. If no replica runs, Serve would let the call wait for ever."""


class ServeModels:
    """`mixture.models.Models` over one Serve handle per model.

    Args:
        handles: the handle of each model, by the model's name.
        patience_s: seconds that a `complete` call waits before it ends another model's turn; None for
            the recipe's `patience_s`.
    """

    def __init__(
        self, handles: Mapping[str, DeploymentHandle[Any]], patience_s: float | None = None
    ) -> None:
        self._handles = dict(handles)
        self._streams = {name: h.options(stream=True) for name, h in self._handles.items()}
        self._patience_s = patience_s
        self._gone: frozenset[str] = frozenset()

    def note_running(self, counts: Mapping[str, int]) -> None:
        """Take in how many replicas of each model run. Models without replicas are gone: calls to them
        raise NoReplica at once, where Serve would let the calls wait until a replica runs again."""
        self._gone = frozenset(model for model, count in counts.items() if not count)

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncIterator[Delta]:
        """See `Models`.

        Raises:
            RequestError: NoReplica if the model is gone, EngineUnavailable if the replica's side
                cancelled the call, or the error that `as_ours` makes of Ray's error.
        """
        self._require_replica(model)
        # Serve types the call as either kind of response; a streaming handle gives this kind.
        response: Any = self._streams[model].stream.remote(messages, sampling, streamed)
        ended = False
        try:
            async for delta in response:
                ended = delta.last  # the end of Serve's stream itself comes milliseconds later
                yield delta
                if ended:
                    return
            ended = True
        except (RayError, RayServeException) as error:
            ended = True
            raise as_ours(error, model) from error
        except asyncio.CancelledError:
            if _is_caller_cancelled():
                raise
            ended = True
            raise _cancelled_by_replica(model) from None
        finally:
            if not ended:  # leaving the loop does not cancel a call of Serve
                response.cancel()

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        self._require_replica(model)
        whole: Delta = await self._call(model, "complete", messages, sampling, self._patience_s)
        return whole

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int:
        self._require_replica(model)
        count: int = await self._call(model, "count_tokens", messages)
        return count

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        self._require_replica(model)
        ends: list[list[int]] = await self._call(model, "token_ends", texts)
        return ends

    async def is_alive(self, model: str) -> bool:
        """Whether a replica of the model answers within `PROBE_S`.

        A replica whose engine restarts answers too: its calls wait until the engine is back.
        """
        try:
            async with asyncio.timeout(PROBE_S):
                await self.settings(model)
        except (TimeoutError, RequestError):
            return False
        return True

    async def stats(self, model: str) -> ReplicaStats:
        """The counts of one of the model's replicas, whichever Serve chooses.

        Raises:
            RequestError: the error that `as_ours` makes; EngineUnavailable if the replica is lost.
        """
        stats: ReplicaStats = await self._call(model, "stats")
        return stats

    async def settings(self, model: str) -> tuple[Model, int]:
        """The model's settings as its recipe has them, and how many calls may wait at one replica."""
        settings: tuple[Model, int] = await self._call(model, "settings")
        return settings

    def _require_replica(self, model: str) -> None:
        if model in self._gone:
            raise NoReplica(f"no replica of model {model!r} runs", model=model)

    async def _call(self, model: str, method: str, *arguments: Any) -> Any:
        response = getattr(self._handles[model], method).remote(*arguments)
        try:
            return await response
        except (RayError, RayServeException) as error:
            raise as_ours(error, model) from error
        except asyncio.CancelledError:
            response.cancel()
            if _is_caller_cancelled():
                raise
            raise _cancelled_by_replica(model) from None
        except BaseException:
            response.cancel()
            raise


def _is_caller_cancelled() -> bool:
    """Whether our own caller caused a CancelledError. Serve raises CancelledError as well if the
    replica's side of a call was cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _cancelled_by_replica(model: str) -> EngineUnavailable:
    return EngineUnavailable(f"the replica of model {model!r} cancelled the call", model=model)


def as_ours(error: Exception, model: str) -> RequestError:
    """Our error for Ray's error in a call to `model`. Its message never has a traceback.

    1. The replica raised a RequestError: that error.
    2. The replica's queue is full: Overloaded.
    3. The replica raised any other error that is not Ray's: EngineError.
    4. Anything else, such as a replica that died: EngineUnavailable.
    """
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, RequestError):  # 1
        return cause
    if isinstance(cause, BackPressureError):  # 2
        return Overloaded(f"the queue of model {model!r} is full", model=model)
    if isinstance(error, RayTaskError) and not isinstance(cause, RayError):  # 3
        return EngineError(f"{type(cause).__name__}: {cause}", model=model)
    what = f"the replica of model {model!r} is not there ({type(cause).__name__})"  # 4
    return EngineUnavailable(what, model=model)
