"""Single questions of a proof in full: what each member proposed, and what each way answered."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jobs.prove.reader import ProofReader

SHOWN = 40
"""Most questions that a page shows in full."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a question, and who wrote it."""

    by: str
    """The name of a model, or the name of a way in the run."""
    text: str
    right: bool | None
    """Whether the text has the right answer; None if answers are judged."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One question in full."""

    row: int
    question: str
    expected: str
    """The right answer; empty if answers are judged."""
    proposals: tuple[Text, ...]
    """What the aggregator read, in the order of the recipe; empty if one proposer answered alone."""
    mixture: Text
    best: Text
    """The answer of the best member alone."""
    won: int
    """1 if the mixture won the question against the best member, -1 if it lost, 0 otherwise."""
    alike: str
    """The words for a question that neither side won."""


def read_examples(reader: ProofReader, best: str) -> Iterator[Shown]:
    """The questions that the page shows in full, at most SHOWN.

    Questions that the mixture won and questions that it lost take turns, so that neither kind crowds
    out the other. The other questions follow.
    """
    name = next(w.name for w in reader.ways if w.kind == "member" and w.model == best)
    won: Mapping[int, int] = reader.won(name)
    for row in _in_turns(won)[:SHOWN]:
        mixture = _text(reader, "the mixture", reader.answers[reader.mixture][row].text, row)
        alone = _text(reader, best, reader.answers[name][row].text, row)
        alike = "The judge preferred neither in both orders"
        if reader.form is not None:
            alike = "Both right" if alone.right else "Both wrong"
        yield Shown(
            row=row,
            question=reader.rows[row].turns[0],
            expected=" or ".join(sorted(reader.expected.get(row, ()))),
            proposals=tuple(_proposals(reader, row)),
            mixture=mixture,
            best=alone,
            won=won[row],
            alike=alike,
        )


def _in_turns(won: Mapping[int, int]) -> list[int]:
    """The rows, first one that was won, then one that was lost, and so on; the others last."""
    decided = []
    for sign in (1, -1):
        rows = sorted(row for row, value in won.items() if value == sign)
        decided += [(place, -sign, row) for place, row in enumerate(rows)]
    return [row for *_, row in sorted(decided)] + sorted(row for row in won if not won[row])


def _proposals(reader: ProofReader, row: int) -> Iterator[Text]:
    used = [each for each in reader.answers[reader.mixture][row].used if each.layer]
    last = max((each.layer for each in used), default=0)
    for each in used:
        call = reader.store.call(each.key) if each.layer == last else None
        if call is not None:
            yield _text(reader, each.model, call.whole.text, row)


def _text(reader: ProofReader, by: str, text: str, row: int) -> Text:
    known = reader.form is not None and row in reader.expected
    return Text(by, text, reader.is_right(text, row) if known else None)
