"""Writes a generator's answers to a file: AlpacaEval's `model_outputs.json`, the answers of FastChat
and of Arena-Hard, JSONL or Parquet.

A file appears whole or not at all. Rows are streamed.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any

from jobs import export_answers
from jobs.atomic_file import write_atomically
from jobs.export_answers import ExportError
from jobs.records import Answer, Row
from jobs.store import Store

BATCH_ROWS = 500
"""Rows of a Parquet file that are in memory at once."""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export wrote."""

    rows: int
    """Number of rows that were written."""

    left_out: int
    """Number of rows of the set that were left out, because a turn of the row has no answer."""


@dataclass(frozen=True, slots=True)
class _AnsweredRow:
    """A row and its answers, one per turn."""

    row: Row
    answers: tuple[Answer, ...]


_ToLine = Callable[[Row, Sequence[Answer]], dict[str, Any]]
"""Makes the line of a row and its answers."""
_Write = Callable[[Store, Iterator[_AnsweredRow], IO[bytes]], int]
"""Writes rows into a file in one form, and returns how many there were."""


def export(
    store: Store, generator: str, path: Path, form: str, *, allow_partial: bool = False
) -> ExportSummary:
    """Write the answers of a generator into a file, in the order of the set.

    Args:
        store: The store of the run.
        generator: Name of the generator.
        path: The file to write; an earlier file is replaced.
        form: `alpaca_eval` (a JSON list of instruction, output, generator, dataset), one of the forms
            in `export_answers`, `jsonl` (per line a row with all its answers and proposals) or
            `parquet` (the same columns).
        allow_partial: Leave out rows with an unanswered turn instead of raising an error.

    Raises:
        ExportError: there is no such form, a row has an unanswered turn, the form cannot hold the rows,
            or pyarrow is not installed.
        StoreError: there is no such generator.
    """
    write = _FORMS.get(form)
    if write is None:
        raise ExportError(f"no form {form!r}; there are {', '.join(_FORMS)}")
    left_out = store.row_count() - store.answered_count(generator)
    if left_out and not allow_partial:
        raise ExportError(
            f"{generator!r} has no answer to {left_out} of {store.row_count()} rows; "
            "resume the run, or allow a partial export, which leaves them out"
        )
    with write_atomically(path) as file:
        rows = write(store, _answered_rows(store, generator), file)
    return ExportSummary(rows, store.row_count() - rows)


def _answered_rows(store: Store, generator: str) -> Iterator[_AnsweredRow]:
    """The rows of which all turns are answered."""
    rows = store.rows()
    for index, answers_of_row in groupby(store.answers(generator), lambda answer: answer.row):
        row = next(row for row in rows if row.index == index)
        answers = tuple(answers_of_row)
        if len(answers) == len(row.turns):
            yield _AnsweredRow(row, answers)


def _write_alpaca_eval(_store: Store, rows: Iterator[_AnsweredRow], file: IO[bytes]) -> int:
    count = 0
    for answered in rows:
        text = json.dumps(_alpaca_eval_entry(answered), ensure_ascii=False, indent=2)
        file.write((",\n" if count else "[\n").encode() + text.encode())
        count += 1
    file.write(b"\n]\n" if count else b"[]\n")
    return count


def _alpaca_eval_entry(answered: _AnsweredRow) -> dict[str, str]:
    row, answer = answered.row, answered.answers[0]
    if len(row.turns) != 1 or row.before:
        raise ExportError(
            f"AlpacaEval's form holds one instruction and its output; row {row.index} has "
            f"{len(row.turns)} turn(s) after {len(row.before)} message(s): export jsonl"
        )
    return {
        "instruction": row.turns[0],
        "output": answer.text,
        "generator": answer.generator,
        "dataset": row.dataset,
    }


def _write_jsonl(store: Store, rows: Iterator[_AnsweredRow], file: IO[bytes]) -> int:
    count = 0
    for answered in rows:
        file.write(json.dumps(_columns(store, answered), ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


def _write_parquet(store: Store, rows: Iterator[_AnsweredRow], file: IO[bytes]) -> int:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise ExportError("Parquet needs pyarrow: pip install 'slimmoa[bench]'") from error
    count, schema = 0, _schema(pyarrow)
    with ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := [_flat(_columns(store, answered)) for answered in islice(rows, BATCH_ROWS)]:
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))
            count += len(batch)
    return count


def _columns(store: Store, answered: _AnsweredRow) -> dict[str, Any]:
    """A row with everything that is known of its answers, by column."""
    row, answers = answered.row, answered.answers
    return {
        "row": row.index,
        "id": row.id,
        "generator": answers[0].generator,
        "dataset": row.dataset,
        "category": row.category,
        "before": list(row.before),
        "turns": list(row.turns),
        "answers": [answer.text for answer in answers],
        "finish_reasons": [answer.finish_reason for answer in answers],
        "proposals": [proposal for answer in answers for proposal in _proposals(store, answer)],
        "missing": [{"turn": answer.turn, **each} for answer in answers for each in answer.missing],
    }


def _proposals(store: Store, answer: Answer) -> Iterator[dict[str, Any]]:
    """The proposals behind an answer; the aggregator's text is the answer itself."""
    for used in answer.used:
        if used.layer:
            call = store.call(used.key)
            yield {
                "turn": answer.turn,
                "layer": used.layer,
                "place": used.place,
                "model": used.model,
                "text": None if call is None else call.whole.text,
                "tokens": None if call is None else call.whole.completion_tokens,
            }


def _flat(columns: dict[str, Any]) -> dict[str, Any]:
    """The columns with each entry of `missing` as JSON text, because its fields vary and a schema's do
    not, and with the id as text, because some sets have numbers."""
    missing = [json.dumps(each, ensure_ascii=False) for each in columns["missing"]]
    own_id = None if columns["id"] is None else str(columns["id"])
    return {**columns, "id": own_id, "missing": missing}


def _schema(pyarrow: Any) -> Any:
    """The Parquet schema of `_columns`."""
    text, number = pyarrow.string(), pyarrow.int64()
    proposal = {"turn": number, "layer": number, "place": number}
    proposal |= {"model": text, "text": text, "tokens": number}
    columns = {"row": number, "id": text, "generator": text, "dataset": text, "category": text}
    columns["before"] = pyarrow.list_(pyarrow.struct({"role": text, "content": text}))
    columns |= dict.fromkeys(("turns", "answers", "finish_reasons"), pyarrow.list_(text))
    columns |= {"proposals": pyarrow.list_(pyarrow.struct(proposal)), "missing": pyarrow.list_(text)}
    return pyarrow.schema(columns)


def _write_answers(line: _ToLine) -> _Write:
    """What writes each row as one JSON line in a form of `export_answers`."""

    def write(_store: Store, rows: Iterator[_AnsweredRow], file: IO[bytes]) -> int:
        count = 0
        for answered in rows:
            text = json.dumps(line(answered.row, answered.answers), ensure_ascii=False)
            file.write(text.encode() + b"\n")
            count += 1
        return count

    return write


_FORMS: dict[str, _Write] = {
    "alpaca_eval": _write_alpaca_eval,
    "fastchat": _write_answers(export_answers.fastchat),
    "arena_hard": _write_answers(export_answers.arena_hard),
    "arena_hard_turns": _write_answers(export_answers.arena_hard_turns),
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
