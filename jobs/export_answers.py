"""The lines of answer files as FastChat's and Arena-Hard's own readers take them.

Both tools find an answer by the id of its question, and call a model by the name of the file.
Arena-Hard adds what its style control needs by itself (`utils/add_markdown_info.py`).
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from configs.errors import UserError
from jobs.records import Answer, Row

ANSWER_ID_DIGITS = 22
"""Length of an answer's id, as that of the ids which both tools draw."""


class ExportError(UserError):
    """Answers cannot be exported as asked; the message says why. Nothing is written."""


def fastchat(row: Row, answers: Sequence[Answer]) -> dict[str, Any]:
    """A line of `data/mt_bench/model_answer/MODEL.jsonl`, as `llm_judge/gen_model_answer.py` writes
    it."""
    return _with_turns(row, answers, [answer.text for answer in answers])


def arena_hard_turns(row: Row, answers: Sequence[Answer]) -> dict[str, Any]:
    """A line of Arena-Hard's answers until 2024: FastChat's, with objects as turns."""
    return _with_turns(row, answers, [{"content": answer.text} for answer in answers])


def _with_turns(row: Row, answers: Sequence[Answer], turns: list[Any]) -> dict[str, Any]:
    return {
        "question_id": _require_id(row),
        "answer_id": _answer_id(row, answers),
        "model_id": answers[0].generator,
        "choices": [{"index": 0, "turns": turns}],
        "tstamp": answers[-1].at,
    }


def arena_hard(row: Row, answers: Sequence[Answer]) -> dict[str, Any]:
    """A line of `data/arena-hard-v2.0/model_answer/MODEL.jsonl`, as `gen_answer.py` writes it.

    Raises:
        ExportError: the row has several turns.
    """
    if len(answers) != 1:
        raise ExportError(
            f"Arena-Hard's form holds one turn; row {row.index} has {len(answers)}: export fastchat"
        )
    said = [*row.before, {"role": "user", "content": row.turns[0]}]
    return {
        "uid": _require_id(row),
        "ans_id": _answer_id(row, answers),
        "model": answers[0].generator,
        "messages": [*said, {"role": "assistant", "content": {"answer": answers[0].text}}],
        "tstamp": answers[0].at,
    }


def _require_id(row: Row) -> int | str:
    """The id of a row.

    Raises:
        ExportError: the set has no ids, so that the tools could not find the answers.
    """
    if row.id is None:
        raise ExportError(
            f"row {row.index} has no id, by which FastChat and Arena-Hard find an answer; give the set "
            "once more to add the ids: slimmoa bench run --set FILE"
        )
    return row.id


def _answer_id(row: Row, answers: Sequence[Answer]) -> str:
    """An id that is the same for each export of the same answer."""
    text = "\0".join([answers[0].generator, str(row.id), *(answer.text for answer in answers)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:ANSWER_ID_DIGITS]
