"""A generator's answers as a file for others: AlpacaEval's `model_outputs.json`, JSONL, Parquet.

Files are written beside their place and moved into it, so none is ever half-written; rows are streamed.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any

from configs.errors import UserError
from jobs.records import Answer, Row
from jobs.store import Store

BATCH_ROWS = 500


class ExportError(UserError):
    """Answers cannot be exported as asked; the message says why, nothing is written."""


@dataclass(frozen=True, slots=True)
class Exported:
    """rows: written; left_out: rows of the set without a whole answer."""

    rows: int
    left_out: int


@dataclass(frozen=True, slots=True)
class _Answered:
    row: Row
    answers: tuple[Answer, ...]


_Write = Callable[[Store, Iterator[_Answered], IO[bytes]], int]


def export(
    store: Store, generator: str, path: Path, form: str, *, allow_partial: bool = False
) -> Exported:
    """Write what a generator answered, in the order of the set.

    form: `alpaca_eval` (a JSON list of instruction, output, generator, dataset), `jsonl` (a row with
    all its proposals a line) or `parquet` (the same columns).

    Raises:
        ExportError: rows have no answer and `allow_partial` is not given; the form cannot hold them;
            there is no such form; Parquet needs the extra `bench`.
        StoreError: there is no such generator.
    """
    write = _FORMS.get(form)
    if write is None:
        raise ExportError(f"no form {form!r}; there are {', '.join(_FORMS)}")
    left_out = store.row_count() - store.answered(generator)
    if left_out and not allow_partial:
        raise ExportError(
            f"{generator!r} has no answer to {left_out} of {store.row_count()} rows; "
            "resume the run, or allow a partial export, which leaves them out"
        )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            rows = write(store, _answered(store, generator), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    return Exported(rows, store.row_count() - rows)


def _answered(store: Store, generator: str) -> Iterator[_Answered]:
    """Rows all of whose turns are answered."""
    rows = store.rows()
    for index, answers in groupby(store.answers(generator), lambda answer: answer.row):
        row = next(row for row in rows if row.index == index)
        whole = tuple(answers)
        if len(whole) == len(row.turns):
            yield _Answered(row, whole)


def _alpaca_eval(_store: Store, found: Iterator[_Answered], file: IO[bytes]) -> int:
    count = 0
    for each in found:
        text = json.dumps(_output(each), ensure_ascii=False, indent=2)
        file.write((",\n" if count else "[\n").encode() + text.encode())
        count += 1
    file.write(b"\n]\n" if count else b"[]\n")
    return count


def _output(each: _Answered) -> dict[str, str]:
    row, answer = each.row, each.answers[0]
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


def _jsonl(store: Store, found: Iterator[_Answered], file: IO[bytes]) -> int:
    count = 0
    for each in found:
        file.write(json.dumps(_record(store, each), ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


def _parquet(store: Store, found: Iterator[_Answered], file: IO[bytes]) -> int:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise ExportError("Parquet needs pyarrow: pip install 'slimmoa[bench]'") from error
    count, schema = 0, _schema(pyarrow)
    with ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := [_record(store, each) for each in islice(found, BATCH_ROWS)]:
            writer.write_table(pyarrow.Table.from_pylist([_flat(record) for record in batch], schema))
            count += len(batch)
    return count


def _record(store: Store, each: _Answered) -> dict[str, Any]:
    row = each.row
    return {
        "row": row.index,
        "generator": each.answers[0].generator,
        "dataset": row.dataset,
        "category": row.category,
        "before": list(row.before),
        "turns": list(row.turns),
        "answers": [answer.text for answer in each.answers],
        "finish_reasons": [answer.finish_reason for answer in each.answers],
        "proposals": [proposal for answer in each.answers for proposal in _proposals(store, answer)],
        "missing": [{"turn": answer.turn, **who} for answer in each.answers for who in answer.missing],
    }


def _proposals(store: Store, answer: Answer) -> Iterator[dict[str, Any]]:
    """What the layers said; the aggregator's text is the answer."""
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


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Who is missing has no fixed fields: JSON."""
    missing = [json.dumps(who, ensure_ascii=False) for who in record["missing"]]
    return {**record, "missing": missing}


def _schema(pyarrow: Any) -> Any:
    text, number = pyarrow.string(), pyarrow.int64()
    proposal = {"turn": number, "layer": number, "place": number}
    proposal |= {"model": text, "text": text, "tokens": number}
    columns = {"row": number, "generator": text, "dataset": text, "category": text}
    columns["before"] = pyarrow.list_(pyarrow.struct({"role": text, "content": text}))
    columns |= dict.fromkeys(("turns", "answers", "finish_reasons"), pyarrow.list_(text))
    columns |= {"proposals": pyarrow.list_(pyarrow.struct(proposal)), "missing": pyarrow.list_(text)}
    return pyarrow.schema(columns)


_FORMS: dict[str, _Write] = {"alpaca_eval": _alpaca_eval, "jsonl": _jsonl, "parquet": _parquet}
