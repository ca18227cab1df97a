"""The log's lines about requests: one for each answer, and one for each refusal.

A line has no text of prompts or answers. Of an error it has the message only if the message is made
from the server's own settings and counts (`OWN_WORDS`); of all other errors it has the code, because
their messages quote what the client or another server has said.
"""

import asyncio
import logging
import re
from collections.abc import Collection, Sequence

from cluster.logs.limit import LeftOut, LineLimit
from cluster.logs.line import Line, shortened
from configs.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    Forbidden,
    OverAllowance,
    Overloaded,
    RequestError,
    ShuttingDown,
    Unauthorized,
)
from configs.extra_parameters import SENT_AS
from configs.schema import Recipe
from serve_app.mixture.events import (
    NOT_NEEDED,
    Answered,
    Call,
    Event,
    Judged,
    Missing,
    ProposalDone,
    ProposalDropped,
    Retried,
    Spent,
    StageDone,
)
from serve_app.observe import Asked, Ended, Refused, Watcher

OWN_WORDS = (DeadlineExceeded, EngineUnavailable, Overloaded, Forbidden, ShuttingDown, Unauthorized)
"""Errors whose messages quote nobody."""
OWN_CAUSES = {kind.code for kind in OWN_WORDS} | {"no_replica", "server_unreachable"}
"""Causes of missing models whose details quote nobody."""
LOGIN = re.compile(r"//[^/@\s]*@")
"""A name and a password in an URL."""
MOST_PATH = 80
"""Most characters of a path in a line."""
MOST_MISSING = 12
"""Most missing models that a line names."""

logger = logging.getLogger(__name__)


class LogLines:
    """An observer (`observe.py`) that logs.

    Args:
        recipe: what is served. No line names a model that is not the recipe's: a client may have called
            the proposals that it gave (`moa.fuse`) anything.
        limit: decides which refusals are written.
    """

    def __init__(self, recipe: Recipe, limit: LineLimit | None = None) -> None:
        self._names = frozenset(recipe.names)
        self._limit = limit or LineLimit()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, asked: Asked) -> Watcher:
        """See `Observer.begin`."""
        return _AnswerLine(asked, self._names)

    def refuse(self, refused: Refused) -> None:
        """See `Observer.refuse`. Lines with the same code about the same key are limited; how many were
        left out is said once the limit's window is over."""
        loop = asyncio.get_running_loop()
        self._tell_left_out(loop.time())
        if self._limit.allows((refused.error.code, refused.key), loop.time()):
            logger.log(level_of(refused.error), _refusal(refused))
        elif self._timer is None:
            self._timer = loop.call_later(self._limit.window_s, self._look)

    def _look(self) -> None:
        self._timer = None
        self._tell_left_out(asyncio.get_running_loop().time())

    def _tell_left_out(self, now: float) -> None:
        for left_out in self._limit.ended(now):
            logger.warning(_more(left_out))


def level_of(error: RequestError) -> int:
    """The level of a refusal: WARNING where the operator has to act, because the models have no room.
    All else is for the client to mend, or for the owner of the key."""
    return logging.WARNING if isinstance(error, Overloaded) and error.model else logging.INFO


def why(error: RequestError) -> str | None:
    """The message of an error, if the message quotes nobody."""
    return LOGIN.sub("//", error.message) if isinstance(error, OWN_WORDS) else None


def why_missing(missing: Missing) -> str | None:
    """Why a model is missing, in words that quote nobody; None if there are none, or if they only
    repeat the cause."""
    if missing.cause not in OWN_CAUSES or not missing.detail:
        return None
    return LOGIN.sub("//", missing.detail)


def _refusal(refused: Refused) -> Line:
    error = refused.error
    fields = {
        "request": refused.request_id,
        "key": refused.key,
        "method": refused.method,
        "path": shortened(refused.path, MOST_PATH),
        "status": refused.status,
        "code": error.code,
        "model": error.model if isinstance(error, Overloaded) else None,
        "retry_after_s": error.retry_after_s if isinstance(error, OverAllowance) else None,
        "why": why(error),
    }
    return Line("refused", fields)


def _more(left_out: LeftOut) -> Line:
    code, key = left_out.thing if isinstance(left_out.thing, tuple) else (None, None)
    fields = {"code": code, "key": key, "more": left_out.count, "within_s": left_out.seconds}
    return Line("refused", fields)


class _AnswerLine:
    """Collects what the line of one answer says."""

    def __init__(self, asked: Asked, names: Collection[str]) -> None:
        self._asked = asked
        self._names = names
        self._stages: dict[str, float] = {}
        self._first_s: float | None = None
        self._missing: list[Missing] = []
        self._retried: list[str] = []
        self._calls: list[Call] = []

    def event(self, event: Event) -> None:
        """See `Watcher.event`."""
        match event:
            case StageDone():
                self._stages[event.stage] = event.seconds
                if event.first_s is not None:
                    self._first_s = event.at_s + event.first_s
            case ProposalDone() | Spent() | Judged():
                self._calls.append(event.call)
            case Answered():
                if event.call is not None:
                    self._calls.append(event.call)
            case ProposalDropped() if event.missing.cause == NOT_NEEDED:
                pass
            case ProposalDropped():
                self._missing.append(event.missing)
            case Missing():
                self._missing.append(event)
            case Retried():
                self._retried.append(event.model)

    def end(self, ended: Ended) -> None:
        """See `Watcher.end`."""
        level = logging.INFO
        if ended.error is not None and ended.error.status >= 500:
            level = logging.WARNING
        if logger.isEnabledFor(level):
            logger.log(level, Line("answer", self._fields(ended)))

    def _fields(self, ended: Ended) -> dict[str, object]:
        asked, error, summary = self._asked, ended.error, ended.summary
        fields: dict[str, object] = {
            "request": asked.request_id,
            "key": asked.key,
            "model": asked.model,
            "stream": asked.is_stream,
            "outcome": outcome(ended),
            "seconds": ended.seconds,
            "first_s": self._first_s,
            "stages": self._stages or None,
            "calls": len(self._calls),
            "tokens_in": sum(call.prompt_tokens for call in self._calls),
            "tokens_out": sum(call.completion_tokens for call in self._calls),
        }
        if error is not None:
            fields |= {"status": error.status, "code": error.code, "at": error.model, "why": why(error)}
        fields["missing"] = missing_words(self._missing)
        fields["details"] = _details(self._missing)
        fields["retried"] = self._retried or None
        if summary is not None:
            answered = summary.answered
            fields["by"] = (
                answered.model if asked.is_mixture and answered.model in self._names else None
            )
            fields["how"] = answered.method if answered.why else None
            fields["fallback"] = answered.fallback
            fields["cut"] = answered.cut or None
            fields["unheld"] = [SENT_AS.get(name, name) for name in answered.unheld] or None
            fields["trimmed"] = [trimmed.model for trimmed in summary.trimmed] or None
        return fields


def _details(missing: Sequence[Missing]) -> list[str] | None:
    """Why models are missing, once for each model."""
    found = {each.model: why_missing(each) for each in missing}
    return [f"{model}: {said}" for model, said in found.items() if said] or None


def outcome(ended: Ended) -> str:
    """How an answer ended: `ok`, `degraded`, `failed`, or `left` if the client left."""
    if ended.summary is not None:
        return "degraded" if ended.summary.degraded else "ok"
    return "failed" if ended.error is not None else "left"


def missing_words(missing: Sequence[Missing]) -> list[str] | None:
    """The models that are missing, each with its cause; None if there are none."""
    if not missing:
        return None
    words = [f"{each.model}:{each.cause}" for each in missing[:MOST_MISSING]]
    more = len(missing) - MOST_MISSING
    return [*words, f"and {more} more"] if more > 0 else words
