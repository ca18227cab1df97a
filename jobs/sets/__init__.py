"""Sets of prompts: public sets by name, and users' files.

No set is part of the project. A public set is fetched from the Hub repository of its authors, or given
as a file like any other.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from jobs.records import Row
from jobs.sets.files import SetError, read_entries
from jobs.sets.prompt_rows import COLUMNS, to_row

__all__ = ["PUBLIC_SETS", "LoadedSet", "SetError", "load_set"]

HUB_PROBE_S = 3.0
"""Seconds that the Hub may take to answer before it counts as out of reach."""


@dataclass(frozen=True, slots=True)
class HubSet:
    """Where a public set is on the Hub."""

    repository: str
    """Name of the Hub repository."""

    file: str
    """Path of the file in the repository."""

    count: int
    """Number of rows of the set."""

    kind: Literal["dataset", "space"] = "dataset"
    """Kind of the Hub repository."""


PUBLIC_SETS = {
    "alpaca_eval": HubSet("tatsu-lab/alpaca_eval", "alpaca_eval.json", 805),
    "mt_bench": HubSet("lmsys/mt-bench", "data/mt_bench/question.jsonl", 80, "space"),
    "arena_hard": HubSet("lmarena-ai/arena-hard-auto", "data/arena-hard-v0.1/question.jsonl", 500),
}
"""The sets that are known by name."""


@dataclass(frozen=True, slots=True)
class SetRows:
    """The rows of a file; each iteration reads the file anew."""

    path: Path

    column: str
    """The column with the prompts."""

    limit: int | None
    """Only so many rows are read, the first ones; None reads all."""

    def __iter__(self) -> Iterator[Row]:
        entries = islice(read_entries(self.path), self.limit)
        return (to_row(index, self.column, entry) for index, entry in enumerate(entries))


@dataclass(frozen=True, slots=True)
class LoadedSet:
    """A set that has been read once in full, so all of its rows are valid."""

    name: str
    """Name of the public set, or of the file without its ending."""

    rows: SetRows

    identity: str
    """Hash of the content of the rows; the same rows from another file have the same identity."""

    column: str
    """The column with the prompts."""

    count: int
    """Number of rows."""


def load_set(
    name_or_path: str | Path, limit: int | None = None, column: str | None = None
) -> LoadedSet:
    """Load a public set or a file.

    Args:
        name_or_path: a name in PUBLIC_SETS, or the path of a file.
        limit: load only so many rows, the first ones; None loads all.
        column: the column with the prompts; needed if several columns of the file may hold the prompts.

    Raises:
        SetError: there is no such set, it cannot be fetched or read, or a row is invalid; the message
            names file, row and field.
    """
    hub_set = PUBLIC_SETS.get(str(name_or_path))
    path = Path(name_or_path) if hub_set is None else _fetch(str(name_or_path), hub_set)
    if not path.is_file():
        names = ", ".join(PUBLIC_SETS)
        raise SetError(f"no set {str(name_or_path)!r}: it is not one of {names}, and no such file")
    rows = SetRows(path, _choose_column(path, column), limit)
    digest = hashlib.sha256()
    count = 0
    for row in rows:
        count += 1
        digest.update(json.dumps(asdict(row), sort_keys=True).encode())
    if hub_set is not None and limit is None and count != hub_set.count:
        raise SetError(f"{path} has {count} rows, {name_or_path} has {hub_set.count}")
    name = Path(path.name.removesuffix(".gz")).stem if hub_set is None else str(name_or_path)
    return LoadedSet(name, rows, digest.hexdigest(), rows.column, count)


def _fetch(name: str, hub: HubSet) -> Path:
    """The file of a public set, from the Hub client's cache or else from the Hub."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub import try_to_load_from_cache as in_cache

    if isinstance(path := in_cache(hub.repository, hub.file, repo_type=hub.kind), str):
        return Path(path)
    try:
        # Without a network the client retries for 23 s; this probe fails sooner.
        url = hf_hub_url(hub.repository, hub.file, repo_type=hub.kind)
        get_hf_file_metadata(url, timeout=HUB_PROBE_S)
        return Path(hf_hub_download(hub.repository, hub.file, repo_type=hub.kind))
    except Exception as error:  # the client raises many classes, which all mean the same here
        raise SetError(
            f"cannot fetch the set {name!r} ({hub.file} of the Hub's {hub.kind} {hub.repository}): "
            f"{error}; if you have the file, give it: --set PATH"
        ) from error


def _choose_column(path: Path, wanted: str | None) -> str:
    """The column with the prompts, chosen by the file's first entry."""
    first = next(read_entries(path), None)
    if first is None:
        raise SetError(f"{path} has no rows")
    allowed = COLUMNS if wanted is None else (wanted,)
    fitting = [name for name in allowed if name in COLUMNS and name in first.fields]
    if len(fitting) != 1:
        many = f"{' and '.join(fitting)} may all hold the prompts, choose one by --column"
        none = f"one of {', '.join(COLUMNS)} is needed"
        columns = ", ".join(map(repr, first.fields))
        raise SetError(f"{path} has the columns {columns}: {many if fitting else none}")
    return fitting[0]
