"""Collects the verdicts of a judge: several at once, each stored as soon as it is made.

A verdict that is in the store is not made again.
"""

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
"""Cause of a verdict on two equal answers, for which no judge is asked."""


class JudgeCalls(Protocol):
    """Calls to a judge whose results are kept: a call that was made before is not made again."""

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> CallResult:
        """The model's whole output, and the key that the call is stored under.

        Raises:
            RequestError: the call failed.
        """


class JudgeRefused(UserError):
    """The model cannot serve as a judge; the message names the model and says what went wrong."""


@dataclass(frozen=True, slots=True)
class JudgeSummary:
    """How the cases of a judge ended. A case is one verdict to make, on an answer or on two answers.

    Verdicts that earlier commands stored are counted too. `judged`, `identical`, `unusable`, `failed`
    and `missing` add up to the number of cases.
    """

    judge: str
    """Name of the judge in verdicts, see `prompt.name_with_hash`."""
    judged: int = 0
    """Cases in which the judge gave a preference or a grade."""
    identical: int = 0
    """Cases in which both answers are equal, so that no judge is needed."""
    unusable: int = 0
    """Cases in which the judge's answer contains no verdict; these cases are never scored."""
    failed: int = 0
    """Cases in which the call to the judge failed; the next command tries these cases again."""
    missing: int = 0
    """Cases without an answer to judge."""
    reused: int = 0
    """How many of the judged, identical and unusable verdicts were in the store already."""


OnProgress = Callable[[JudgeSummary], None]
Case = tuple[Row, Verdict]
"""A row, and the verdict to make on it, still without a value."""
JudgeCase = Callable[[Row, Verdict], Awaitable[Verdict | None]]
"""Makes the verdict of a case; returns None if an answer is missing."""


class VerdictCollector:
    """Has a judge make verdicts and puts them into the store."""

    def __init__(
        self, judge: str, store: Store, judge_case: JudgeCase, on_progress: OnProgress | None
    ) -> None:
        """A collector of the verdicts of one judge.

        Args:
            judge: Name of the judge in verdicts.
            store: Where verdicts and failures are kept.
            judge_case: Makes one verdict.
            on_progress: Gets a summary after each case.
        """
        self._judge = judge
        self._store = store
        self._judge_case = judge_case
        self._on_progress = on_progress
        self._counts: Counter[str] = Counter()

    async def collect(self, cases: Iterable[Case], in_flight: int) -> JudgeSummary:
        """Make the verdicts of all cases, at most `in_flight` at once.

        A case is drawn from `cases` only when work on it starts.

        Raises:
            Exception: `judge_case` raised it. A RequestError is not raised, but kept as a failure.
        """
        await work_on_all(cases, self._collect_and_count, in_flight)
        return self._summary()

    async def _collect_and_count(self, case: Case) -> None:
        self._counts[await self._collect_verdict(*case)] += 1
        if self._on_progress is not None:
            self._on_progress(self._summary())

    async def _collect_verdict(self, row: Row, case: Verdict) -> str:
        """Take the verdict from the store or make it.

        Returns:
            The field of the summary that counts the case.
        """
        stored = self._store.verdict(
            case.judge, case.kind, case.generator, case.baseline, case.row, case.turn
        )
        if stored is not None:
            self._counts["reused"] += 1
            return _outcome(stored)
        try:
            verdict = await self._judge_case(row, case)
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
    """The field of the summary that counts this verdict."""
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
