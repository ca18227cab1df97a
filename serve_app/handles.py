"""The mixture's way to its models over Ray Serve handles; Ray's errors become ours here."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from actors.engine import Delta, Message
from actors.replica import ReplicaStats
from configs.errors import EngineError, EngineUnavailable, NoReplica, Overloaded, RequestError
from configs.schema import Model, Sampling

PROBE_S = 2.0
"""A replica that is up answers within milliseconds, or within this on a busy machine. Where there is
none, Serve would have the call wait for ever."""


class ServeModels:
    """`retry.Replicated` over one Serve handle per model. patience_s: of whole answers (`complete`), in
    place of the recipe's."""

    def __init__(
        self, handles: Mapping[str, DeploymentHandle[Any]], patience_s: float | None = None
    ) -> None:
        self._handles = dict(handles)
        self._patience_s = patience_s
        self.gone: Collection[str] = ()
        """Models of which no replica runs. Serve would have their calls wait until one does."""
        self._streams = {name: h.options(stream=True) for name, h in self._handles.items()}

    async def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncIterator[Delta]:
        self._check(model)
        # Serve types the call as either kind of response; a streaming handle gives this one.
        response: Any = self._streams[model].stream.remote(messages, sampling, streamed)
        done = False
        try:
            async for delta in response:
                done = delta.engine_s > 0  # the last one; its stream's own end comes ms later
                yield delta
                if done:
                    return
            done = True
        except (RayError, RayServeException) as error:
            done = True
            raise as_ours(error, model) from error
        except asyncio.CancelledError:
            if _we_are_cancelled():
                raise
            done = True
            raise _cancelled_there(model) from None
        finally:
            if not done:  # leaving the loop does not cancel a call; only this does
                response.cancel()

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        self._check(model)
        whole: Delta = await self._call(model, "complete", messages, sampling, self._patience_s)
        return whole

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> int:
        self._check(model)
        count: int = await self._call(model, "count_tokens", messages)
        return count

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        self._check(model)
        ends: list[list[int]] = await self._call(model, "token_ends", texts)
        return ends

    async def is_alive(self, model: str) -> bool:
        """Whether a replica of the model answers within `PROBE_S`. One whose engine is made anew does;
        calls wait there until it is back."""
        try:
            async with asyncio.timeout(PROBE_S):
                await self.settings(model)
        except (TimeoutError, RequestError):
            return False
        return True

    async def stats(self, model: str) -> ReplicaStats:
        """What one replica of the model has done; raises EngineUnavailable if there is none."""
        stats: ReplicaStats = await self._call(model, "stats")
        return stats

    async def settings(self, model: str) -> tuple[Model, int]:
        """The model as its recipe has it, and how many calls may wait at one replica."""
        settings: tuple[Model, int] = await self._call(model, "settings")
        return settings

    def _check(self, model: str) -> None:
        if model in self.gone:
            raise NoReplica(f"no replica of model {model!r} runs", model=model)

    async def _call(self, model: str, method: str, *arguments: Any) -> Any:
        response = getattr(self._handles[model], method).remote(*arguments)
        try:
            return await response
        except (RayError, RayServeException) as error:
            raise as_ours(error, model) from error
        except asyncio.CancelledError:
            response.cancel()
            if _we_are_cancelled():
                raise
            raise _cancelled_there(model) from None
        except BaseException:
            response.cancel()
            raise


def _we_are_cancelled() -> bool:
    """Serve raises CancelledError also where the replica's side of a call was cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _cancelled_there(model: str) -> EngineUnavailable:
    return EngineUnavailable(f"the replica of model {model!r} cancelled the call", model=model)


def as_ours(error: Exception, model: str) -> RequestError:
    """Ray's error for a call to `model` -> ours. Its text is the cause's, without a traceback."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, RequestError):
        return cause
    if isinstance(cause, BackPressureError):
        return Overloaded(f"the queue of model {model!r} is full", model=model)
    if isinstance(error, RayTaskError) and not isinstance(cause, RayError):
        return EngineError(f"{type(cause).__name__}: {cause}", model=model)
    what = f"the replica of model {model!r} is not there ({type(cause).__name__})"
    return EngineUnavailable(what, model=model)
