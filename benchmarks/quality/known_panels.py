"""Panels of texts for a model to pick from. It is known which texts of a panel are right."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.quality.method_figures import read_results
from benchmarks.quality.picked_places import Panel, PanelRow
from configs.schema import AnswerForm
from jobs.calibrate import known_answer
from jobs.records import Row
from jobs.sets.checkable import cases, rows
from serve_app.mixture.agree import find_answer

RIGHT, WRONG = 1.0, 0.0
STEP_BY_STEP = "Solve it step by step."
BRIEFLY = "Write one short line for each calculation, and no other words."
"""What a brief question says in place of STEP_BY_STEP. Answers are a fifth as long then."""


def options(name: str, count: int, of: int = 4) -> Panel:
    """The options of a set's questions as texts of a panel. The right option stands first here. In the
    prompts it stands in each place, because a pick is asked for in every cyclic order.

    Args:
        name: `hellaswag` or `truthfulqa`.
        count: most questions.
        of: number of texts of a panel, the right option and others. If a question has more options,
            some wrong options are left out. Questions with fewer options are left out.
    """
    asked, found = rows(name), list[PanelRow]()
    for n, case in enumerate(cases(name)):
        question, texts = _question(case)
        right = case["expected_index"]
        wrong = sorted(texts[:right] + texts[right + 1 :], key=_hash)[: of - 1]
        if len(wrong) == of - 1:
            worth = (RIGHT, *[WRONG] * len(wrong))
            found.append(PanelRow(asked[n].index, question, (texts[right], *wrong), worth))
    names = ("the right option", *(f"wrong option {n}" for n in range(1, of)))
    return Panel(names, tuple(found[:count]), are_models=False)


def _question(case: Mapping[str, Any]) -> tuple[str, list[str]]:
    if "ctx" in case:
        return f"How does this text go on?\n\n{case['ctx']}", case["endings"]
    return case["question"], case["choices"]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def briefly(row: Row) -> Row:
    """The same question, which asks for lines of calculation without words."""
    return replace(row, turns=tuple(turn.replace(STEP_BY_STEP, BRIEFLY) for turn in row.turns))


def stored(run: Path, dataset: str, form: AnswerForm, brief: bool) -> Panel:
    """The proposals that `methods.py questions` has stored for each question, in the recipe's order.

    Args:
        run: the folder of `questions`.
        dataset: the set that was asked.
        form: where the answer stands in a proposal.
        brief: whether the questions were asked briefly.
    """
    asked = {row.index: briefly(row) if brief else row for row in rows(dataset)}
    results = {each.row: each for each in read_results(run / "methods.jsonl") if each.method == "vote"}
    most = max((len(each.proposals) for each in results.values()), default=0)
    found, names = list[PanelRow](), tuple[str, ...]()
    for index, result in sorted(results.items()):
        if len(result.proposals) < most:
            continue  # a proposal is missing
        names = tuple(f"{model}, sample {place}" for place, model, _, _ in result.proposals)
        texts = tuple(text for _, _, text, _ in result.proposals)
        expected = known_answer(result.expected, form)
        worth = tuple(float(find_answer(text, form) == expected) for text in texts)
        found.append(PanelRow(index, asked[index].turns[0], texts, worth))
    return Panel(names, tuple(found))
