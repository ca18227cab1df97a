"""Settings of how a mixture comes from proposals to one answer: merge, pick, vote, or end early."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from configs.base import Strict
from configs.slow_patterns import is_slow

Method = Literal["merge", "select", "select_or_merge", "vote"]
"""How the aggregator's stage makes one answer of the last layer's proposals."""
MOST_SELECTED = 9
"""Most proposals among which a model can pick by a number of one digit, which is one token."""
MOST_ROTATED = 4
"""Most proposals that are shown once in each cyclic order; more are shown in two orders only."""
MOST_GUARDED = 6
"""Most proposals that are compared pair by pair, which are 15 pairs."""


def _require_pattern(value: str) -> str:
    try:
        found = re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        message = "this is no regular expression of Python: {error}"
        raise PydanticCustomError("regex", message, {"error": str(error)}) from None
    if found.groups > 1:
        message = "this has {groups} groups; one group, which is the answer, or none is allowed"
        raise PydanticCustomError("regex", message, {"groups": found.groups})
    if is_slow(value):
        message = (
            "this runs for hours on a text that it does not match, because a repeat stands directly in "
            "a repeat, as in (a+)+; leave one of them out"
        )
        raise PydanticCustomError("regex", message)
    return value


class AnswerPattern(Strict):
    """A regular expression that finds the answer in a proposal."""

    regex: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_require_pattern)]
    """An expression of Python. Its last match in the text counts: its group, or all of it if it has no
    group."""


def _read_form(value: Any) -> Any:
    if isinstance(value, dict | AnswerPattern) or value in ("number", "letter", "boxed"):
        return value
    message = "this has to be number, letter, boxed, or a mapping {regex: EXPRESSION}"
    raise PydanticCustomError("answer_form", message)


def _kind_of_form(value: Any) -> str:
    return "[word]" if isinstance(value, str) else "[expression]"


AnswerForm = Annotated[
    Annotated[Literal["number", "letter", "boxed"], Tag("[word]")]
    | Annotated[AnswerPattern, Tag("[expression]")],
    # Without it, an error in an expression would also be told as an error in a word.
    Discriminator(_kind_of_form),
    BeforeValidator(
        _read_form, json_schema_input_type=Literal["number", "letter", "boxed"] | AnswerPattern
    ),
]
"""Where the answer stands in a proposal. `number`: the number behind `####`, or in `\\boxed{}`, or
behind the words "answer is", or the last one. `letter`: a letter from A to Z in the same places, or
alone at the beginning or the end. `boxed`: what stands in the last `\\boxed{}`. `{regex: EXPRESSION}`:
what the expression finds."""


class Exit(Strict):
    """Ends an answer as soon as enough proposals agree. The other proposals are not waited for."""

    answer: AnswerForm
    """Where the answer stands in a proposal. Proposals agree if their answers are the same. A proposal
    without such an answer agrees with none."""
    agree: int = Field(2, ge=2, le=1024)
    """How many proposals have to agree."""
    of_models: int = Field(2, ge=1, le=1024)
    """From how many different models these proposals have to come. With 1, one model is enough."""
    judge: bool = False
    """Whether the aggregator compares proposals in which no answer is found: it is asked whether two of
    them come to the same conclusion. This takes short calls while the layer runs, so the aggregator
    should be awake."""


class First(Strict):
    """Lets the best member answer alone if it is sure. Then the other models are not asked.

    The best member is the first proposer of the first layer.
    """

    tau: float = Field(le=0, ge=-100)
    """The member is sure if the mean log-probability of the tokens of its answer is at least this.
    `slimmoa calibrate` finds the number on a set of questions with known answers."""
    calibrated_on: str = ""
    """The set on which `tau` was found; for people."""


def short_calls(method: str, proposals: int, *, guard: bool = False) -> int:
    """Number of short calls to the aggregator before it writes, or in place of its writing.

    Args:
        method: the aggregator's method.
        proposals: number of proposals that it reads.
        guard: whether it compares them pair by pair.
    """
    if proposals < 2:
        return 0
    picks = pairs = 0
    if method in ("select", "select_or_merge") and proposals <= MOST_SELECTED:
        picks = proposals if proposals <= MOST_ROTATED else 2
    if guard and method == "select_or_merge":
        pairs = 1
    elif guard and method != "select" and proposals <= MOST_GUARDED:
        pairs = proposals * (proposals - 1) // 2
    return picks + pairs
