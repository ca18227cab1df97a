"""Collecting verdicts: all in flight up to a bound, each kept as soon as it is there, none twice."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.engine import Message
from configs.errors import RequestError, UserError
from configs.schema import Sampling
from jobs.records import CallResult, Failure, Row, Verdict
from jobs.store import Store
from jobs.worker_pool import work_on_all

IDENTICAL = "identical"


class JudgeCalls(Protocol):
    """Engine calls whose results are kept: a call that was made before is not made again."""

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> CallResult:
        """The model's whole output, and the key that the call is stored under."""


class JudgeRefused(UserError):
    """The judge cannot judge; the message names it and what it returned."""


@dataclass(frozen=True, slots=True)
class JudgeSummary:
    """How the verdicts stand, those of earlier runs included.

    judged: with a value from the judge; identical: pairs that need no judge; unusable: the judge's
    answer was no verdict, never scored; failed: the call failed and the next run tries it again;
    missing: there is no answer to judge. Their sum is the number of cases. reused: how many of the
    first three were there before this run.
    """

    judge: str
    judged: int = 0
    identical: int = 0
    unusable: int = 0
    failed: int = 0
    missing: int = 0
    reused: int = 0


OnProgress = Callable[[JudgeSummary], None]
Case = tuple[Row, Verdict]  # what is judged, and the verdict to be, without its value
Decide = Callable[[Row, Verdict], Awaitable[Verdict | None]]


class Verdicts:
    """One judge's verdicts on their way into the store.

    decide: makes one verdict; None where an answer is missing.
    """

    def __init__(
        self, judge: str, store: Store, decide: Decide, on_progress: OnProgress | None
    ) -> None:
        self._judge = judge
        self._store = store
        self._decide = decide
        self._on_progress = on_progress
        self._counts: Counter[str] = Counter()

    async def collect(self, cases: Iterable[Case], in_flight: int) -> JudgeSummary:
        """Settle all cases, at most so many at once. The cases are drawn one by one, as they start.

        Raises:
            What `decide` raises, but for errors of a call: those are kept as failures.
        """
        await work_on_all(cases, self._settle_and_count, in_flight)
        return self._summary()

    async def _settle_and_count(self, case: Case) -> None:
        self._counts[await self._settle(*case)] += 1
        if self._on_progress is not None:
            self._on_progress(self._summary())

    async def _settle(self, row: Row, case: Verdict) -> str:
        """Which of the summary's numbers the case adds to."""
        stored = self._store.verdict(
            case.judge, case.kind, case.generator, case.baseline, case.row, case.turn
        )
        if stored is not None:
            self._counts["reused"] += 1
            return _outcome(stored)
        try:
            verdict = await self._decide(row, case)
        except RequestError as error:
            await self._store.keep_failure(_failure(case, error))
            return "failed"
        if verdict is None:
            return "missing"
        await self._store.keep_verdict(verdict)
        return _outcome(verdict)

    def _summary(self) -> JudgeSummary:
        return JudgeSummary(self._judge, **self._counts)


def _outcome(verdict: Verdict) -> str:
    if verdict.value is None:
        return "unusable"
    return "identical" if verdict.cause == IDENTICAL else "judged"


def _failure(case: Verdict, error: RequestError) -> Failure:
    return Failure(
        "judge",
        case.generator,
        case.row,
        error.code,
        error.message,
        at=time.time(),
        judge=case.judge,
        baseline=case.baseline,
        turn=case.turn,
    )
