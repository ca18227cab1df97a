"""Rows on the disk: there after a kill, and enough for the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.real_cards import gpu_check
from benchmarks.real_cards.rows import NoRows, Row, RowFile, read_calls, shown, table

ROOT = Path(__file__).parents[4]
KILLED = """
import asyncio, sys
from pathlib import Path
from benchmarks.real_cards.rows import RowFile
from benchmarks.real_cards.steps import Budget, Part, Step, run_part

class Latch(Part):
    name = "latch"
    def steps(self):
        return (Step("one", self.one, 1), Step("two", self.two, 1), Step("three", self.one, 1))
    async def one(self, notes):
        notes.add("figure", 7, "s", planned=8.0, good=True)
    async def two(self, notes):
        notes.add("first half", 1)
        sys.__stdout__.write("at the latch\\n"); sys.__stdout__.flush()
        await asyncio.Event().wait()

async def main():
    with RowFile(Path(sys.argv[1])) as file:
        file.begin("first", {"card": "H200"})
        await run_part(Latch(), "first", file, Budget(600))
asyncio.run(main())
"""


def test_rows_of_a_check_that_was_killed_are_there(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    command = [sys.executable, "-c", KILLED, str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as check:
        assert check.stdout is not None
        while "at the latch" not in check.stdout.readline():
            assert check.poll() is None
        check.kill()
    (call,) = read_calls([file])
    assert [(row.step, row.what, row.measured) for row in call.rows] == [
        ("one", "figure", 7),
        ("two", "first half", 1),
    ]
    assert call.seconds is None
    assert "killed before its end" in table([call])


def row(**changes: object) -> Row:
    fields = {"call": "first", "part": "llama", "step": "start", "what": "bytes awake"}
    return Row(**{**fields, **changes})  # type: ignore[arg-type]


def written(path: Path, call: str, *rows: Row, end: bool = True) -> Path:
    with RowFile(path) as file:
        file.begin(call, {"card": "H200", "vllm": "0.26.0", "driver": None})
        for each in rows:
            file.add(each)
        if end:
            file.end(call, 201.4)
    return path


def test_the_table_needs_the_files_alone(tmp_path: Path) -> None:
    first = written(
        tmp_path / "a.jsonl",
        "first",
        row(planned=8 << 30, measured=9 << 30, unit="bytes", good=False),
        row(step="sleep", what="failed", good=False, kind="failed", note="OOM | killed"),
        row(step="wake", what="skipped", kind="skipped", note="'sleep' did not succeed"),
        row(step="speed", what="one sequence", measured=88.26, unit="tokens/s", note="alone"),
    )
    second = written(tmp_path / "b.jsonl", "second", row(measured="yes", unit="text", good=True))
    assert table(read_calls([first, second, first])) == (
        "**Call `first`** (201 s): 4 rows, 2 bad, 1 skipped. card H200, vllm 0.26.0.\n"
        "\n"
        "| part | step | figure | planned | measured | |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| llama | start | bytes awake | 8.0 GiB | 9.0 GiB | **worse** |\n"
        "| llama | sleep | failed |  |  | **failed**: OOM \\| killed |\n"
        "| llama | wake | skipped |  |  | skipped: 'sleep' did not succeed |\n"
        "| llama | speed | one sequence |  | 88.3 tokens/s | alone |\n"
        "\n"
        "**Call `second`** (201 s): 1 rows, 0 bad, 0 skipped. card H200, vllm 0.26.0.\n"
        "\n"
        "| part | step | figure | planned | measured | |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| llama | start | bytes awake |  | yes | as planned |\n"
    )


def test_a_call_after_one_that_was_killed_in_the_middle_of_a_line(tmp_path: Path) -> None:
    file = written(tmp_path / "rows.jsonl", "first", row(measured=1), end=False)
    with file.open("a") as half:
        half.write('{"line": "row", "call": "fi')
    assert len(read_calls([file])[0].rows) == 1
    written(file, "second", row(call="second", measured=2))
    first, second = read_calls([file])
    assert ([r.measured for r in first.rows], first.seconds) == ([1], None)
    assert ([r.measured for r in second.rows], second.seconds) == ([2], 201.4)


@pytest.mark.parametrize(
    "text", ["nonsense\n{}\n", '{"line": "row"}\n', '{"line": "end", "seconds": 1}\n', "[1]\n[2]\n"]
)
def test_a_file_that_is_no_file_of_rows_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    with pytest.raises(NoRows, match="is no row of gpu_check"):
        read_calls([file])


def test_each_row_is_on_the_disk_before_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    with RowFile(path) as file:
        for number in range(3):
            file.add(row(measured=number))
            assert json.loads(path.read_text().splitlines()[-1])["measured"] == number


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", ""),
        (2.345, "s", "2.35 s"),
        (-(1 << 30), "bytes", "-1.0 GiB"),
        (30 << 20, "bytes", "30 MiB"),
        (63.04, "GB/s", "63.0 GB/s"),
        (0, "", "0"),
        ("no", "text", "no"),
    ],
)
def test_figures_have_their_unit(value: float | str | None, unit: str, text: str) -> None:
    assert shown(value, unit) == text  # type: ignore[arg-type]


def test_the_command_prints_the_table_of_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "rows.jsonl", "third", row(measured=1))
    capsys.readouterr()
    assert gpu_check.main(["table", str(file)]) == 0
    assert "**Call `third`**" in capsys.readouterr().out
    assert gpu_check.main(["table", str(tmp_path / "nowhere.jsonl")]) == 2
    assert "cannot read rows" in capsys.readouterr().err


def test_the_help_says_what_each_call_takes_and_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu_check.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    for call in gpu_check.CALLS.values():
        assert f"within {call.seconds:.0f} s" in said
        assert call.about.split(":")[0] in said
