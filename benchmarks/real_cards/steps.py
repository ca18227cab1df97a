"""Runs the steps of a check within a time budget. A step that fails is a row, never an exception."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from benchmarks.real_cards.rows import MOST_NOTE, Kind, Row, RowFile, Unit, Value

CLOSE_S = 20.0
"""Most seconds in which a part frees what it holds. The budget keeps them back for that."""
LEAST_LIMIT_S = 120.0
"""Seconds that every step may take if the budget has them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a part."""

    name: str
    """Its name, unique in its part."""
    run: Callable[["Notes"], Awaitable[None]]
    """Measures, and notes each figure as soon as there is one."""
    expected_s: float
    """Seconds that it is expected to take. With less left of the budget it is skipped."""
    after: tuple[str, ...] = ()
    """Names of the steps without whose success it is skipped."""

    @property
    def limit_s(self) -> float:
        """Most seconds that it may take, so that a step that hangs leaves time for other parts."""
        return max(LEAST_LIMIT_S, 3 * self.expected_s)


class Part:
    """Steps that belong together, and what has to be freed after them. Subclasses say which."""

    name: str = ""
    """Name of the part, unique in its call."""

    def steps(self) -> Sequence[Step]:
        """The steps, in order."""
        raise NotImplementedError

    async def close(self) -> None:
        """Free all that the steps left: engines and processes."""


@dataclass(slots=True)
class Budget:
    """The time of one call, on the event loop's clock."""

    seconds: float
    """Seconds that the call may take."""
    began_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    @property
    def used_s(self) -> float:
        """Seconds since the call began."""
        return asyncio.get_running_loop().time() - self.began_at

    @property
    def left_s(self) -> float:
        """Seconds that steps may still take, without those to free what they leave."""
        return self.seconds - CLOSE_S - self.used_s


@dataclass(frozen=True, slots=True)
class Notes:
    """Where a step notes its figures."""

    call: str
    part: str
    step: str
    file: RowFile
    budget: Budget

    def add(
        self,
        what: str,
        measured: Value,
        unit: Unit = "",
        *,
        planned: Value = None,
        good: bool | None = None,
        note: str = "",
        kind: Kind = "row",
    ) -> None:
        """Write a row of this step. The arguments are the fields of `Row`."""
        self.file.add(
            Row(
                call=self.call,
                part=self.part,
                step=self.step,
                what=what,
                planned=planned,
                measured=measured,
                unit=unit,
                good=good,
                note=_one_line(note),
                kind=kind,
                at_s=round(self.budget.used_s, 2),
            )
        )

    def failed(self, why: str) -> None:
        """Write that this step failed."""
        self.add("failed", None, good=False, note=why, kind="failed")

    def skipped(self, why: str) -> None:
        """Write that this step was skipped."""
        self.add("skipped", None, note=why, kind="skipped")


class SkipStep(Exception):
    """Raised by a step that finds that it cannot be measured here; it counts as skipped."""


async def run_part(part: Part, call: str, file: RowFile, budget: Budget) -> None:
    """Run a part's steps in order, and then close the part. Raises nothing but a cancellation."""
    succeeded: set[str] = set()
    try:
        for step in part.steps():
            notes = Notes(call, part.name, step.name, file, budget)
            if reason := _reason_to_skip(step, succeeded, budget):
                notes.skipped(reason)
            elif await _has_succeeded(step, notes):
                succeeded.add(step.name)
    finally:
        await _close(part, Notes(call, part.name, "clean up", file, budget))


def _reason_to_skip(step: Step, succeeded: set[str], budget: Budget) -> str:
    if missing := [name for name in step.after if name not in succeeded]:
        return f"{missing[0]!r} did not succeed"
    if budget.left_s < step.expected_s:
        return f"it takes about {step.expected_s:.0f} s, and {max(0.0, budget.left_s):.0f} s are left"
    return ""


async def _has_succeeded(step: Step, notes: Notes) -> bool:
    limit_s = min(step.limit_s, notes.budget.left_s)
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            await step.run(notes)
    except SkipStep as reason:
        notes.skipped(str(reason))
    except TimeoutError as error:
        notes.failed(f"it took longer than {limit_s:.0f} s" if limit.expired() else _text(error))
    except Exception as error:  # the other steps still tell something
        logger.info("step %s failed", step.name, exc_info=True)
        notes.failed(_text(error))
    else:
        return True
    return False


async def _close(part: Part, notes: Notes) -> None:
    try:
        async with asyncio.timeout(CLOSE_S):
            await part.close()
    except Exception as error:  # the next part still tells something
        with suppress(OSError):
            notes.failed(_text(error))


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _one_line(text: str) -> str:
    """The text on one line; of a long text, its beginning and its end, where the cause often stands."""
    text = " ".join(text.split())
    half = MOST_NOTE // 2
    return text if len(text) <= MOST_NOTE else f"{text[:half]} ... {text[-half:]}"
