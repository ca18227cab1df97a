"""Where the answers of a set stand in a text, told by the right answers that the set gives. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from configs.schema import AnswerForm
from jobs.records import Row
from serve_app.mixture.agree import MINUS, NUMBER, THOUSANDS, find_answer

UNIT = r"[^\W\d_]{1,20}(?:/[^\W\d_]{1,20})?"
"""What may follow a number in a right answer: a unit or a word, such as `km`, `m²` or `km/h`."""
WHOLE_NUMBER = re.compile(rf"\s*[$€£¥]?\s*({NUMBER})(?:\s*[%‰°$€£¥])?(?:\s*{UNIT}){{0,2}}\s*\.?\s*")
"""A right answer that is a number, with a currency or a unit of at most two words perhaps."""
LETTER = re.compile(r"\s*\(?[A-Za-z](?:\s*|\)?[.:]?\s*|[).:]\s+\S.*)", re.DOTALL)
"""A right answer that is a letter, with the text of the option behind the letter perhaps."""


def known_answers(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """The right answers that a set gives, a tuple for each row that has any. Each answer of a tuple is
    right."""
    found = (tuple(text for text in row.right_answers if text.strip()) for row in rows)
    return [answers for answers in found if answers]


def whole_number(answer: str) -> str | None:
    """The number that a right answer consists of; None if the answer is anything else."""
    found = WHOLE_NUMBER.fullmatch(THOUSANDS.sub("", answer).translate(MINUS))
    return None if found is None else found[1]


def find_form(answers: Iterable[Sequence[str]]) -> AnswerForm | None:
    """Where the answers of a set stand.

    Args:
        answers: the right answers to each question (`known_answers`).

    Returns:
        The form that fits an answer to each question; None if answers are texts, which only a judge can
        compare, or if there are none.
    """
    given = list(answers)
    for form, fits in FORMS.items():
        if given and all(any(map(fits, each)) for each in given):
            return form
    return None


def _is_number(answer: str) -> bool:
    return whole_number(answer) is not None or _behind_marks(answer, "number")


def _is_letter(answer: str) -> bool:
    return LETTER.fullmatch(answer) is not None or _behind_marks(answer, "letter")


def _behind_marks(answer: str, form: AnswerForm) -> bool:
    """Whether a right answer is a whole solution that ends with `####` and the answer."""
    return "####" in answer and find_answer(answer.rpartition("####")[2], form) is not None


FORMS: Mapping[Literal["number", "letter", "boxed"], Callable[[str], bool]] = {
    "number": _is_number,
    "letter": _is_letter,
    "boxed": lambda answer: "\\boxed" in answer,
}
"""Tells for each form whether a right answer has it."""
