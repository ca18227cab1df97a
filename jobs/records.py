"""What a run consists of, as plain data: rows, calls, answers, failures, verdicts, progress.

A *set* is a list of rows. A *generator* is anything that answers rows: a mixture, one model alone, or
a file of outputs. A *verdict* is a judge's opinion on one answer: a preference or a grade.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from actors.engine import Delta, Message

GeneratorKind = Literal["mixture", "model", "file"]
VerdictKind = Literal["pairwise", "grade"]


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt of a set."""

    index: int
    """Position in the set, from 0."""

    turns: tuple[str, ...]
    """The user's messages, asked one after another with the earlier answers in view. MT-Bench has two
    messages per row."""

    before: tuple[Message, ...] = ()
    """Messages of the conversation before the first turn."""

    dataset: str = ""
    """The set's label for where the prompt is from."""

    category: str = ""
    """The set's label for the kind of prompt."""

    references: tuple[str, ...] = ()
    """Reference answers, one per turn; empty if the set has none. A row with one turn may have several
    reference answers, each of which is right; a judge sees the first one."""

    id: int | str | None = None
    """The set's own name for the prompt, such as FastChat's `question_id`; None if the set has none."""

    temperature: float | None = None
    """The temperature at which the benchmark has the prompt answered; None leaves it to the recipe."""

    @property
    def right_answers(self) -> tuple[str, ...]:
        """The reference answers to the first turn, each of which is right."""
        return self.references if len(self.turns) == 1 else self.references[:1]


@dataclass(frozen=True, slots=True)
class StoredCall:
    """One finished engine call."""

    key: bytes
    """Hash of everything that determines the call (`identity.call_key`)."""

    model: str

    seed: int | None
    """The sampling seed of the call; None if the call had no seed."""

    whole: Delta
    """The model's whole output in one delta."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What `StoredCalls.complete` returns."""

    whole: Delta
    """The model's whole output in one delta."""

    key: bytes
    """The key that the call is stored under."""

    was_stored: bool
    """True if the call was in the store already, so that no engine was waited for."""


@dataclass(frozen=True, slots=True)
class UsedCall:
    """A call as part of an answer."""

    layer: int
    """The layer, from 1; 0 for the aggregator, or for a model alone."""

    place: int
    """Number of the sample in its layer, from 0; 0 in layer 0."""

    model: str

    key: bytes
    """The key of the `StoredCall`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a generator answered to one turn of a row."""

    generator: str

    row: int
    """Index of the row."""

    turn: int
    """Number of the turn, from 0."""

    text: str

    used: tuple[UsedCall, ...] = ()
    """The calls that the answer is made of, by layer and place: first the aggregator's call (layer 0).
    Empty for a file of outputs."""

    missing: tuple[Mapping[str, Any], ...] = ()
    """The contributions that are missing, each an `events.Missing` as a dictionary."""

    finish_reason: str = "stop"
    """Why the text ended, in OpenAI's words."""

    seconds: float = 0.0
    """Wall time that the answer took; 0 if all calls of the answer were stored already."""

    at: float = 0.0
    """When the answer was stored, in Unix time; 0 for a file of outputs."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a generator has no answer to a row, or why an answer has no verdict."""

    stage: str
    """What failed: `generate` (an answer) or `judge` (a verdict)."""

    generator: str

    row: int
    """Index of the row."""

    cause: str
    """The code of the error."""

    detail: str
    """The message of the error."""

    attempts: int = 1
    """Number of attempts that failed, by all commands together."""

    at: float = 0.0
    """When the last attempt failed, in Unix time."""

    judge: str = ""
    """Name of the judge; empty at stage `generate`."""

    baseline: str = ""
    """The other generator of a pair; empty at stage `generate` and for a grade."""

    turn: int = 0
    """The turn without a verdict; 0 at stage `generate`."""


@dataclass(frozen=True, slots=True)
class Generator:
    """Anything that answers rows: a mixture, one model alone, or a file of outputs."""

    name: str
    """Unique in a run."""

    kind: GeneratorKind

    identity: str
    """Hash of everything that determines the generator's answers."""

    about: Mapping[str, Any] = field(default_factory=dict)
    """What people may want to know: the recipe, the model's settings, or the name of the file."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's opinion on one answer."""

    judge: str
    """Name of the judge with a hash of its prompts and model."""

    kind: VerdictKind

    generator: str
    """Whose answer is judged."""

    baseline: str
    """The other generator of a pair; empty for a grade."""

    row: int
    """Index of the row."""

    turn: int
    """Number of the turn, from 0."""

    value: float | None
    """A preference from 1 (for the baseline) to 2 (for the generator), or a grade from 1 to 10; None if
    the judge's answer could not be used."""

    cause: str = ""
    """Why there is no value; or `identical`, if both answers are the same and no judge was asked."""

    switched: bool = False
    """True if the generator's answer was shown before the baseline's."""

    call: bytes | None = None
    """Key of the judge's `StoredCall`; None if the judge was not asked."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a generator was at one moment.

    `tokens`, `calls`, `reused` and `swaps` are counted for all generators together, from the start of
    the command.
    """

    at: float
    """Unix time."""

    generator: str

    rows: int
    """Number of rows with all their turns answered."""

    failed: int
    """Number of rows whose last attempt failed."""

    tokens: int
    """Number of tokens that engines wrote."""

    calls: int
    """Number of calls that engines finished."""

    reused: int
    """Number of calls whose result was in the store, or that several answers shared."""

    swaps: int
    """How often an engine was woken in place of another."""
