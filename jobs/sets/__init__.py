"""Sets of prompts, named ones and users' files, and files of outputs to them.

No set is part of the project. Named sets come from the Hub repositories of their authors, or are given
as a file like any other.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from jobs.records import Answer, Generator, Row
from jobs.sets.files import Placed, SetError, records
from jobs.sets.prompt_rows import COLUMNS, row_of
from jobs.store import Store

__all__ = ["NAMED", "LoadedSet", "Output", "SetError", "import_outputs", "load_outputs", "load_set"]

HUB_PROBE_S = 3.0


@dataclass(frozen=True, slots=True)
class HubSet:
    """Where a named set is. kind: of the Hub's repository; count: rows of the set."""

    repository: str
    file: str
    count: int
    kind: str = "dataset"


NAMED = {
    "alpaca_eval": HubSet("tatsu-lab/alpaca_eval", "alpaca_eval.json", 805),
    "mt_bench": HubSet("lmsys/mt-bench", "data/mt_bench/question.jsonl", 80, "space"),
    "arena_hard": HubSet("lmarena-ai/arena-hard-auto", "data/arena-hard-v0.1/question.jsonl", 500),
}


@dataclass(frozen=True, slots=True)
class SetRows:
    """A file's rows; each iteration reads the file anew. limit: at most so many."""

    path: Path
    column: str
    limit: int | None

    def __iter__(self) -> Iterator[Row]:
        placed = islice(records(self.path), self.limit)
        return (row_of(index, self.column, each) for index, each in enumerate(placed))


@dataclass(frozen=True, slots=True)
class LoadedSet:
    """A set that was read through once, so every row of it is sound.

    column: the one that the prompts are from; count: of rows; identity: hash of the rows' content,
    the same for the same rows whatever file they come from.
    """

    name: str
    rows: SetRows
    identity: str
    column: str
    count: int


def load_set(
    name_or_path: str | Path, limit: int | None = None, column: str | None = None
) -> LoadedSet:
    """A named set or a file. limit: only its first rows; column: if several could hold the prompts.

    Raises:
        SetError: there is no such set, it cannot be fetched or read, or a row of it is unsound; the
            message names file, row and field.
    """
    named = NAMED.get(str(name_or_path))
    path = Path(name_or_path) if named is None else _fetched(str(name_or_path), named)
    if not path.is_file():
        names = ", ".join(NAMED)
        raise SetError(f"no set {str(name_or_path)!r}: it is not one of {names}, and no such file")
    rows = SetRows(path, _column(path, column), limit)
    digest, count = hashlib.sha256(), 0
    for row in rows:
        count += 1
        digest.update(json.dumps(asdict(row), sort_keys=True).encode())
    if named is not None and limit is None and count != named.count:
        raise SetError(f"{path} has {count} rows, {name_or_path} has {named.count}")
    name = Path(path.name.removesuffix(".gz")).stem if named is None else str(name_or_path)
    return LoadedSet(name, rows, digest.hexdigest(), rows.column, count)


def _fetched(name: str, hub: HubSet) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub import try_to_load_from_cache as in_cache

    if isinstance(path := in_cache(hub.repository, hub.file, repo_type=hub.kind), str):
        return Path(path)
    try:
        # Where there is no network the client retries for 23 s; one quick look comes first.
        url = hf_hub_url(hub.repository, hub.file, repo_type=hub.kind)
        get_hf_file_metadata(url, timeout=HUB_PROBE_S)
        return Path(hf_hub_download(hub.repository, hub.file, repo_type=hub.kind))
    except Exception as error:  # the client fails in many ways, all of which mean the same here
        raise SetError(
            f"cannot fetch the set {name!r} ({hub.file} of the Hub's {hub.kind} {hub.repository}): "
            f"{error}; if you have the file, give it: --set PATH"
        ) from error


def _column(path: Path, wanted: str | None) -> str:
    """The column with the prompts, by the file's first record."""
    first = next(records(path), None)
    if first is None:
        raise SetError(f"{path} has no rows")
    allowed = COLUMNS if wanted is None else (wanted,)
    fitting = [name for name in allowed if name in COLUMNS and name in first[1]]
    if len(fitting) != 1:
        many = f"{' and '.join(fitting)} may all hold the prompts, choose one by --column"
        none = f"one of {', '.join(COLUMNS)} is needed"
        columns = ", ".join(map(repr, first[1]))
        raise SetError(f"{path} has the columns {columns}: {many if fitting else none}")
    return fitting[0]


class Output(NamedTuple):
    """One output of a file. key: the row's index, or its instruction; generator: if the file says."""

    key: int | str
    text: str
    generator: str


def load_outputs(path: str | Path) -> list[Output]:
    """Outputs from a file: AlpacaEval's `model_outputs.json` (instruction, output, generator), or rows
    of index and output.

    Raises:
        SetError: it cannot be read, or a row has no such fields.
    """
    return [_output(each) for each in records(Path(path))]


def import_outputs(store: Store, path: str | Path, name: str) -> int:
    """Add a file's outputs as the answers of a generator of kind `file`, for all rows of the store.

    Returns how many of the file's outputs are of no row: a run may be over part of a set.

    Raises:
        SetError: a row has no output, or several, or more than one turn; nothing is added then.
    """
    outputs = load_outputs(path)
    answers = list(_matched(store, outputs, name, Path(path)))
    digest = hashlib.sha256(json.dumps(outputs).encode()).hexdigest()
    about = {"file": Path(path).name, "generators": sorted({output.generator for output in outputs})}
    store.add_generator(Generator(name, "file", digest, about))
    store.add_answers(answers)
    return len(outputs) - len(answers)


def _matched(store: Store, outputs: list[Output], name: str, path: Path) -> Iterator[Answer]:
    texts: dict[int | str, str] = {}
    for output in outputs:
        if output.key in texts:
            raise SetError(f"{path} has several outputs for {_short(output.key)}")
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
        some = ", ".join(map(str, without[:10])) + (", ..." if len(without) > 10 else "")
        unused = len(outputs) - (store.row_count() - len(without))
        raise SetError(
            f"{path} has no output for {len(without)} of {store.row_count()} rows ({some}), and "
            f"{unused} outputs that are of no row"
        )


def _output(placed: Placed) -> Output:
    place, record = placed
    key, text = record.get("instruction", record.get("index")), record.get("output")
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise SetError(f"{place}: the field 'instruction' or 'index' is needed, a text or a number")
    if not isinstance(text, str):
        raise SetError(f"{place}: the field 'output' must be a text, it is {text!r}")
    return Output(key, text, str(record.get("generator") or ""))


def _short(key: int | str) -> str:
    return f"row {key}" if isinstance(key, int) else repr(key[:60])
