"""The store: what goes in comes back, one by one and in pages, and contradictions are refused."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.engine import Delta, Message
from jobs.records import Answer, Failure, Generator, Progress, Row, StoredCall, UsedCall, Verdict
from jobs.store import FILE, Store, StoreError, database, queries
from jobs.store.writer import Writer

MOA = Generator("moa", "mixture", "a1", {"layers": [["m", "n"]]})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as opened:
        opened.add_generator(MOA)
        yield opened


def row(index: int, *turns: str) -> Row:
    return Row(index, turns or (f"prompt {index}",))


def answer(index: int, turn: int = 0, text: str = "yes", *, generator: str = "moa") -> Answer:
    return Answer(generator, index, turn, text)


def verdict(index: int, **other: str) -> Verdict:
    pair = {"judge": "j", "kind": "pairwise", "generator": "moa", "baseline": "gpt", **other}
    return Verdict(**pair, row=index, turn=0, value=1.5)  # type: ignore[arg-type]


async def test_everything_comes_back_as_it_went_in(store: Store) -> None:
    before = (Message(role="system", content="Be brief."),)
    rich = Row(0, ("Grüße 👋", "a\x00b\nc"), before, "set", "math", ("one", "two"))
    token = {"token": "x", "logprob": -0.5, "top_logprobs": []}
    whole = Delta("text", "why", "length", 7, 9, (token,), 0.25)
    calls = [StoredCall(b"k1", "m", 2**62, whole), StoredCall(b"k2", "n", None, Delta("plain"))]
    used = (UsedCall(0, 0, "n", b"k2"), UsedCall(1, 1, "m", b"k1"))
    first = Answer("moa", 0, 0, "hi", used, ({"model": "n", "why": "late"},), "length", 1.5, 17e8)
    second = replace(first, turn=1, used=(), missing=())
    grade = Verdict("j", "grade", "moa", "", 0, 1, None, "no number", switched=True, call=b"k1")
    step = Progress(17e8, "moa", 1, 2, 3, 4, 5, 6)
    store.add_rows([rich])
    for call in calls:
        await store.keep_call(call)
    for each in (second, first):
        await store.keep_answer(each)
    await store.keep_verdict(grade)
    await store.keep_progress(step)
    store.set_about(set="x", limit=None)
    store.set_about(limit=[1])
    assert list(store.rows()) == [rich]
    assert [store.call(b"k1"), store.call(b"k2"), store.call(b"k3")] == [*calls, None]
    assert list(store.answers("moa")) == [first, second]
    assert [store.answer("moa", 0, 1), store.answer("moa", 1)] == [second, None]
    assert store.verdict("j", "grade", "moa", "", 0, 1) == grade
    assert store.progress("moa") == [step]
    assert store.progress("other") == []
    assert store.about() == {"set": "x", "limit": [1]}
    assert [store.generator("moa"), store.generator("x"), store.generators()] == [MOA, None, [MOA]]


def test_the_same_rows_again_are_no_news_and_others_are_refused(store: Store) -> None:
    rows = [row(index) for index in range(2 * queries.PAGE + 1)]
    store.add_rows(iter(rows))
    store.add_rows(iter(rows))
    with pytest.raises(StoreError, match=r"row 1 is stored with other content: .*prompt 1.*now.*other"):
        store.add_rows([row(1, "other")])
    assert list(store.rows()) == rows
    assert list(store.rows([7, 3])) == [rows[7], rows[3]]
    with pytest.raises(StoreError, match="no row 9999"):
        list(store.rows([9999]))


@pytest.mark.parametrize("other", [{"identity": "b2"}, {"kind": "model"}])
def test_a_name_stands_for_one_generator(store: Store, other: dict[str, str]) -> None:
    store.add_generator(replace(MOA, about={}))
    with pytest.raises(StoreError, match="'moa' is stored as another one: mixture 'a1'"):
        store.add_generator(replace(MOA, **other))  # type: ignore[arg-type]


def test_an_unknown_generator_is_named_with_the_known_ones(store: Store) -> None:
    with pytest.raises(StoreError, match=r"no generator 'moo' .*known: 'moa'"):
        store.answered_count("moo")


async def test_rows_are_pending_until_all_their_turns_are_answered(store: Store) -> None:
    count = 2 * queries.PAGE + 10
    store.add_rows(row(index, "one", "two") for index in range(count))
    store.add_answers(answer(index, turn) for index in range(3, count) for turn in (1, 0))
    await store.keep_answer(answer(1, 0))
    assert [each.index for each in store.pending_rows("moa")] == [0, 1, 2]
    await store.keep_answer(answer(1, 1))
    assert [each.index for each in store.pending_rows("moa")] == [0, 2]
    assert store.answered_count("moa") == count - 2
    assert sum(1 for _ in store.answers("moa")) == 2 * (count - 2)


async def test_a_second_answer_replaces_the_first(store: Store) -> None:
    store.add_rows([row(0)])
    await store.keep_answer(
        replace(answer(0), used=(UsedCall(1, 0, "m", b"k"), UsedCall(1, 1, "m", b"l")))
    )
    again = replace(answer(0, text="no"), used=(UsedCall(1, 0, "n", b"k"),))
    await store.keep_answer(again)
    assert list(store.answers("moa")) == [again]
    assert store.answered_count("moa") == 1


@pytest.mark.parametrize(
    ("wrong", "why"), [(answer(5), "there is no such row"), (answer(0, 1), r"the row has 1 turn\(s\)")]
)
async def test_an_answer_to_nothing_is_refused(store: Store, wrong: Answer, why: str) -> None:
    store.add_rows([row(0)])
    with pytest.raises(StoreError, match=why):
        await store.keep_answer(wrong)


async def test_failures_add_up_until_there_is_an_answer(store: Store) -> None:
    store.add_rows([row(0), row(1)])
    failed = Failure("generate", "moa", 0, "engine_error", "boom", at=1.0)
    judged = Failure("judge", "moa", 0, "timeout", "slow", judge="j", baseline="gpt")
    for each in (failed, judged, replace(failed, detail="bang"), replace(failed, row=1)):
        await store.keep_failure(each)
    assert store.failures("generate") == [
        replace(failed, detail="bang", attempts=2),
        replace(failed, row=1),
    ]
    await store.keep_answer(answer(0))
    assert store.failures(generator="moa") == [replace(failed, row=1), judged]
    await store.keep_verdict(verdict(0))
    assert store.failures() == [replace(failed, row=1)]


@pytest.mark.parametrize(
    "other", [{"judge": "k"}, {"baseline": "claude"}, {"turn": 0}, {"row": 1}, {"generator": "solo"}]
)
async def test_a_verdict_clears_its_own_failure_alone(store: Store, other: dict[str, Any]) -> None:
    failed = Failure("judge", "moa", 0, "timeout", "slow", judge="j", baseline="gpt", turn=1)
    others = replace(failed, **other)
    for each in (failed, others, failed):
        await store.keep_failure(each)
    await store.keep_verdict(replace(verdict(0), turn=1))
    assert store.failures("judge") == [others]


@pytest.mark.parametrize(
    "asked",
    [{}, {"judge": "j"}, {"judge": "k", "kind": "grade"}, {"generator": "moa"}, {"baseline": ""}],
)
async def test_verdicts_are_found_by_any_of_their_names(store: Store, asked: dict[str, str]) -> None:
    names = [{}, {"judge": "k", "kind": "grade", "baseline": ""}, {"generator": "solo"}]
    kept = [verdict(index, **name) for name in names for index in range(queries.PAGE + 1)]
    await asyncio.gather(*(store.keep_verdict(each) for each in [*kept, *kept]))
    found = list(store.verdicts(**asked))
    wanted = [v for v in kept if all(getattr(v, name) == value for name, value in asked.items())]
    assert found == sorted(wanted, key=lambda v: (v.judge, v.kind, v.generator, v.baseline, v.row))


@pytest.mark.parametrize(
    ("query", "given"),
    [
        (queries.PENDING, 2),
        (queries.ROWS, 1),
        (queries.ONE_ROW, 1),
        (queries.TURN_COUNT, 1),
        (queries.ONE_CALL, 1),
        (queries.ANSWERS, 3),
        (queries.ONE_ANSWER, 3),
        (queries.USED, 5),
        (queries.ANSWERED, 1),
        (queries.FORGET_FAILURE, 6),
        (queries.FORGET_USED, 3),
        (queries.verdicts_page(["judge", "kind", "generator", "baseline"])[0], 6),
        (queries.verdicts_page([])[0], 6),
    ],
)
def test_every_hot_query_goes_by_an_index(store: Store, query: str, given: int) -> None:
    with closing(sqlite3.connect(store.path)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", [1] * given).fetchall()
    steps = [step for *_, step in plan if "CORRELATED" not in step]
    assert steps
    assert [step for step in steps if not step.startswith("SEARCH ")] == []


async def test_writes_that_gather_are_committed_together(tmp_path: Path) -> None:
    connection = database.open_for_writing(tmp_path / FILE)
    ran: list[str] = []
    connection.set_trace_callback(ran.append)
    writer, hold = Writer(connection, tmp_path), threading.Event()
    first = asyncio.create_task(writer.write(lambda _: hold.wait()))
    rest = [asyncio.create_task(writer.write(lambda c: c.execute("SELECT 1"))) for _ in range(100)]
    await asyncio.sleep(0)
    hold.set()
    await asyncio.gather(first, *rest)
    writer.close()
    assert ran.count("SELECT 1") == 100
    assert ran.count("COMMIT") == 2


async def test_a_write_that_fails_fails_alone(store: Store) -> None:
    store.add_rows(row(index) for index in range(3))
    keeps = [store.keep_answer(answer(i, text="\ud800" if i == 1 else "yes")) for i in range(3)]
    first, second, third = await asyncio.gather(*keeps, return_exceptions=True)
    assert (first, third) == (None, None)
    assert isinstance(second, StoreError)
    assert f"cannot write to {store.path}: 'utf-8' codec can't encode" in str(second)
    assert [each.row for each in store.answers("moa")] == [0, 2]


def test_several_event_loops_write_at_once(store: Store) -> None:
    store.add_rows(row(index) for index in range(200))

    async def keep(indices: range) -> None:
        await asyncio.gather(*(store.keep_answer(answer(index)) for index in indices))

    starts = [threading.Thread(target=asyncio.run, args=[keep(range(n, 200, 4))]) for n in range(4)]
    for thread in starts:
        thread.start()
    for thread in starts:
        thread.join()
    assert store.answered_count("moa") == 200


async def test_closing_waits_for_what_is_queued(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    waiting = [
        asyncio.create_task(store.keep_call(StoredCall(b"%d" % n, "m", 0, Delta()))) for n in range(50)
    ]
    await asyncio.sleep(0)
    waiting[0].cancel()  # who does not wait any more does not take the write back
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.set_about(x=1)
    with Store.open(tmp_path, read_only=True) as again:
        assert all(again.call(b"%d" % n) for n in range(50))
    await asyncio.gather(*waiting[1:])


def test_a_store_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run in "):
        Store.open(tmp_path, read_only=True)
    Store.open(tmp_path).close()
    with Store.open(tmp_path, read_only=True) as store, pytest.raises(StoreError, match="reading only"):
        store.set_about(x=1)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("PRAGMA user_version = 7")
    for read_only in (False, True):
        with pytest.raises(StoreError, match="version 7; this program reads version 3"):
            Store.open(tmp_path, read_only=read_only)
    (tmp_path / FILE).write_text("no database at all" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(tmp_path)


def test_a_finished_run_can_be_read_where_nothing_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path) as store:
        store.set_about(set="x")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store.open(tmp_path, read_only=True) as store:
        assert store.about() == {"set": "x"}
        assert [file.name for file in tmp_path.iterdir()] == [FILE]


FULL = """
import asyncio, resource, sys
from pathlib import Path
from actors.engine import Delta
from jobs.records import StoredCall
from jobs.store import Store, StoreError
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with Store.open(Path(sys.argv[1])) as store:
    keep = lambda key, size: asyncio.run(store.keep_call(StoredCall(key, "m", 0, Delta("x" * size))))
    keep(b"before", 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        keep(b"large", 4_000_000)
    except StoreError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    keep(b"after", 1)
    print([store.call(key) is not None for key in (b"before", b"large", b"after")])
"""


def test_a_full_disk_is_told_to_the_caller_and_the_rest_stays_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0].startswith(f"cannot write to {tmp_path / FILE}: ")
    assert said[1:] == ["[True, False, True]"]
