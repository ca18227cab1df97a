"""What becomes of each request, told to those who count, log and trace requests.

Nothing here may keep text of prompts or answers. A request that is admitted has a `Watcher`, which
sees the events of its answer but no deltas, so that watching costs nothing per token. A request that is
refused before any work on it begins is told with `Observer.refuse`.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from configs.errors import RequestError
from serve_app.mixture.events import AnswerDelta, AnswerDone, Event, ProposalDelta, Summary
from serve_app.mixture.models import Models
from serve_app.safe_traceback import safe_traceback

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an answer that was admitted."""

    request_id: str
    """See `request_id.py`."""
    key: str
    """Name of the API key."""
    model: str
    """The name that was asked for: the mixture's or a model's."""
    is_mixture: bool
    """Whether the mixture answers, and not one of its models alone."""
    is_stream: bool
    """Whether the client reads the answer as it grows."""
    traceparent: str | None
    """The request's header `traceparent` (W3C Trace Context), unchecked; None if there is none, or
    several."""
    tracestate: str | None = None
    """The request's headers `tracestate`, unchecked and joined by commas; None if there is none."""
    routed: str | None = None
    """The model that answers in place of the mixture, by a route of the recipe; None if none does."""

    @property
    def answers(self) -> str:
        """The name of who answers: the mixture, or one of its models."""
        return self.routed or self.model


@dataclass(frozen=True, slots=True)
class Ended:
    """How the work on a request ended."""

    seconds: float
    """Time since the request was admitted."""
    summary: Summary | None = None
    """How the answer came about; None if there is no complete answer."""
    error: RequestError | None = None
    """The error with which the request failed. A defect of this program is a plain `RequestError`."""

    @property
    def has_left(self) -> bool:
        """Whether the work was stopped before its end, because the client left or the server stops."""
        return self.summary is None and self.error is None


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that was answered with an error before any model worked on it."""

    request_id: str
    key: str | None
    """Name of the API key; None if the request has no valid key."""
    method: str
    path: str
    """The path of the request without its query, unchecked and of any length."""
    error: RequestError
    status: int
    """HTTP status of the error."""


class Watcher(Protocol):
    """Watches the work on one request."""

    def event(self, event: Event) -> None:
        """Take note of an event: each but `AnswerDelta` and `ProposalDelta`."""

    def end(self, ended: Ended) -> None:
        """Take note of the end. It is called once, and nothing is called after."""


class CallWatcher(Watcher, Protocol):
    """A watcher that also sees the calls to models that the work on the request makes."""

    def watch_calls(self, models: Models) -> Models:
        """The models as the work on the request is to call them. It is called once, before any work
        begins."""


class Observer(Protocol):
    """Learns what becomes of requests."""

    def begin(self, asked: Asked) -> Watcher:
        """A request was admitted. Gives what watches the work on the request."""

    def refuse(self, refused: Refused) -> None:
        """A request was refused."""


class Observers:
    """Several observers as one. A defect of one of them is logged, and costs no request anything."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = tuple(observers)

    def begin(self, asked: Asked) -> Watcher:
        """See `Observer.begin`."""
        watchers = []
        for observer in self._observers:
            try:
                watchers.append(observer.begin(asked))
            except Exception as defect:
                _tell(defect)
        return _Watchers(watchers)

    def refuse(self, refused: Refused) -> None:
        """See `Observer.refuse`."""
        for observer in self._observers:
            try:
                observer.refuse(refused)
            except Exception as defect:
                _tell(defect)


def _tell(defect: Exception) -> None:
    logger.error("what watches requests has a defect: %s", safe_traceback(defect))


class _Watchers:
    """Several watchers of one request as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def event(self, event: Event) -> None:
        for watcher in self._watchers:
            try:
                watcher.event(event)
            except Exception as defect:
                _tell(defect)

    def end(self, ended: Ended) -> None:
        for watcher in self._watchers:
            try:
                watcher.end(ended)
            except Exception as defect:
                _tell(defect)

    def watch_calls(self, models: Models) -> Models:
        for watcher in self._watchers:
            try:
                models = watched_calls(models, watcher)
            except Exception as defect:
                _tell(defect)
        return models


def watched_calls(models: Models, watcher: Watcher) -> Models:
    """The models as the work on a request is to call them while `watcher` watches it."""
    # `isinstance` with a protocol takes 11 microseconds, and each watcher would need this check.
    watch: Callable[[Models], Models] | None = getattr(watcher, "watch_calls", None)
    return models if watch is None else watch(models)


async def watched(
    work: Callable[[Watcher], AsyncGenerator[Event]],
    begin: Callable[[], Watcher],
    clock: Callable[[], float],
) -> AsyncGenerator[Event]:
    """Pass on the events of an answer, and tell a watcher of them. Closing this generator closes the
    events.

    Args:
        work: gives the events of the answer; the work on the answer begins with the first event.
        begin: gives the watcher; called just before `work`.
        clock: gives the time in seconds.
    """
    began = clock()
    watcher = begin()
    summary: Summary | None = None
    error: RequestError | None = None
    try:
        async with aclosing(work(watcher)) as events:
            async for event in events:
                kind = type(event)
                if kind is not AnswerDelta and kind is not ProposalDelta:
                    watcher.event(event)
                    if isinstance(event, AnswerDone):
                        summary = event.summary
                yield event
    except RequestError as failure:
        error = failure
        raise
    except Exception as defect:
        error = RequestError(f"internal error ({type(defect).__name__})")
        raise
    finally:
        watcher.end(Ended(clock() - began, None if error else summary, error))
