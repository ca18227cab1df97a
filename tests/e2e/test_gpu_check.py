"""The check of a card in small: its three calls on this CPU, with llama.cpp and real weights."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.real_cards.rows import read_calls, table
from tests.e2e import processes

pytestmark = pytest.mark.weights

ROOT = Path(__file__).parents[2]
CHECK = [sys.executable, "-m", "benchmarks.real_cards.gpu_check"]
TINY = ["--tiny", "--engine", "llamacpp", "--out"]


@pytest.mark.slow
def test_the_three_calls_measure_every_step(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CHECK, *TINY, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    calls = read_calls([tmp_path / "rows.jsonl"])
    rows = [row for call in calls for row in call.rows]
    assert [(row.step, row.note) for row in rows if row.kind != "row"] == []
    assert [f"{row.part}: {row.step}: {row.what}" for row in rows if row.good is False] == []
    assert done.returncode == 0, done.stderr
    assert [call.name for call in calls if call.seconds is not None] == ["first", "second", "third"]
    measured = {(row.call, row.what) for row in rows if row.measured is not None}
    assert measured >= {
        ("first", "bytes awake"),
        ("first", "bytes left on the card"),
        ("first", "seconds to wake"),
        ("first", "same answer as before sleep"),
        ("first", "seconds until its memory was back"),
        ("second", "b, 2 sequences, both at once"),
        ("second", "a: longest gap meanwhile"),
        ("third", "whole answers"),
        ("third", "seconds until the next answer"),
        ("third", "seconds until an answer of all models"),
    }
    assert table(calls).count("**Call") == 3


def test_a_check_killed_halfway_leaves_its_rows_and_no_process(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"

    def has_slept() -> bool:
        return file.exists() and '"step": "sleep"' in file.read_text()

    with subprocess.Popen([*CHECK, "first", *TINY, str(tmp_path)], cwd=ROOT) as check:
        try:
            processes.until(has_slept, within_s=200)
            held = list(processes.below(check.pid))
        finally:
            check.send_signal(signal.SIGKILL)
    (call,) = read_calls([file])
    assert call.seconds is None
    steps = {row.step for row in call.rows if row.kind == "row"}
    assert {"start", "sleep"} <= steps
    assert "stop" not in steps
    assert held
    processes.until(lambda: not any(map(is_alive, held)), within_s=5)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_a_call_without_time_says_what_it_skipped(tmp_path: Path) -> None:
    """A call that has no time left still says so in rows that a program can read."""
    command = [*CHECK, "first", "--seconds", "1", *TINY, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()
    ]
    assert [line["line"] for line in lines] == ["begin", *["row"] * (len(lines) - 2), "end"]
    assert {line["kind"] for line in lines[1:-1]} == {"skipped"}
