"""Sets of prompts: public sets by name, and users' files.

No set is part of the project. A public set is fetched from the Hub repository of its authors, or given
as a file like any other.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from jobs.records import Row
from jobs.sets.files import FileEntry, read_entries
from jobs.sets.opened import SetError, inner_name
from jobs.sets.prompt_rows import COLUMNS, OTHER_COLUMNS, OWN_IDS, plain_entry, plain_name, to_row
from jobs.sets.shapes import NothingToAsk

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


ARENA_HARD = "lmarena-ai/arena-hard-auto"
PUBLIC_SETS = {
    "alpaca_eval": HubSet("tatsu-lab/alpaca_eval", "alpaca_eval.json", 805),
    "mt_bench": HubSet("lmsys/mt-bench", "data/mt_bench/question.jsonl", 80, "space"),
    "arena_hard": HubSet(ARENA_HARD, "data/arena-hard-v0.1/question.jsonl", 500),
    "arena_hard_v2.0": HubSet(ARENA_HARD, "data/arena-hard-v2.0/question.jsonl", 750),
}
"""The sets that are known by name."""

OTHER_NAMES = {"arena_hard_v0.1": "arena_hard", "arena_hard_v2": "arena_hard_v2.0"}
"""Further names of public sets."""


@dataclass(frozen=True, slots=True)
class SetRows:
    """The rows of a file; each iteration reads the file anew."""

    path: Path

    column: str
    """The column with the prompts."""

    limit: int | None
    """Only so many rows are read, the first ones from `offset`; None reads all."""

    offset: int = 0
    """So many rows are left out at the beginning. The others keep their positions in the set."""

    own_temperatures: bool = True
    """Whether rows keep the temperatures that their benchmark gives them."""

    def __iter__(self) -> Iterator[Row]:
        entries = enumerate(_different_entries(self.path))
        end = None if self.limit is None else self.offset + self.limit
        for index, entry in islice(entries, self.offset, end):
            if entry is not None:
                yield to_row(index, self.column, entry, own_temperature=self.own_temperatures)


def _different_entries(path: Path) -> Iterator[FileEntry | None]:
    """The entries of a file in their plain form; None for a conversation in which the user says
    nothing.

    lm-eval writes a sample once for each of the task's filters; only the first one counts.

    Raises:
        SetError: two entries have one id.
    """
    seen: dict[tuple[str, Any], FileEntry] = {}
    for raw in read_entries(path):
        try:
            entry = plain_entry(raw)
        except NothingToAsk:
            yield None
            continue
        name = next((name for name in OWN_IDS if entry.fields.get(name) is not None), None)
        if name is not None:
            key = (name, str(entry.fields[name]))
            if (earlier := seen.get(key)) is None:
                seen[key] = FileEntry(entry.position, {"filter": entry.fields.get("filter")})
            elif earlier.fields["filter"] != entry.fields.get("filter"):
                continue
            else:
                raise SetError(
                    f"{entry.position}, field {name!r}: {entry.fields[name]!r} is the id of "
                    f"{earlier.position} too; each prompt needs an id of its own"
                )
        yield entry


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

    left_out: int = 0
    """Number of conversations that were left out, because the user says nothing in them."""


def load_set(
    name_or_path: str | Path,
    limit: int | None = None,
    column: str | None = None,
    offset: int = 0,
    *,
    own_temperatures: bool = True,
) -> LoadedSet:
    """Load a public set or a file.

    Args:
        name_or_path: a name in PUBLIC_SETS, or the path of a file.
        limit: load only so many rows, the first ones from `offset`; None loads all.
        column: the column with the prompts; needed if several columns of the file may hold the prompts,
            or if the column has a name that is not known.
        offset: leave out so many rows at the beginning; the others keep their positions.
        own_temperatures: whether rows keep the temperatures that their benchmark gives them.

    Raises:
        SetError: there is no such set, it cannot be fetched or read, or a row is invalid; the message
            names file, row and field.
    """
    known = _public_name(str(name_or_path))
    hub_set = None if known is None else PUBLIC_SETS[known]
    path = Path(name_or_path) if hub_set is None else _fetch(str(known), hub_set)
    if path.exists() and not path.is_file():
        raise SetError(
            f"{path} is no file that can be read twice, as a set is: save it as a file first"
        )
    if not path.is_file():
        names = ", ".join(PUBLIC_SETS)
        raise SetError(
            f"no set {str(name_or_path)!r}: there is no such file, and the public sets are {names}"
        )
    rows = SetRows(path, _choose_column(path, column), limit, offset, own_temperatures)
    digest = hashlib.sha256()
    count, last = 0, offset - 1
    for row in rows:
        count, last = count + 1, row.index
        digest.update(json.dumps(_content(row), sort_keys=True).encode())
    if not count:
        raise SetError(f"{path} has no rows from --offset {offset} on")
    if hub_set is not None and limit is None and not offset and count != hub_set.count:
        raise SetError(f"{path} has {count} rows, {name_or_path} has {hub_set.count}")
    name = inner_name(path).stem if known is None else known
    left_out = last - offset + 1 - count
    return LoadedSet(name, rows, digest.hexdigest(), rows.column, count, left_out)


def _public_name(name: str) -> str | None:
    """The name of a public set, also in the spelling of its authors (`arena-hard-v2.0`)."""
    spelled = name.lower().replace("-", "_")
    spelled = OTHER_NAMES.get(spelled, spelled)
    return spelled if spelled in PUBLIC_SETS and not Path(name).is_file() else None


def _content(row: Row) -> dict[str, Any]:
    """What the identity of a set covers. Fields that were added later count only if they are there."""
    later = ("id", "temperature")
    return {key: value for key, value in asdict(row).items() if key not in later or value is not None}


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
    first = next((entry for entry in _different_entries(path) if entry is not None), None)
    if first is None:
        raise SetError(f"{path} has no rows")
    fields = first.fields
    if wanted is not None and wanted in fields:
        return wanted
    fitting = _fitting(fields, COLUMNS) or _fitting(fields, OTHER_COLUMNS) if wanted is None else []
    if len(fitting) != 1:
        known = ", ".join((*COLUMNS, *OTHER_COLUMNS))
        many = f"{' and '.join(fitting)} may all hold the prompts, choose one by --column"
        none = f"one of {known} is needed, or the name of another one by --column"
        missing = f"--column {wanted!r} is not among them"
        columns = ", ".join(map(repr, fields))
        why = missing if wanted is not None else many if fitting else none
        raise SetError(f"{path} has the columns {columns}: {why}")
    return fitting[0]


def _fitting(fields: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The fields that have one of these names, in the order of the names."""
    return [field for name in names for field in fields if plain_name(field) == name]
