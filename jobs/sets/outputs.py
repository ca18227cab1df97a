"""Files of outputs to a set: somebody else's answers, which become a generator of a run."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jobs.records import Answer, Generator
from jobs.sets.files import FileEntry, SetError, read_entries
from jobs.store import Store

SHOWN_ROWS = 10
"""A message lists so many rows at most."""


class Output(NamedTuple):
    """One output of a file."""

    key: int | str
    """The row that the output answers: the row's index or its instruction."""

    text: str

    generator: str
    """Who wrote the output, as the file says; empty if the file does not say."""


def load_outputs(path: str | Path) -> list[Output]:
    """The outputs of a file.

    The file is AlpacaEval's `model_outputs.json` (with the fields instruction, output and generator),
    or its entries have the fields index and output.

    Raises:
        SetError: the file cannot be read, or an entry lacks these fields.
    """
    return [_to_output(entry) for entry in read_entries(Path(path))]


def import_outputs(store: Store, path: str | Path, name: str) -> int:
    """Add a file's outputs as the answers of a generator of kind `file`, to all rows of the store.

    Args:
        store: The store of a run.
        path: The file of outputs.
        name: What to call the generator.

    Returns:
        How many outputs of the file belong to no row: a run may be over a part of a set.

    Raises:
        SetError: the file cannot be read; or a row has no output, or several outputs, or more than one
            turn. Nothing is added then.
        StoreError: the name belongs to another generator.
    """
    outputs = load_outputs(path)
    answers = list(_match_rows(store, outputs, name, Path(path)))
    digest = hashlib.sha256(json.dumps(outputs).encode()).hexdigest()
    about = {"file": Path(path).name, "generators": sorted({output.generator for output in outputs})}
    store.add_generator(Generator(name, "file", digest, about))
    store.add_answers(answers)
    return len(outputs) - len(answers)


def _match_rows(store: Store, outputs: list[Output], name: str, path: Path) -> Iterator[Answer]:
    """The answer to each row of the store."""
    texts: dict[int | str, str] = {}
    for output in outputs:
        if output.key in texts:
            raise SetError(f"{path} has several outputs for {_describe(output.key)}")
        texts[output.key] = output.text
    without: list[int] = []
    for row in store.rows():
        if len(row.turns) != 1:
            raise SetError(f"row {row.index} has {len(row.turns)} turns; an output answers one")
        if (text := texts.get(row.turns[0], texts.get(row.index))) is None:
            without.append(row.index)
        else:
            yield Answer(name, row.index, 0, text)
    if without:
        more = ", ..." if len(without) > SHOWN_ROWS else ""
        shown = ", ".join(map(str, without[:SHOWN_ROWS])) + more
        unused = len(outputs) - (store.row_count() - len(without))
        raise SetError(
            f"{path} has no output for {len(without)} of {store.row_count()} rows ({shown}), and "
            f"{unused} outputs that are of no row"
        )


def _to_output(entry: FileEntry) -> Output:
    position, fields = entry
    key, text = fields.get("instruction", fields.get("index")), fields.get("output")
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise SetError(f"{position}: the field 'instruction' or 'index' is needed, a text or a number")
    if not isinstance(text, str):
        raise SetError(f"{position}: the field 'output' must be a text, it is {text!r}")
    return Output(key, text, str(fields.get("generator") or ""))


def _describe(key: int | str) -> str:
    return f"row {key}" if isinstance(key, int) else repr(key[:60])
