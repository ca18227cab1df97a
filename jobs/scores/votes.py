"""Blind votes: a person's verdicts on the mixture's answers and the answers of its members.

The page writes them as AlpacaEval's annotations (`instruction`, `generator_1`, `output_1`,
`generator_2`, `output_2`, `preference` from 1 to 2), but without an `annotator`. Such a file differs
from a benchmark's in three ways:

1. People ask the same thing more than once, so an instruction may have several votes. Only a second
   vote on the same two texts is refused, because it would count twice.
2. The two answers may stand in the order in which they were shown. The votes on a pair of generators
   are turned into one order.
3. Nobody knows how difficult the instructions are. Length control works without the difficulty then.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from jobs.scores.columns import Line, read_lines
from jobs.scores.preferences import (
    ANNOTATION,
    NOT_NAMED,
    Preferences,
    preference,
    require_columns,
    set_reasons,
)
from jobs.sets.known_sets import fingerprint, known_set

Pair = tuple[str, str]
"""Two generators: the baseline and the one that is compared with it."""


class _Vote(NamedTuple):
    """One vote of a file."""

    pair: Pair
    prompt: str
    """The fingerprint of the instruction."""
    preference: float | None
    """From 1 (the first answer is better) to 2 (the second is); None without a verdict."""
    len_1: int
    len_2: int

    def turned(self) -> "_Vote":
        """The same vote, with the two answers in the other order."""
        value = None if self.preference is None else 3 - self.preference
        return _Vote((self.pair[1], self.pair[0]), self.prompt, value, self.len_2, self.len_1)


def are_votes(path: Path) -> bool:
    """Whether a file of judgements has votes, by its first line.

    Raises:
        PreferencesError: the file cannot be read, or has no column `preference`.
    """
    first = next(iter(read_lines(path, "preference")))
    return "output_2" in first.values and "annotator" not in first.values


def read_votes(path: Path, *, judge: str = NOT_NAMED, baseline: str = NOT_NAMED) -> list[Preferences]:
    """Read votes, by pair of generators, in the order of the file.

    Args:
        path: The file of votes.
        judge: What to call the person who voted.
        baseline: The generator that the others are compared with; by default each pair's own.

    Raises:
        PreferencesError: the file cannot be read, or a value is not allowed.
    """
    votes = _in_one_order(_read(path), baseline)
    by_pair: dict[Pair, list[_Vote]] = defaultdict(list)
    for vote in votes:
        by_pair[vote.pair].append(vote)
    return [_columns(pair, judge, some) for pair, some in by_pair.items()]


def _read(path: Path) -> list[_Vote]:
    votes: list[_Vote] = []
    seen: set[tuple[frozenset[Pair], str]] = set()
    for line in read_lines(path, "preference"):
        require_columns(path, line.values, ANNOTATION)
        vote = _vote(line)
        texts = zip(vote.pair, (line.values["output_1"], line.values["output_2"]), strict=True)
        same = frozenset(texts), vote.prompt
        if same in seen:
            raise line.error("instruction", "one whose two outputs have no vote yet")
        seen.add(same)
        votes.append(vote)
    return votes


def _vote(line: Line) -> _Vote:
    pair = line.text("generator_1"), line.text("generator_2")
    if pair[0] == pair[1]:
        raise line.error("generator_2", "another name than that of generator_1")
    return _Vote(
        pair=pair,
        prompt=fingerprint(line.text("instruction")),
        preference=preference(line),
        len_1=len(line.values["output_1"]),
        len_2=len(line.values["output_2"]),
    )


def _in_one_order(votes: Sequence[_Vote], baseline: str) -> list[_Vote]:
    """The votes, turned so that each pair of generators has one order: the baseline, then the generator
    that is compared with it. The first case that holds decides:

    1. `baseline` is one of the pair.
    2. All mixtures stand in one place, and all members in the other: no generator stands in both. There
       are fewer mixtures, and they come second.
    3. One of the pair was compared with more others. It is the mixture, and comes second.
    4. The order of the pair's first vote counts.
    """
    first, second = ({vote.pair[place] for vote in votes} for place in (0, 1))
    others: dict[str, set[str]] = defaultdict(set)
    for one, two in (vote.pair for vote in votes):
        others[one].add(two)
        others[two].add(one)
    orders: dict[frozenset[str], Pair] = {}
    for one, two in (vote.pair for vote in votes):
        if baseline in (one, two):  # 1
            is_turned = baseline == two
        elif not first & second:  # 2
            is_turned = len(first) < len(second)
        else:  # 3, 4
            is_turned = len(others[one]) > len(others[two])
        orders.setdefault(frozenset((one, two)), (two, one) if is_turned else (one, two))
    return [vote if orders[frozenset(vote.pair)] == vote.pair else vote.turned() for vote in votes]


def _columns(pair: Pair, judge: str, votes: Iterable[_Vote]) -> Preferences:
    _, prompts, preferences, len_1, len_2 = zip(*votes, strict=True)
    positions = list(map(known_set("alpaca_eval").positions.get, prompts))
    return Preferences(
        generator=pair[1],
        rows=tuple(range(len(prompts))),
        preferences=preferences,
        len_baseline=len_1,
        len_generator=len_2,
        judge=judge,
        baseline=pair[0],
        prompts=prompts,
        reasons=tuple(set_reasons(positions, len_1, pair[0])),
        are_votes=True,
    )
