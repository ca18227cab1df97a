"""The figures of a proof, as its page shows them: who won, how surely, and at what price."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.schema import Recipe
from jobs.judges.pairwise import is_switched
from jobs.judges.prompt import first_question
from jobs.prove.compare import Comparison, compare, compare_with_best
from jobs.prove.examples import Shown, read_examples
from jobs.prove.prices import Price
from jobs.prove.reader import ProofReader, agreed
from jobs.prove.team import describe
from jobs.prove.ways import Way
from jobs.records import Row
from jobs.scores.paired import Interval, share
from jobs.store import Store
from serve_app.mixture.agree import find_answer


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
    """Mean calls and tokens of an answer, and the mean seconds of those answers that were timed."""
    timed: int
    """Answers whose seconds were measured with one answer in work at a time."""
    slowest: Price | None = None
    """The timed answer that took longest."""
    beside_best: Comparison | None = None
    """This way against the best member. None for the members, and where answers are judged, because
    the judge compares each way with the mixture only."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What no pick and no vote among the mixture's proposals can exceed."""

    questions: int
    oracle: int
    """Questions for which at least one proposal is right."""
    together_wrong: int
    """Questions for which all proposals are wrong."""
    rescued: int
    """How many of the `together_wrong` questions the mixture answers right all the same."""
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
    """How often the judge preferred the longer answer, as a share of the pairs in which it agreed with
    itself and the lengths differ; None if there is no such pair."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Everything that a page shows."""

    recipe: str
    set: str
    questions: int
    """Questions of the set."""
    checked: bool
    """Whether the right answers are known. If not, a judge compares the answers."""
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
    team: tuple[str, ...] = ()
    """Sentences that name the proposers and the aggregator."""
    file: str = ""
    """The name of the user's own file of questions; empty for a public set."""

    def of(self, kind: str) -> WayFacts | None:
        """The way of a kind, and the best member for `member`; None if the proof has no such way."""
        for each in self.ways:
            if each.way.kind == kind and (kind != "member" or each.way.model == self.best):
                return each
        return None


def read_proof(store: Store, folder: Path) -> Proof:
    """Read everything that a page shows.

    Raises:
        NoProof: the run is no proof, or has not begun.
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
        shown=tuple(read_examples(reader, best)) if best is not None else (),
        team=describe(Recipe.model_validate(reader.about["recipe"])),
        file=str(reader.kept.get("file", "")),
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
        slowest=max(measured, key=lambda price: (price.shortest_s, price.longest_s), default=None),
        beside_best=_beside_best(reader, way, best),
    )


def _comparison(reader: ProofReader, way: Way, best: str | None) -> Comparison | None:
    if way.kind == "mixture" or not (won := reader.won(way.name)):
        return None
    if way.kind == "member" and way.model == best:
        return compare_with_best(reader.won_by_member(), way.model)
    return compare(won)


def _beside_best(reader: ProofReader, way: Way, best: str | None) -> Comparison | None:
    if best is None or reader.form is None or way.kind == "member":
        return None
    if way.kind == "mixture":
        return compare_with_best(reader.won_by_member(), best)
    name = next(w.name for w in reader.ways if w.kind == "member" and w.model == best)
    ours, theirs = reader.right(way.name), reader.right(name)
    won = {row: ours[row] - theirs[row] for row in ours if row in theirs}
    return compare(won) if won else None


def _price(prices: Sequence[Price], measured: Sequence[Price]) -> Price | None:
    """Calls and tokens of all answers, and the seconds of those that were timed."""
    if not prices:
        return None
    mean = Price.mean(prices)
    # This is a mean. The medians of two ways often come from different questions, whose answers differ
    # in length, and then the ratio of the medians says nothing.
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
            if (preferred := agreed(*pair)) and len(texts[0]) != len(texts[1]):
                longer.append((preferred > 0) == (len(texts[0]) > len(texts[1])))
    return JudgeFacts(
        name=str(reader.kept["judge"]),
        is_member=bool(reader.kept.get("judge_is_member")),
        pairs=len(pairs),
        agreed=sum(agreed(*pair) != 0 for pair in pairs),
        first=sum(firsts) / len(firsts) if firsts else 0.5,
        longer=sum(longer) / len(longer) if longer else None,
    )


def _first_share(row: Row, pair: tuple[float, float]) -> float:
    """How many of the two verdicts prefer the answer that was shown first: 0, 0.5 or 1."""
    # A verdict on (generator, baseline) shows the generator first if the row is switched.
    ours_first, ours_second = pair if is_switched(first_question(row)) else (pair[1], pair[0])
    return ((ours_first > 0.5) + (ours_second < 0.5)) / 2
