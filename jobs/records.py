"""What a run consists of, as plain data: rows, calls, answers, failures, verdicts.

A *set* is a list of rows. A *generator* is whatever answers rows: a mixture, one model alone, or a file
of outputs. A *verdict* is a judge's word on one answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from actors.engine import Delta, Message

GeneratorKind = Literal["mixture", "model", "file"]
VerdictKind = Literal["pairwise", "grade"]


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt of a set.

    index: its place in the set's order, from 0; turns: the user's messages, one after another, each
    asked with the answers before it in view (MT-Bench has two); before: messages that come before the
    first turn; references: reference answers, one per turn, if the set has them; dataset, category:
    the set's own labels.
    """

    index: int
    turns: tuple[str, ...]
    before: tuple[Message, ...] = ()
    dataset: str = ""
    category: str = ""
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredCall:
    """One finished engine call. key: hash of everything that determines it; seed: its sampling's."""

    key: bytes
    model: str
    seed: int | None
    whole: Delta


@dataclass(frozen=True, slots=True)
class UsedCall:
    """A call as part of an answer. layer: 0 for the aggregator, or for a model alone; place: in the
    layer, from 0."""

    layer: int
    place: int
    model: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a generator answered to one turn of a row.

    used: the calls behind it; missing: who did not contribute, empty unless degraded; finish_reason:
    how the text ended; seconds: wall time, 0 where everything was stored; at: Unix time.
    """

    generator: str
    row: int
    turn: int
    text: str
    used: tuple[UsedCall, ...] = ()
    missing: tuple[Mapping[str, Any], ...] = ()
    finish_reason: str = "stop"
    seconds: float = 0.0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a generator has no answer to a row, or an answer no verdict.

    stage: `generate` or `judge`; cause: an error's code; attempts: how often it was tried in all runs;
    judge, baseline, turn: of the verdict that is missing.
    """

    stage: str
    generator: str
    row: int
    cause: str
    detail: str
    attempts: int = 1
    at: float = 0.0
    judge: str = ""
    baseline: str = ""
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Generator:
    """identity: hash of what determines its answers; about: what is kept for people (the recipe)."""

    name: str
    kind: GeneratorKind
    identity: str
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's word on one answer.

    judge: the judge's name, its prompt included; baseline: the other generator of a pair, empty for a
    grade; value: preference 1 (baseline) to 2 (generator), or a grade 1 to 10, None if the judge's
    answer could not be used; cause: why not, or `identical`; switched: the generator was shown first;
    call: key of the judge's call, None if it took none.
    """

    judge: str
    kind: VerdictKind
    generator: str
    baseline: str
    row: int
    turn: int
    value: float | None
    cause: str = ""
    switched: bool = False
    call: bytes | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run was at one moment. at: Unix time; rows: with an answer; failed: rows without;
    tokens: written so far by engines; calls: made, and reused from the store; swaps: so far."""

    at: float
    generator: str
    rows: int
    failed: int
    tokens: int
    calls: int
    reused: int
    swaps: int
