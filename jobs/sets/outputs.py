"""Files of outputs to a set: somebody else's answers, which become a generator of a run.

Which files are read, and how an output finds its row, is written in `output_shapes.py` and
docs/files.md.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.records import Answer, Generator, Row
from jobs.sets.files import read_entries
from jobs.sets.known_sets import fingerprint
from jobs.sets.opened import SetError
from jobs.sets.output_shapes import Output, OutputColumns, to_output
from jobs.sets.shapes import NothingToAsk
from jobs.store import Store

SHOWN_ROWS = 10
"""A message lists so many rows at most."""
Key = tuple[str, str]
"""How an output and a row find each other: by `id`, `text`, `index` or `other id`, and the value."""


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import added."""

    rows: int
    """Number of rows of the run."""

    answered: int
    """Number of rows that got answers to all of their turns."""

    missing: tuple[int, ...]
    """The other rows, by index: the file has no output for them, or not one for each turn."""

    unused: int
    """Number of outputs of the file that belong to no row: a run may be over a part of a set."""

    failed: int
    """Number of outputs of the file that have no text, for example because a request failed."""

    def __str__(self) -> str:
        parts = [f"{self.answered} answers"]
        if self.missing:
            parts.append(f"{len(self.missing)} of {self.rows} rows have none ({_shown(self.missing)})")
        if self.failed:
            parts.append(f"{self.failed} outputs have no text")
        if self.unused:
            parts.append(f"{self.unused} outputs are of no row")
        return "; ".join(parts)


def load_outputs(path: str | Path, columns: OutputColumns | None = None) -> list[Output]:
    """The outputs of a file, in its order.

    Raises:
        SetError: the file cannot be read, or an entry lacks the fields that are needed.
    """
    chosen = columns or OutputColumns()
    found = []
    for entry in read_entries(Path(path)):
        with suppress(NothingToAsk):  # answers no row
            found.append(to_output(entry, chosen))
    return found


def import_outputs(
    store: Store, path: str | Path, name: str, columns: OutputColumns | None = None
) -> ImportSummary:
    """Add a file's outputs as the answers of a generator of kind `file`.

    A row without an output stays without an answer: it is counted, and no figure counts it as lost.

    Args:
        store: The store of a run.
        path: The file of outputs.
        name: What to call the generator.
        columns: Names of columns, where they are not the usual ones.

    Raises:
        SetError: the file cannot be read; no output belongs to a row; or several outputs with different
            texts belong to one row. Nothing is added then.
        StoreError: the name belongs to another generator.
    """
    path = Path(path)
    outputs = load_outputs(path, columns)
    found = _match(list(store.rows()), outputs, path)
    if not found.answers:
        raise SetError(found.why_none(path))
    digest = hashlib.sha256(json.dumps([_content(output) for output in outputs]).encode()).hexdigest()
    about = {"file": path.name, "generators": sorted({output.generator for output in outputs})}
    store.add_generator(Generator(name, "file", digest, about))
    store.add_answers(
        Answer(name, index, turn, text)
        for index, texts in sorted(found.answers.items())
        for turn, text in enumerate(texts)
    )
    return found.summary()


def read_references(store: Store, path: Path) -> dict[int, tuple[str, ...]]:
    """The reference answers of a file, such as FastChat's `reference_answer/gpt-4.jsonl`: one for each
    turn of a row, by the row's index. Rows may have none.

    Raises:
        SetError: the file cannot be read, or no answer belongs to a row.
    """
    found = _match(list(store.rows()), load_outputs(path), path)
    if not found.answers:
        raise SetError(found.why_none(path))
    return found.answers


@dataclass(slots=True)
class _Matched:
    """Which outputs belong to which rows."""

    rows: Sequence[Row]
    outputs: Sequence[Output]
    answers: dict[int, tuple[str, ...]]
    """The texts for each row that has one for every turn, by the row's index."""
    used: int
    """Number of outputs that belong to a row."""

    def summary(self) -> ImportSummary:
        missing = tuple(row.index for row in self.rows if row.index not in self.answers)
        failed = sum(output.texts is None for output in self.outputs)
        unused = len(self.outputs) - self.used
        return ImportSummary(len(self.rows), len(self.answers), missing, unused, failed)

    def why_none(self, path: Path) -> str:
        """Why no row has an answer, with the first output and the first row side by side."""
        if not self.outputs:
            return f"{path} has no outputs"
        if all(output.texts is None for output in self.outputs):
            return f"{path} has {len(self.outputs)} outputs, and none of them has a text"
        first, row = self.outputs[0], self.rows[0]
        turns = f" and {len(row.turns)} turns" if len(row.turns) > 1 else ""
        own = f" and the id {row.id!r}" if row.id is not None else " and no id"
        if first.own_id is not None and row.id is None:
            own += " (an older run gets ids when `slimmoa bench run` is given its set once more)"
        return (
            f"{path} has no output for any of the {len(self.rows)} rows: the first output is for "
            f"{first.described}, the first row has the prompt {row.turns[0][:60]!r}{own}{turns}"
        )


def _match(rows: Sequence[Row], outputs: Sequence[Output], path: Path) -> _Matched:
    by_key: dict[Key, list[int]] = defaultdict(list)
    places = {row.index: row for row in rows}
    for row in rows:
        for key in _row_keys(row):
            by_key[key].append(row.index)
    claims: dict[tuple[int, ...], list[Output]] = defaultdict(list)
    for output in outputs:
        if indices := next((by_key[key] for key in _keys(output) if key in by_key), None):
            claims[tuple(indices)].append(output)
    answers: dict[int, tuple[str, ...]] = {}
    for places_of, some in claims.items():
        for index, texts in zip(places_of, _deal(len(places_of), some, path), strict=True):
            if texts is None or not _fits(places[index], texts, some[0], path):
                continue
            if answers.setdefault(index, texts) != texts:
                raise SetError(f"{path} has several outputs for row {index}, one of {some[0].position}")
    return _Matched(rows, outputs, answers, sum(map(len, claims.values())))


def _deal(count: int, outputs: Sequence[Output], path: Path) -> list[tuple[str, ...] | None]:
    """The texts for each of `count` rows with one prompt, of which the file has these outputs."""
    if count == len(outputs):
        return [output.texts for output in outputs]
    different = list(dict.fromkeys(each.texts for each in outputs if each.texts is not None))
    if len(different) > 1:
        raise SetError(
            f"{path} has several outputs for {outputs[0].described}: {outputs[0].position} and "
            f"{outputs[1].position}; only one of them can be its answer"
        )
    return [different[0] if different else None] * count


def _fits(row: Row, texts: Sequence[str], output: Output, path: Path) -> bool:
    """Whether the texts answer all turns of a row. Further turns would be lost without a word."""
    if len(texts) > len(row.turns):
        raise SetError(
            f"{path.parent / output.position} answers {len(texts)} turns; row {row.index} has "
            f"{len(row.turns)}: {row.turns[0][:60]!r}"
        )
    return len(texts) == len(row.turns)


def _keys(output: Output) -> Iterator[Key]:
    """How an output may find its row: the surest way first.

    1. The id that the benchmark's own tools give each prompt.
    2. The prompt. If the file has prompts and none of the rows has this one, its index tells nothing:
       the file is in another order, or of another set.
    3. The index, or any other id.
    """
    if output.own_id is not None:  # 1
        yield "id", str(output.own_id)
    if output.prompt is not None:  # 2
        yield "text", output.prompt
        yield "words", fingerprint(output.prompt)
        return
    if output.index is not None:  # 3
        yield "index", str(output.index)
    if output.other_id is not None:
        yield "id", str(output.other_id)


def _row_keys(row: Row) -> Iterator[Key]:
    yield "index", str(row.index)
    yield "text", row.turns[0]
    yield "words", fingerprint(row.turns[0])
    if row.id is not None:
        yield "id", str(row.id)


def _content(output: Output) -> object:
    """What the identity of an imported generator covers. Plain outputs have the identity that they had
    before there were other shapes, so that a file can be imported into an older run again."""
    if output.own_id is None and output.other_id is None and output.texts is not None:
        key = output.index if output.prompt is None else output.prompt
        return [key, *output.texts, output.generator]
    return {name: value for name, value in asdict(output).items() if name != "position"}


def _shown(rows: Sequence[int]) -> str:
    more = ", ..." if len(rows) > SHOWN_ROWS else ""
    return ", ".join(map(str, rows[:SHOWN_ROWS])) + more
