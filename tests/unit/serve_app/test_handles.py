"""Calls over Serve handles, without a cluster: Ray's errors, cancellation, the end of a call."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import aclosing
from typing import Any, cast

import pytest
from ray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError

from actors.engine import Delta, Message, collect_answer
from actors.replica import ReplicaStats
from configs.errors import (
    ContextTooLong,
    EngineError,
    EngineUnavailable,
    NoReplica,
    Overloaded,
    RequestError,
)
from configs.schema import Sampling

with warnings.catch_warnings(action="ignore"):  # Ray Serve's own models warn when they are defined
    from ray.serve.exceptions import BackPressureError, RequestCancelledError

    from serve_app.handles import PROBE_S, ServeModels, as_ours

pytestmark = pytest.mark.virtual_time

MESSAGES = [Message(role="user", content="hello")]
TRACEBACK = "Traceback (most recent call last): of the replica"
ENDED = Delta(engine_s=1.5, last=True)


class Response:
    """What a call gives, in steps: a result, an error that is raised, or None, which waits for ever."""

    def __init__(self, steps: tuple[object, ...]) -> None:
        self._steps = list(steps)
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def __await__(self) -> Generator[Any, None, Any]:
        return self._next().__await__()

    def __aiter__(self) -> "Response":
        return self

    async def __anext__(self) -> Any:
        if not self._steps:
            raise StopAsyncIteration
        return await self._next()

    async def _next(self) -> Any:
        step = self._steps.pop(0)
        if step is None:
            await asyncio.Event().wait()
        if isinstance(step, BaseException):
            raise step
        return step


class Handle:
    """A Serve handle whose every call gives the same. `calls`: method and arguments of each."""

    def __init__(self, *steps: object) -> None:
        self._steps = steps
        self.calls: list[tuple[str, tuple[object, ...]]] = []
        self.responses: list[Response] = []
        self.streams = False

    def options(self, *, stream: bool) -> "Handle":
        self.streams = stream
        return self

    def __getattr__(self, method: str) -> "_Method":
        return _Method(self, method)

    def call(self, method: str, *arguments: object) -> Response:
        self.calls.append((method, arguments))
        self.responses.append(Response(self._steps))
        return self.responses[-1]


class _Method:
    def __init__(self, handle: Handle, name: str) -> None:
        self._handle, self._name = handle, name

    def remote(self, *arguments: object) -> Response:
        return self._handle.call(self._name, *arguments)


def models_over(handle: Handle, **options: Any) -> ServeModels:
    return ServeModels({"m": cast("Any", handle)}, **options)


async def stream(models: ServeModels) -> list[Delta]:
    return [delta async for delta in models.stream("m", MESSAGES, Sampling())]


CALLS: dict[str, Callable[[ServeModels], Coroutine[Any, Any, object]]] = {
    "stream": stream,
    "complete": lambda models: models.complete("m", MESSAGES, Sampling()),
    "count_tokens": lambda models: models.count_tokens("m", MESSAGES),
    "token_ends": lambda models: models.token_ends("m", ["hello"]),
}


def task_error(cause: Exception) -> RayTaskError:
    """The error that Ray makes of an exception in an actor."""
    return RayTaskError("stream", TRACEBACK, cause)  # type: ignore[no-untyped-call]


def raised(cause: Exception) -> Exception:
    """The error that awaiting a call raises: an instance of the cause's class as well."""
    error: Exception = task_error(cause).as_instanceof_cause()  # type: ignore[no-untyped-call]
    assert isinstance(error, type(cause))
    return error


@pytest.mark.parametrize(
    ("error", "ours", "message"),
    [
        (raised(EngineError("broken", model="m")), EngineError, "broken"),
        (raised(ContextTooLong("9 too many", model="m")), ContextTooLong, "9 too many"),
        (task_error(EngineUnavailable("engine gone", model="m")), EngineUnavailable, "engine gone"),
        (
            BackPressureError(num_queued_requests=9, max_queued_requests=9),
            Overloaded,
            "the queue of model 'm' is full",
        ),
        (
            raised(BackPressureError(num_queued_requests=9, max_queued_requests=9)),
            Overloaded,
            "the queue of model 'm' is full",
        ),
        (raised(ValueError("odd")), EngineError, "ValueError: odd"),
        (task_error(ValueError("odd")), EngineError, "ValueError: odd"),
        (
            ActorDiedError(),
            EngineUnavailable,
            "the replica of model 'm' is not there (ActorDiedError)",
        ),
        (
            task_error(ActorDiedError()),
            EngineUnavailable,
            "the replica of model 'm' is not there (ActorDiedError)",
        ),
        (
            TaskCancelledError(),
            EngineUnavailable,
            "the replica of model 'm' is not there (TaskCancelledError)",
        ),
        (
            RequestCancelledError(),
            EngineUnavailable,
            "the replica of model 'm' is not there (RequestCancelledError)",
        ),
    ],
)
@pytest.mark.parametrize("call", CALLS)
async def test_rays_errors_become_ours(
    error: Exception, ours: type[RequestError], message: str, call: str
) -> None:
    assert type(as_ours(error, "m")) is ours
    with pytest.raises(RequestError) as caught:
        await CALLS[call](models_over(Handle(error)))
    assert type(caught.value) is ours
    assert (caught.value.message, caught.value.model) == (message, "m")
    assert TRACEBACK not in str(caught.value)


@pytest.mark.parametrize("call", CALLS)
async def test_a_defect_of_our_own_passes_as_it_is(call: str) -> None:
    with pytest.raises(ZeroDivisionError):
        await CALLS[call](models_over(handle := Handle(ZeroDivisionError())))
    assert handle.responses[0].cancelled


async def test_an_error_after_the_first_delta_comes_after_it() -> None:
    models = models_over(handle := Handle(Delta(text="half "), ActorDiedError()))
    deltas = models.stream("m", MESSAGES, Sampling())
    assert await anext(deltas) == Delta(text="half ")
    with pytest.raises(EngineUnavailable, match=r"is not there \(ActorDiedError\)"):
        await anext(deltas)
    assert not handle.responses[0].cancelled


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_that_the_replica_cancelled_is_lost(call: str) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        await CALLS[call](models_over(Handle(asyncio.CancelledError())))
    assert caught.value.message == "the replica of model 'm' cancelled the call"
    assert caught.value.model == "m"


@pytest.mark.parametrize("call", CALLS)
async def test_a_caller_that_is_cancelled_cancels_its_call_and_stays_cancelled(call: str) -> None:
    calling = asyncio.create_task(CALLS[call](models_over(handle := Handle(None))))
    await asyncio.sleep(1)
    assert not handle.responses[0].cancelled
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    assert handle.responses[0].cancelled


async def test_a_stream_that_is_left_cancels_its_call() -> None:
    models = models_over(handle := Handle(Delta(text="half "), None))
    deltas = cast("AsyncIterator[Any]", models.stream("m", MESSAGES, Sampling()))
    async with aclosing(cast("Any", deltas)):
        await anext(deltas)
        assert not handle.responses[0].cancelled
    assert handle.responses[0].cancelled


async def test_the_last_delta_ends_the_stream_without_waiting_for_serve() -> None:
    models = models_over(handle := Handle(Delta(text="hello"), ENDED, None))
    assert await stream(models) == [Delta(text="hello"), ENDED]
    assert not handle.responses[0].cancelled


async def test_no_other_delta_ends_the_stream() -> None:
    deltas = [Delta(engine_s=1.5), Delta(finish_reason="stop", completion_tokens=3), Delta(text="more")]
    assert await stream(models_over(handle := Handle(*deltas))) == deltas
    assert not handle.responses[0].cancelled


async def test_calls_reach_the_replica_with_their_arguments() -> None:
    sampling = Sampling(seed=3)
    models = models_over(handle := Handle(ENDED), patience_s=7.0)
    assert await models.complete("m", MESSAGES, sampling) == ENDED
    assert await collect_answer(models.stream("m", MESSAGES, sampling)) == ENDED
    assert await collect_answer(models.stream("m", MESSAGES, sampling, False)) == ENDED
    assert handle.calls == [
        ("complete", (MESSAGES, sampling, 7.0)),
        ("stream", (MESSAGES, sampling, True)),
        ("stream", (MESSAGES, sampling, False)),
    ]
    assert handle.streams


@pytest.mark.parametrize("call", CALLS)
async def test_calls_to_a_model_without_replicas_fail_at_once_until_it_has_some(call: str) -> None:
    models = models_over(handle := Handle(ENDED))
    models.note_running({"m": 0, "other": 2})
    with pytest.raises(NoReplica) as caught:
        await CALLS[call](models)
    assert (caught.value.message, caught.value.model) == ("no replica of model 'm' runs", "m")
    assert handle.calls == []
    models.note_running({"m": 1, "other": 0})
    await CALLS[call](models)
    assert len(handle.calls) == 1


async def test_before_replicas_are_counted_no_model_is_gone() -> None:
    assert await stream(models_over(Handle(ENDED))) == [ENDED]


async def test_a_model_without_replicas_can_still_be_probed() -> None:
    models = models_over(handle := Handle(("its settings", 4)))
    models.note_running({"m": 0})
    assert await models.is_alive("m")
    assert handle.calls == [("settings", ())]


@pytest.mark.parametrize(
    ("answer", "waits_s"),
    [(None, PROBE_S), (ActorDiedError(), 0), (asyncio.CancelledError(), 0)],
    ids=["no answer", "dead", "cancelled"],
)
async def test_a_model_whose_replica_does_not_answer_a_probe_is_not_alive(
    answer: object, waits_s: float
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert not await models_over(handle := Handle(answer)).is_alive("m")
    assert loop.time() - began == waits_s
    assert handle.responses[0].cancelled == (not isinstance(answer, ActorDiedError))


async def test_stats_are_those_of_a_replica() -> None:
    stats = ReplicaStats(1, 2, 3, 4, 5, 6, 7)
    assert await models_over(Handle(stats)).stats("m") == stats
