"""What this ingress has answered and refused lately: rates over the last minute, and the last requests.

Nothing here has text of prompts or answers. What is kept does not grow: a count for each second of the
last minute, and the last `KEPT` answers and refusals.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cluster.logs.line import shortened
from configs.errors import (
    EngineError,
    EngineUnavailable,
    NoReplica,
    RequestError,
    ServerUnreachable,
    WeightsError,
)
from configs.schema import Recipe
from serve_app.log_lines import MOST_PATH, missing_words, outcome, why, why_missing
from serve_app.mixture.events import (
    NOT_NEEDED,
    Answered,
    Call,
    Event,
    Judged,
    Missing,
    ProposalDone,
    ProposalDropped,
    Spent,
)
from serve_app.observe import Asked, Ended, Refused, Watcher
from serve_app.recent_report import ModelRates, Rates, RecentAnswer, RecentRefusal

WINDOW_S = 60
"""Seconds over which rates are counted."""
KEPT = 50
"""How many answers, and how many refusals, are remembered."""
FAILURES = {
    kind.code
    for kind in (
        EngineError,
        EngineUnavailable,
        NoReplica,
        ServerUnreachable,
        WeightsError,
        RequestError,
    )
}
"""The causes that say that a model does not work, and not only that an answer was late or empty."""
MOST_FAILING = 1000
"""Most failures in a row that are counted for one model."""


@dataclass(slots=True)
class _Model:
    failing: int = 0
    last_cause: str | None = None
    last_why: str | None = None
    last_missing_at: float | None = None


Count = tuple[str, ...]


class Recent:
    """An observer (`observe.py`) that remembers.

    Args:
        recipe: what is served.
        clock: gives the time in seconds, of any steady clock.
        wall_clock: gives the seconds since 1970.
    """

    def __init__(
        self,
        recipe: Recipe,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.names = frozenset(recipe.names)
        """The models that may have written an answer. A client may have called the proposals that it
        gave (`moa.fuse`) anything."""
        self._clock = clock
        self.wall_clock = wall_clock
        self._began = clock()
        self._seconds: deque[tuple[int, Counter[Count]]] = deque()
        self._models: dict[str, _Model] = {}
        self._in_work: dict[int, float] = {}
        self.answers: deque[RecentAnswer] = deque(maxlen=KEPT)
        """The last answers, the oldest first."""
        self.refusals: deque[RecentRefusal] = deque(maxlen=KEPT)
        """The last refusals, the oldest first."""

    def begin(self, asked: Asked) -> Watcher:
        """See `Observer.begin`."""
        watcher = _Answer(self, asked)
        self._in_work[id(watcher)] = self._clock()
        return watcher

    def refuse(self, refused: Refused) -> None:
        """See `Observer.refuse`."""
        self.count("refused", refused.error.code)
        self.refusals.append(
            RecentRefusal(
                at=self.wall_clock(),
                request_id=refused.request_id,
                key=refused.key,
                path=shortened(refused.path, MOST_PATH),
                status=refused.status,
                code=refused.error.code,
                why=why(refused.error),
            )
        )

    def in_work(self) -> tuple[int, float]:
        """How many answers are in work, and for how many seconds the oldest of them has been."""
        oldest = min(self._in_work.values(), default=None)
        return len(self._in_work), 0.0 if oldest is None else self._clock() - oldest

    def rates(self) -> Rates:
        """What has happened in the last minute."""
        self._forget_old()
        total: Counter[Count] = Counter()
        for _, counts in self._seconds:
            total.update(counts)
        models = {
            name: ModelRates(
                calls=total["calls", name],
                tokens_out=total["written", name],
                dropped=_by_last(total, "dropped", name),
                failing=known.failing,
                last_cause=known.last_cause,
                last_why=known.last_why,
                last_missing_at=known.last_missing_at,
            )
            for name, known in sorted(self._models.items())
        }
        return Rates(
            window_s=max(1.0, min(WINDOW_S, self._clock() - self._began)),
            answers=total["ok",] + total["degraded",],
            degraded=total["degraded",],
            failed=total["failed",],
            left=total["left",],
            tokens_in=total["tokens_in",],
            tokens_out=total["tokens_out",],
            refused=_by_last(total, "refused"),
            models=models,
        )

    def count(self, *what: str, by: int = 1) -> None:
        """Count something that has just happened."""
        second = int(self._clock())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
            self._forget_old()
        self._seconds[-1][1][what] += by

    def called(self, call: Call) -> None:
        """A call has ended with an answer."""
        self.count("calls", call.model)
        self.count("written", call.model, by=call.completion_tokens)
        self.count("tokens_in", by=call.prompt_tokens)
        self.count("tokens_out", by=call.completion_tokens)
        self._model(call.model).failing = 0

    def missed(self, missing: Missing) -> None:
        """A model is missing in an answer."""
        self.count("dropped", missing.model, missing.cause)
        known = self._model(missing.model)
        known.last_cause, known.last_missing_at = missing.cause, self.wall_clock()
        known.last_why = why_missing(missing)
        if missing.cause in FAILURES:
            known.failing = min(known.failing + 1, MOST_FAILING)

    def ended(self, watcher: "_Answer", answer: RecentAnswer) -> None:
        """An answer has ended."""
        del self._in_work[id(watcher)]
        self.count(answer.outcome)
        self.answers.append(answer)

    def _model(self, name: str) -> _Model:
        return self._models.setdefault(name, _Model())

    def _forget_old(self) -> None:
        oldest = self._clock() - WINDOW_S
        while self._seconds and self._seconds[0][0] < oldest:
            self._seconds.popleft()


def _by_last(total: Mapping[Count, int], *first: str) -> dict[str, int]:
    """The counts whose names begin with `first`, by the last part of each name."""
    size = len(first) + 1
    found = {what[-1]: n for what, n in total.items() if len(what) == size and what[:-1] == first}
    return dict(sorted(found.items()))


class _Answer:
    """Watches one answer."""

    def __init__(self, recent: Recent, asked: Asked) -> None:
        self._recent = recent
        self._asked = asked
        self._tokens_in = 0
        self._tokens_out = 0
        self._missing: list[Missing] = []

    def event(self, event: Event) -> None:
        """See `Watcher.event`."""
        match event:
            case ProposalDone() | Spent() | Judged():
                self._called(event.call)
            case Answered():
                if event.call is not None:
                    self._called(event.call)
            case ProposalDropped() if event.missing.cause == NOT_NEEDED:
                pass
            case ProposalDropped():
                self._missed(event.missing)
            case Missing():
                self._missed(event)

    def end(self, ended: Ended) -> None:
        """See `Watcher.end`."""
        asked, error, summary = self._asked, ended.error, ended.summary
        by = None if summary is None else summary.answered.model
        if error is not None and error.status >= 500 and not asked.is_mixture:
            self._recent.missed(Missing(0, asked.model, error.code, error.message))
        self._recent.ended(
            self,
            RecentAnswer(
                at=self._recent.wall_clock(),
                request_id=asked.request_id,
                key=asked.key,
                model=asked.model,
                outcome=outcome(ended),
                seconds=round(ended.seconds, 3),
                tokens_in=self._tokens_in,
                tokens_out=self._tokens_out,
                missing=missing_words(self._missing) or [],
                by=by if by in self._recent.names else None,
                code=None if error is None else error.code,
            ),
        )

    def _called(self, call: Call) -> None:
        self._tokens_in += call.prompt_tokens
        self._tokens_out += call.completion_tokens
        self._recent.called(call)

    def _missed(self, missing: Missing) -> None:
        self._missing.append(missing)
        self._recent.missed(missing)
