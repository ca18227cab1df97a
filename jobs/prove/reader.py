"""Reads the answers, prices and verdicts of a proof from its run, and says who won which question.

A run can be read while it is under way: the figures are then those of the answers that are there.
"""

from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.methods import AnswerPattern
from configs.schema import AnswerForm
from jobs.calibrate import right_answers
from jobs.prove.compare import Won
from jobs.prove.prices import read_prices
from jobs.prove.ways import read_ways
from jobs.records import Answer
from jobs.store import Store
from serve_app.mixture.agree import find_answer


class NoProof(UserError):
    """The run is no proof, or has not begun; the message says what to do."""


class ProofReader:
    """Reads the answers and verdicts of a run once, and compares ways over them."""

    def __init__(self, store: Store, folder: Path) -> None:
        """A reader of a run.

        Raises:
            NoProof: the run is no proof, or has not begun.
        """
        about = store.about()
        if "prove" not in about:
            raise NoProof(f"{folder} holds no proof: run `slimmoa prove RECIPE --out {folder}` first")
        self.about = about
        self.kept: dict[str, Any] = about["prove"]
        self.store = store
        self.form = _form(self.kept["form"])
        self.ways = read_ways(self.kept["ways"])
        self.rows = {row.index: row for row in store.rows()}
        self.prices = read_prices(folder)
        names = [way.name for way in self.ways]
        self.answers: dict[str, dict[int, Answer]] = {
            name: {a.row: a for a in store.answers(name) if a.turn == 0}
            for name in names
            if store.generator(name) is not None
        }
        self.expected = (
            {}
            if self.form is None
            else {
                index: known
                for index, row in self.rows.items()
                if (known := right_answers(row.right_answers, self.form))
            }
        )

    @property
    def mixture(self) -> str:
        """The name under which the run keeps the mixture's answers."""
        return next(way.name for way in self.ways if way.kind == "mixture")

    def is_right(self, text: str, row: int) -> bool:
        """Whether the answer in a text is the right one."""
        assert self.form is not None
        return find_answer(text, self.form) in self.expected[row]

    def right(self, name: str) -> dict[int, bool]:
        """Which rows a way has answered rightly. Rows without a known answer are left out."""
        answers = self.answers.get(name, {})
        return {
            row: self.is_right(answer.text, row)
            for row, answer in answers.items()
            if row in self.expected
        }

    def won(self, name: str) -> Won:
        """Which rows the mixture won against a way, over the rows that both have answered."""
        if self.form is None:
            return {row: agreed(*pair) for row, pair in self.verdicts(name).items()}
        ours, theirs = self.right(self.mixture), self.right(name)
        return {row: ours[row] - theirs[row] for row in ours if row in theirs}

    def verdicts(self, name: str) -> dict[int, tuple[float, float]]:
        """The judge's two preferences for the mixture against a way, from 0 to 1, by row. The judge has
        read the two answers in one order for the first verdict, and in the other order for the second.
        """
        judge = self.kept.get("judge_name")
        if judge is None:
            return {}
        plain = {
            v.row: v.value - 1
            for v in self.store.verdicts(judge=judge, kind="pairwise", baseline=name)
            if v.generator == self.mixture and v.value is not None
        }
        turned = {
            v.row: 2 - v.value
            for v in self.store.verdicts(judge=judge, kind="pairwise", baseline=self.mixture)
            if v.generator == name and v.value is not None
        }
        return {row: (plain[row], turned[row]) for row in sorted(plain.keys() & turned.keys())}

    def best(self) -> str | None:
        """The member against which the mixture wins least, over the questions that all members have
        answered. If several members are equal, it is the first of them in the recipe. None before a
        question has been answered by all."""
        won = self.won_by_member()
        rows = set.intersection(*(set(each) for each in won.values())) if won else set()
        if not rows:
            return None
        return min(won, key=lambda model: sum(won[model][row] for row in rows))

    def won_by_member(self) -> dict[str, Won]:
        """What the mixture won against each member, by the member's name."""
        return {way.model: self.won(way.name) for way in self.ways if way.kind == "member"}


def _form(stored: Any) -> AnswerForm | None:
    return AnswerPattern(**stored) if isinstance(stored, dict) else stored


def agreed(one: float, other: float) -> int:
    """Which answer the judge preferred in both orders: 1 for the mixture's, -1 for the other way's, 0
    if the two verdicts contradict each other.

    Args:
        one: the preference for the mixture in the first verdict, from 0 to 1.
        other: the same in the second verdict.
    """
    return (one > 0.5 and other > 0.5) - (one < 0.5 and other < 0.5)
