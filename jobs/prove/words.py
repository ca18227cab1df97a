"""Says what a proof has found out, in sentences for people who know no statistics. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jobs.prove.compare import Comparison, Outcome
from jobs.prove.facts import Proof, WayFacts
from jobs.prove.prices import Price


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence, what it rests on, and its colour."""

    outcome: Outcome | Literal["unknown"]
    sentence: str
    basis: tuple[str, ...] = ()


def headline(proof: Proof) -> Verdict:
    """The answer to the main question: is the mixture better than its best member?"""
    member = proof.of("member")
    if member is None or member.comparison is None:
        text = f"Nothing can be said about {proof.recipe} yet: no question has all answers."
        return Verdict("unknown", text, ("Run the same command again: it goes on where it stopped.",))
    found, best = member.comparison, member.way.model
    basis = (*_what_to_do(proof, member, found), *_counts(proof, found, best), *_certainty(found, best))
    n = found.questions
    if found.outcome == "better":
        text = f"Yes: {proof.recipe} answers better than its best member, {best}, by {_points(found)}."
        return Verdict("better", text, basis)
    if found.outcome == "worse":
        text = (
            f"No: {best}, the best member of {proof.recipe}, answers better alone than {proof.recipe} "
            f"does, by {_points(found)}."
        )
        return Verdict("worse", text, basis)
    text = (
        f"With {_these(n)} nobody can tell whether {proof.recipe} answers better than its best member, "
        f"{best}."
    )
    return Verdict("open", text, basis)


def others(proof: Proof) -> Iterator[tuple[str, Verdict]]:
    """A question and its answer for each other way."""
    titles = {
        "self_moa": "Is the mixture better than several answers of its best member, merged into one?",
        "pick": "Is the mixture better than picking one of the proposals?",
        "merge": "Is the mixture better than merging the proposals?",
        "vote": "Is the mixture better than a vote of the proposals?",
        "self_vote": "Is the mixture better than a vote of several answers of its best member?",
        "same_tokens": "Is the mixture better than its best member, asked until it wrote as much?",
    }
    for kind, title in titles.items():
        found = proof.of(kind)
        if found is not None and found.comparison is not None:
            yield title, _other(proof, found, found.comparison)


def unfinished(proof: Proof) -> str:
    """What is still missing; empty if nothing is."""
    missing = sum(proof.questions - each.answered for each in proof.ways)
    if not missing:
        return ""
    return (
        f"Unfinished: {missing:,} of {proof.questions * len(proof.ways):,} answers are missing. The "
        "same command goes on where it stopped."
    )


def questions_of(proof: Proof) -> str:
    """How many questions were asked, and where they come from."""
    source = f"your file {proof.file}" if proof.file else f"the set {proof.set}"
    return f"{_questions(proof.questions)} from {source}"


def self_moa_meaning(proof: Proof) -> str:
    """What Self-MoA is; empty if the proof has no such way."""
    found = proof.of("self_moa")
    if found is None:
        return ""
    return (
        "Self-MoA is a mixture in which one model writes all proposals. Here the best member, "
        f"{found.way.model}, writes {found.way.samples}, and the same aggregator makes one answer from "
        "them."
    )


def way_name(proof: Proof, facts: WayFacts) -> str:
    """What a way is called on the page."""
    way = facts.way
    names = {
        "mixture": f"{way.name}, the mixture",
        "member": f"{way.model} alone"
        + (", the best member" if way.model == proof.best and len(_members(proof)) > 1 else ""),
        "pick": "the aggregator picks one proposal",
        "merge": "the aggregator merges the proposals",
        "vote": "the proposals vote",
        "self_moa": f"{way.samples} answers of {way.model}, merged (Self-MoA)",
        "self_vote": f"{way.samples} answers of {way.model} vote",
        "same_tokens": f"{way.samples} answers of {way.model}, "
        + ("which vote" if proof.checked else "one of them picked"),
    }
    return names[way.kind]


def _members(proof: Proof) -> list[WayFacts]:
    return [each for each in proof.ways if each.way.kind == "member"]


def bounds(proof: Proof) -> list[str]:
    """What can be reached at all by picking or voting."""
    found = proof.bounds
    if found is None or not found.questions:
        return []
    n = found.questions
    said = [
        f"On {found.oracle} of {n} questions at least one proposal was right. Somebody who always knew "
        "the best proposal would get that many right. A vote of these proposals, or a pick among them, "
        "cannot get more right.",
        f"On {found.together_wrong} of {n} questions all proposals were wrong together.",
    ]
    if found.rescued:
        said.append(f"On {found.rescued} of these the mixture wrote a right answer all the same.")
    if found.lost:
        said.append(
            f"On {_questions(found.lost)} a proposal was right, and the mixture's answer was wrong."
        )
    if (alone := found.best) is not None:
        room = found.oracle - alone
        said.append(
            f"{proof.best} alone got {alone} of {n} right. So the others can add {room} at most by a "
            "pick or a vote."
            if room > 0
            else f"{proof.best} alone got {alone} of {n} right, so a pick or a vote among the "
            "mixture's proposals cannot beat it."
        )
    return said


def seconds(price: Price) -> str:
    """How long one answer takes."""
    low, high = price.shortest_s, price.longest_s
    if high - low < 0.05 * high or high < 0.1:
        return _short(high)
    return f"{_short(low)} to {_short(high)}"


def interval(found: Comparison) -> str:
    """The interval of a difference, in questions of 100."""
    return f"{_signed(100 * found.low)} to {_signed(100 * found.high)}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _signed(value: float) -> str:
    return f"{value:+.0f}".replace("-", "−") if round(value) else "0"


def _other(proof: Proof, facts: WayFacts, found: Comparison) -> Verdict:
    what = _thing(proof, facts)
    basis = tuple(_counts(proof, found, "the other way"))
    if found.outcome == "better":
        return Verdict("better", f"Yes: the mixture beats {what} by {_points(found)}.", basis)
    if found.outcome == "worse":
        return Verdict("worse", f"No: {what} is better, by {_points(found)}.", basis)
    text = (
        f"With {_these(found.questions)} nobody can tell: the mixture may be better or worse than "
        f"{what}."
    )
    return Verdict("open", text, basis)


def _thing(proof: Proof, facts: WayFacts) -> str:
    way = facts.way
    end = "a vote of" if proof.checked else "a pick among"
    return {
        "self_moa": f"the merge of {way.samples} answers of {way.model} (Self-MoA)",
        "pick": "the proposal that the aggregator picks",
        "merge": "the merge of the proposals",
        "vote": "a vote of the proposals",
        "self_vote": f"a vote of {way.samples} answers of {way.model}",
        "same_tokens": f"{end} {way.samples} answers of {way.model}",
    }[way.kind]


def _counts(proof: Proof, found: Comparison, other: str) -> Iterator[str]:
    same = found.questions - found.gained - found.lost
    rest = "other " if found.gained or found.lost else ""
    if proof.checked:
        won = f"On {_questions(found.gained)} only the mixture was right, and on "
        won += f"{_questions(found.lost)} only {other}."
        yield f"{won} On the {rest}{_count(same)}, both were right or both were wrong." if same else won
        return
    yield (
        f"The judge preferred the mixture on {_questions(found.gained)}, and {other} on "
        f"{_questions(found.lost)}."
        + (
            f" On the {rest}{_count(same)}, the two answers are equal, or the judge contradicted "
            "itself when their order was turned."
            if same
            else ""
        )
    )


def _certainty(found: Comparison, other: str) -> Iterator[str]:
    if found.outcome != "open":
        low, high = sorted((abs(100 * found.low), abs(100 * found.high)))
        yield (
            f"With other questions of the same kind the difference would be another one. It most "
            f"likely lies between {low:.0f} and {high:.0f} questions of 100."
        )
        return
    if found.smallest >= 1:
        few = "is too little" if found.questions == 1 else "are too few"
        yield f"{_these(found.questions).capitalize()} {few} to show any difference."
    else:
        least = round(found.smallest * found.questions)
        yield (
            f"{_these(found.questions).capitalize()} show a difference only if one side wins at least "
            f"{least:,} more of them than the other. {_seen(found, other)}"
        )
    if found.needed is not None:
        yield (
            f"If the difference is really as large as it seems here, about {_rounded(found.needed):,} "
            "questions like these would show it."
        )


def _seen(found: Comparison, other: str) -> str:
    if not found.difference:
        return "Here both did equally well."
    winner = "the mixture" if found.difference > 0 else other
    return (
        f"Here {winner} won {abs(found.gained - found.lost):,} more, and chance alone makes such a "
        "lead too often to rely on it."
    )


def _what_to_do(proof: Proof, member: WayFacts, found: Comparison) -> Iterator[str]:
    mixture = proof.of("mixture")
    if mixture is None or mixture.price is None or member.price is None:
        return
    ours, theirs = mixture.price, member.price
    best = member.way.model
    cost = (
        f"On average, an answer of {proof.recipe} takes {seconds(ours)} s{_times(ours, theirs)}, "
        f"and has {ours.written:.0f} written tokens (pieces of words). An answer of {best} takes "
        f"{seconds(theirs)} s, and has {theirs.written:.0f}."
    )
    if theirs.written and found.outcome == "better":
        yield f"{cost} You pay {ours.written / theirs.written:.1f} times as many tokens for the gain."
    elif found.outcome == "worse":
        yield f"{cost} So {best} alone is better and cheaper here."
    else:
        yield f"{cost} As long as no difference is shown, {best} alone is the cheaper choice."


def _times(ours: Price, theirs: Price) -> str:
    """How many times as long the mixture takes, in words; empty if it hardly takes longer."""
    if theirs.shortest_s <= 0 or ours.shortest_s < 1.5 * theirs.shortest_s:
        return ""
    return f" (about {ours.shortest_s / theirs.shortest_s:.0f} times as long)"


def _points(found: Comparison) -> str:
    return f"{abs(100 * found.difference):.0f} questions of 100"


def _these(count: int) -> str:
    return "this 1 question" if count == 1 else f"these {count:,} questions"


def _questions(count: int) -> str:
    return "1 question" if count == 1 else f"{count:,} questions"


def _count(count: int) -> str:
    return "question" if count == 1 else f"{count:,} questions"


def _rounded(count: int) -> int:
    step = 10 if count < 1000 else 100
    return -(-count // step) * step
