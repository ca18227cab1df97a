"""What came of a request, as its client saw it: each attempt, and the answer."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

LOST, HUNG = 0, -1  # statuses of attempts that got no HTTP status


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP request. status: LOST if the connection broke, HUNG if it was given up; times on the
    monotonic clock; retry_after: the header of that name."""

    status: int
    began: float
    ended: float
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request. error: why there is no whole answer; moa: the answer's own account; cut:
    its stream had begun when the connection broke."""

    number: int
    due: float
    ended: float
    attempts: tuple[Attempt, ...]
    text: str = ""
    moa: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    cut: bool = False

    @property
    def status(self) -> int:
        """Of the last attempt."""
        return self.attempts[-1].status

    @property
    def is_answered(self) -> bool:
        """With an answer, from its beginning to its end."""
        return self.status == 200 and not self.error

    @property
    def is_hung(self) -> bool:
        """One of its attempts had to be given up."""
        return any(attempt.status == HUNG for attempt in self.attempts)

    @property
    def is_degraded(self) -> bool:
        """Answered, without all that the recipe asks for."""
        return self.is_answered and bool(self.moa.get("degraded") or self.moa.get("cut"))

    @property
    def is_whole_at_once(self) -> bool:
        """Answered at the first attempt, with every proposal."""
        return self.is_answered and len(self.attempts) == 1 and not self.is_degraded

    @property
    def wall_s(self) -> float:
        """From the moment when it was due to the end of its last attempt."""
        return self.ended - self.due


OUTCOME = TypeAdapter(Outcome)
