"""Reads what a proof has found out from a run, also while the run is under way."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.methods import AnswerPattern
from configs.schema import AnswerForm
from jobs.calibrate import right_answers
from jobs.prove.compare import Comparison, Won, compare, compare_with_best
from jobs.prove.prices import Price, read_prices
from jobs.prove.ways import Way, read_ways
from jobs.records import Answer, Row
from jobs.scores.paired import Interval, share
from jobs.store import Store
from serve_app.mixture.agree import find_answer

SHOWN = 40
"""Most questions that a page shows in full."""


class NoProof(UserError):
    """The run has nothing to show yet; the message says what to do."""


@dataclass(frozen=True, slots=True)
class WayFacts:
    """What is known of one way."""

    way: Way
    answered: int
    """Questions that the way has answered."""
    right: Interval | None
    """Share of right answers; None if answers are judged, or if there are none yet."""
    no_answer: int
    """Answers in which nothing stands where the answer should stand."""
    comparison: Comparison | None
    """The mixture against this way; None for the mixture itself, and before there are answers."""
    price: Price | None
    """Mean calls and tokens of an answer, and seconds of those answers that were timed."""
    timed: int
    """Answers whose seconds were measured with one answer in work at a time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What no pick and no vote among the mixture's proposals can exceed."""

    questions: int
    oracle: int
    """Questions for which at least one proposal is right."""
    together_wrong: int
    """Questions for which all proposals are wrong."""
    rescued: int
    """Of those, questions for which the mixture's answer is right all the same."""
    lost: int
    """Questions for which a proposal is right and the mixture's answer is wrong."""
    best: int | None
    """How many of these questions the best member alone answers right; None if it has not answered
    all of them."""


@dataclass(frozen=True, slots=True)
class JudgeFacts:
    """What the verdicts say about the judge itself, over all pairs."""

    name: str
    is_member: bool
    """Whether the judge is a model of the mixture."""
    pairs: int
    """Pairs of different answers that were judged in both orders."""
    agreed: int
    """Pairs in which the judge preferred the same answer in both orders."""
    first: float
    """Share of single verdicts that prefer the answer that stands first."""
    longer: float | None
    """Of the pairs in which it agreed with itself and the lengths differ, the share in which it
    preferred the longer answer; None if there is no such pair."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One question in full."""

    row: int
    question: str
    expected: str
    """The right answer; empty if answers are judged."""
    mixture: str
    best: str
    won: int
    """1 if the mixture won the question against the best member, -1 if it lost, 0 otherwise."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Everything that a page shows."""

    recipe: str
    set: str
    questions: int
    """Questions of the set."""
    checked: bool
    """Whether answers are compared with known ones; else a judge compares them."""
    ways: tuple[WayFacts, ...]
    """The mixture first."""
    best: str | None
    """The best member; None before it is known."""
    bounds: Bounds | None
    judge: JudgeFacts | None
    left_out: tuple[str, ...]
    """Why ways are left out."""
    failed: int
    """Answers that failed."""
    shown: tuple[Shown, ...]

    def of(self, kind: str) -> WayFacts | None:
        """The way of a kind; for `member` the best member."""
        for each in self.ways:
            if each.way.kind == kind and (kind != "member" or each.way.model == self.best):
                return each
        return None


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
        """The mixture's name in the run."""
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
            return {row: _agreed(*pair) for row, pair in self.verdicts(name).items()}
        ours, theirs = self.right(self.mixture), self.right(name)
        return {row: ours[row] - theirs[row] for row in ours if row in theirs}

    def verdicts(self, name: str) -> dict[int, tuple[float, float]]:
        """The judge's two preferences for the mixture against a way, from 0 to 1, by row. In the first
        verdict one of the answers was shown first, in the second the other one."""
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
        answered; of equal ones the first in the recipe. None before that is known."""
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


def _agreed(one: float, other: float) -> int:
    """Who is preferred in both orders: 1 or -1; 0 if the orders contradict each other."""
    return (one > 0.5 and other > 0.5) - (one < 0.5 and other < 0.5)


def read_proof(store: Store, folder: Path) -> Proof:
    """Read everything that a page shows.

    Raises:
        NoProof: see `ProofReader`.
    """
    reader = ProofReader(store, folder)
    best = reader.best()
    ways = sorted(reader.ways, key=lambda way: way.kind != "mixture")
    return Proof(
        recipe=str(reader.about["recipe"]["name"]),
        set=str(reader.about["set"]["name"]),
        questions=len(reader.rows),
        checked=reader.form is not None,
        ways=tuple(_facts(reader, way, best) for way in ways),
        best=best,
        bounds=_bounds(reader, best),
        judge=_judge(reader),
        left_out=tuple(reader.kept.get("left_out", ())),
        failed=len(store.failures("generate")) + len(store.failures("judge")),
        shown=tuple(_shown(reader, best)) if best is not None else (),
    )


def _facts(reader: ProofReader, way: Way, best: str | None) -> WayFacts:
    answers = reader.answers.get(way.name, {})
    prices = [p for row, p in reader.prices.get(way.name, {}).items() if row in answers]
    timed = reader.kept.get("timed", ())
    measured = [p for row, p in reader.prices.get(way.name, {}).items() if row in timed]
    right = None
    no_answer = 0
    if (form := reader.form) is not None:
        found = list(reader.right(way.name).values())
        right = share(found) if found else None
        no_answer = sum(
            find_answer(a.text, form) is None for row, a in answers.items() if row in reader.expected
        )
    return WayFacts(
        way=way,
        answered=len(answers),
        right=right,
        no_answer=no_answer,
        comparison=_comparison(reader, way, best),
        price=_price(prices, measured),
        timed=len(measured),
    )


def _comparison(reader: ProofReader, way: Way, best: str | None) -> Comparison | None:
    if way.kind == "mixture" or not (won := reader.won(way.name)):
        return None
    if way.kind == "member" and way.model == best:
        return compare_with_best(reader.won_by_member(), way.model)
    return compare(won)


def _price(prices: Sequence[Price], measured: Sequence[Price]) -> Price | None:
    """Calls and tokens of all answers, and the seconds of those that were timed."""
    if not prices:
        return None
    mean = Price.mean(prices)
    seconds = Price.mean(measured or prices)
    return Price(mean.calls, mean.read, mean.written, seconds.shortest_s, seconds.longest_s)


def _bounds(reader: ProofReader, best: str | None) -> Bounds | None:
    if reader.form is None:
        return None
    ours = reader.right(reader.mixture)
    oracle: dict[int, bool] = {}
    for row in ours:
        used = [u for u in reader.answers[reader.mixture][row].used if u.layer]
        last = max((u.layer for u in used), default=0)
        calls = [reader.store.call(u.key) for u in used if u.layer == last]
        texts = [call.whole.text for call in calls if call is not None]
        oracle[row] = any(reader.is_right(text, row) for text in texts)
    name = next((w.name for w in reader.ways if w.kind == "member" and w.model == best), "")
    alone = reader.right(name)
    return Bounds(
        questions=len(ours),
        oracle=sum(oracle.values()),
        together_wrong=sum(not found for found in oracle.values()),
        rescued=sum(ours[row] and not oracle[row] for row in ours),
        lost=sum(oracle[row] and not ours[row] for row in ours),
        best=sum(alone[row] for row in ours) if ours.keys() <= alone.keys() else None,
    )


def _judge(reader: ProofReader) -> JudgeFacts | None:
    if reader.form is not None or "judge" not in reader.kept:
        return None
    pairs: list[tuple[float, float]] = []
    firsts: list[float] = []
    longer: list[bool] = []
    for way in reader.ways:
        if way.kind == "mixture":
            continue
        for row, pair in reader.verdicts(way.name).items():
            texts = [reader.answers[name][row].text for name in (reader.mixture, way.name)]
            if texts[0] == texts[1]:
                continue
            pairs.append(pair)
            firsts.append(_first_share(reader.rows[row], pair))
            if (agreed := _agreed(*pair)) and len(texts[0]) != len(texts[1]):
                longer.append((agreed > 0) == (len(texts[0]) > len(texts[1])))
    return JudgeFacts(
        name=str(reader.kept["judge"]),
        is_member=bool(reader.kept.get("judge_is_member")),
        pairs=len(pairs),
        agreed=sum(_agreed(*pair) != 0 for pair in pairs),
        first=sum(firsts) / len(firsts) if firsts else 0.5,
        longer=sum(longer) / len(longer) if longer else None,
    )


def _first_share(row: Row, pair: tuple[float, float]) -> float:
    """How many of the two verdicts prefer the answer that was shown first: 0, 0.5 or 1."""
    from jobs.judges.pairwise import is_switched
    from jobs.judges.prompt import first_question

    # A verdict on (generator, baseline) shows the generator first if the row is switched.
    ours_first, ours_second = pair if is_switched(first_question(row)) else (pair[1], pair[0])
    return ((ours_first > 0.5) + (ours_second < 0.5)) / 2


def _shown(reader: ProofReader, best: str) -> Iterator[Shown]:
    """Questions in full: those that one of the two won come first."""
    name = next(w.name for w in reader.ways if w.kind == "member" and w.model == best)
    won: Mapping[int, int] = reader.won(name)
    for row in sorted(won, key=lambda row: (won[row] == 0, row))[:SHOWN]:
        yield Shown(
            row=row,
            question=reader.rows[row].turns[0],
            expected=" or ".join(sorted(reader.expected.get(row, ()))),
            mixture=reader.answers[reader.mixture][row].text,
            best=reader.answers[name][row].text,
            won=won[row],
        )
