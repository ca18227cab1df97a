"""Two minutes of load while one process of every kind is killed, on a simulated cluster."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.faults.chaos import ANSWERED
from benchmarks.faults.chaos_cluster import KINDS

ALLOWED_TO_MISS = {ANSWERED}
"""Seven kills in two minutes break more than the limit, which is for half an hour, allows; and while
one of two nodes is away, the load is more than the other can carry, so a part is refused."""
AVAILABLE = 0.75


def test_no_kill_makes_an_answer_wrong_a_request_hang_or_a_slot_leak(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    # With this seed the node, whose requests take longest to end, is killed first.
    command = [sys.executable, "-m", "benchmarks.faults.chaos", "--minutes", "2", "--cards", "2"]
    done = subprocess.run(
        [*command, "--pause-s", "2", "--seed", "2", "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )
    said = done.stdout + done.stderr
    assert file.exists(), said
    figures = json.loads(file.read_text("utf-8"))
    missed = {limit["name"] for limit in figures["limits"] if not limit["held"]}
    assert missed <= ALLOWED_TO_MISS, said
    rows = {row["killed"]: row for row in figures["rows"]}
    assert set(KINDS) <= set(rows), said
    assert rows["all"]["retried"] > AVAILABLE, said
