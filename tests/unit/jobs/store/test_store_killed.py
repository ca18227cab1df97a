"""What a SIGKILL leaves of a store: a real process is killed while it writes."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from jobs.store import Store

ROWS = 3000
WRITE = f"""
import asyncio, os, sys
from pathlib import Path
from actors.engine import Delta
from jobs.records import Answer, StoredCall, Generator, Row, UsedCall
from jobs.store import Store

def say(text):
    os.write(1, (text + "\\n").encode())

async def lane(store, rows):
    for row in rows:
        keys = [b"%d/%d" % (row.index, place) for place in range(2)]
        for key in keys:
            await store.keep_call(StoredCall(key, "m", 0, Delta("word " * 200)))
            say("call " + key.decode())
        used = tuple(UsedCall(1, place, "m", key) for place, key in enumerate(keys))
        await store.keep_answer(Answer("moa", row.index, 0, "text", used))
        say(f"answer {{row.index}}")

async def main():
    say("start")
    with Store.open(Path(sys.argv[1])) as store:
        say("opened")
        store.add_generator(Generator("moa", "mixture", "a1"))
        store.add_rows(Row(index, (f"prompt {{index}}",)) for index in range({ROWS}))
        rows = store.pending_rows("moa")
        await asyncio.gather(*(lane(store, rows) for _ in range(16)))
        say("done")

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 2, 3, 20, 150, 1000])
def test_what_was_acknowledged_survives_and_nothing_is_half_there(tmp_path: Path, after: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child:
        said = [child.stdout.readline().split() for _ in range(after)]
        child.send_signal(signal.SIGKILL)
        said += [line.split() for line in child.stdout]
    assert ["done"] not in said
    calls = {line[1].encode() for line in said if line[0] == "call"}
    answers = {int(line[1]) for line in said if line[0] == "answer"}
    with Store.open(tmp_path) as store:
        with closing(sqlite3.connect(store.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert {key for key in calls if store.call(key) is None} == set()
        if not store.generators():
            assert answers == set()
            return
        found = list(store.answers("moa"))
        assert answers <= {each.row for each in found}
        assert store.answered_count("moa") == len(found)
        assert all(store.call(used.key) for each in found for used in each.used)
        assert {len(each.used) for each in found} <= {2}
        pending = {row.index for row in store.pending_rows("moa")}
        assert pending == set(range(store.row_count())) - {each.row for each in found}


def test_another_process_reads_while_a_run_writes(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child:
        answered = next(line.split()[1] for line in child.stdout if line.startswith("answer"))
        with Store.open(tmp_path, read_only=True) as store:
            assert store.row_count() == ROWS
            assert store.answer("moa", int(answered)) is not None
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
