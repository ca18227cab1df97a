"""Where the answers of a set stand in a text, told by the right answers that the set gives. Pure."""

import re
from collections.abc import Iterable

from configs.schema import AnswerForm
from jobs.records import Row
from serve_app.mixture.agree import NUMBER

WHOLE_NUMBER = re.compile(rf"\s*[$€£]?\s*{NUMBER}\s*%?\s*")
LETTER = re.compile(r"\s*\(?[A-Z]\)?\.?\s*")


def known_answers(rows: Iterable[Row]) -> list[str]:
    """The right answers to the first turns that a set gives."""
    return [row.references[0] for row in rows if row.references and row.references[0].strip()]


def find_form(answers: Iterable[str]) -> AnswerForm | None:
    """Where answers of the same kind as these stand; None if these are texts, which only a judge can
    compare, or if there are none."""
    given = list(answers)
    if not given:
        return None
    if all(WHOLE_NUMBER.fullmatch(answer) or "####" in answer for answer in given):
        return "number"
    if all(LETTER.fullmatch(answer) for answer in given):
        return "letter"
    if all("\\boxed" in answer for answer in given):
        return "boxed"
    return None
