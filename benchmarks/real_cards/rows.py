"""The rows of a check: each is on the disk before the next one is measured, and a table comes of them.

A file of rows has one JSON object per line. A call writes a `begin` line, its rows, and an `end` line.
Several calls may write to one file, one after the other. A call without an `end` line was killed.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from cluster.plan.footprint import gib
from configs.errors import UserError

Unit = Literal["", "bytes", "s", "tokens/s", "GB/s", "text"]
Kind = Literal["row", "failed", "skipped"]
Value = float | int | str | None

WORDS: dict[bool | None, str] = {None: "", True: "as planned", False: "**worse**"}
"""What the table says of a row beside its figures, by `Row.good`."""
MOST_NOTE = 300
"""Characters of a note that the file keeps. Errors of engines can be pages long."""


class NoRows(UserError):
    """A file of rows cannot be read."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, or one step that failed or was skipped."""

    call: str
    """The call of the check: `first`, `second` or `third`."""
    part: str
    """What was measured: an engine, two engines, or the mixture."""
    step: str
    """The step of the part."""
    what: str
    """The figure in words."""
    planned: Value = None
    """The figure of the plan; None if the plan has none."""
    measured: Value = None
    """The figure as measured; None if the step failed or was skipped."""
    unit: Unit = ""
    """The unit of both figures."""
    good: bool | None = None
    """Whether the figure is at least as good as planned; None if nothing says what is good."""
    note: str = ""
    """What belongs to the figure, or why the step failed or was skipped."""
    kind: Kind = "row"
    """Whether this is a figure, or a step that failed or was skipped."""
    at_s: float = 0.0
    """Seconds since the call began."""


@dataclass(slots=True)
class RowFile:
    """Writes rows to a file and to the terminal. Each row is on the disk when `add` returns."""

    path: Path
    """The file; rows are appended to it."""
    rows: list[Row] = field(default_factory=list)
    """The rows of this call."""
    _file: Any = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        if self.path.stat().st_size and not _ends_with_newline(self.path):
            self._file.write("\n")  # a killed call may have left half a line
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, row: Row) -> None:
        """Write a row."""
        self.rows.append(row)
        self._write({"line": "row"} | asdict(row))
        print(_terminal_line(row), flush=True)

    def begin(self, call: str, about: dict[str, Any]) -> None:
        """Write that a call begins, and what is known of the machine."""
        self._write({"line": "begin", "call": call, "about": about})
        print(f"{call}: {json.dumps(about)}", flush=True)

    def end(self, call: str, seconds: float) -> None:
        """Write that a call has ended by itself."""
        self._write({"line": "end", "call": call, "seconds": round(seconds, 1)})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


@dataclass(slots=True)
class Call:
    """One call as its lines in a file tell it."""

    name: str
    about: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    seconds: float | None = None
    """Seconds that it took; None if it was killed."""


def read_calls(files: Iterable[Path]) -> list[Call]:
    """The calls in these files, in their order. A call that is in several files is taken once.

    Raises:
        NoRows: a file is not there, or a line that is not the last of its call is no JSON object.
    """
    calls: list[Call] = []
    for file in files:
        calls += [call for call in _calls_of(file) if call not in calls]
    return calls


def table(calls: Iterable[Call]) -> str:
    """The calls as Markdown, for docs/results.md."""
    return "\n".join(line for call in calls for line in _call_lines(call))


def _calls_of(file: Path) -> list[Call]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NoRows(f"cannot read rows from {str(file)!r}: {error}") from error
    calls: list[Call] = []
    for number, text in enumerate(lines, 1):
        line = _parsed(text)
        if line is None and (number == len(lines) or _parsed(lines[number], "begin") is not None):
            continue  # the call was killed while it wrote this line
        try:
            _take(line or {}, calls)
        except (KeyError, TypeError, IndexError) as error:
            said = f"line {number} of {str(file)!r} is no row of gpu_check: {text[:60]!r}"
            raise NoRows(said) from error
    return calls


def _parsed(text: str, kind: str | None = None) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        return None
    return line if isinstance(line, dict) and kind in (None, line.get("line")) else None


def _take(line: dict[str, Any], calls: list[Call]) -> None:
    kind = line.pop("line")
    if kind == "begin":
        calls.append(Call(line["call"], line["about"]))
    elif kind == "end":
        calls[-1].seconds = line["seconds"]
    else:
        calls[-1].rows.append(Row(**line))


def _call_lines(call: Call) -> Iterator[str]:
    about = ", ".join(f"{key} {value}" for key, value in call.about.items() if value not in (None, ""))
    took = "killed before its end" if call.seconds is None else f"{call.seconds:.0f} s"
    bad = sum(row.good is False for row in call.rows)
    skipped = sum(row.kind == "skipped" for row in call.rows)
    counts = f"{len(call.rows)} rows, {bad} bad, {skipped} skipped"
    yield f"**Call `{call.name}`** ({took}): {counts}. {about}."
    yield ""
    yield "| part | step | figure | planned | measured | |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in call.rows:
        figures = [shown(value, row.unit) for value in (row.planned, row.measured)]
        cells = (row.part, row.step, row.what, *figures, _remark(row))
        yield "| " + " | ".join(_cell(text) for text in cells) + " |"
    yield ""


def _remark(row: Row) -> str:
    word = f"**{row.kind}**" if row.kind == "failed" else WORDS[row.good]
    word = "skipped" if row.kind == "skipped" else word
    return f"{word}: {row.note}" if word and row.note else word or row.note


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def shown(value: Value, unit: Unit) -> str:
    """A figure as text with its unit."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    match unit:
        case "bytes":
            return f"-{gib(-value)}" if value < 0 else gib(value)
        case "s":
            return f"{value:.2f} s"
        case "tokens/s" | "GB/s":
            return f"{value:.1f} {unit}"
    return f"{value:g}"


def _terminal_line(row: Row) -> str:
    mark = {None: " ", True: "+", False: "!"}[row.good] if row.kind == "row" else row.kind[0].upper()
    figures = f"{shown(row.planned, row.unit):>16} {shown(row.measured, row.unit):>16}"
    name = f"{row.part}: {row.step}: {row.what}"
    return f"{mark} {row.at_s:6.1f} {name:<70} {figures} {row.note}".rstrip()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def print_table(files: Iterable[Path]) -> None:
    """Print the table of these files."""
    sys.stdout.write(table(read_calls(files)) + "\n")
