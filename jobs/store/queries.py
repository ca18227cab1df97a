"""What is asked of a run's SQLite file, and the writes that take more than one statement."""

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from jobs.records import Answer, Generator, Row, Verdict
from jobs.store.tables import (
    ANSWER,
    CALL,
    FAILURE,
    GENERATOR,
    PROGRESS,
    ROW,
    VERDICT,
    answer_record,
    generator_record,
    marks,
    row_of,
    row_record,
    verdict_record,
)
from jobs.store.writer import StoreError

PAGE = 500
T = TypeVar("T")

ABOUT = "SELECT name, value FROM about"
SET_ABOUT = "INSERT OR REPLACE INTO about VALUES (?, ?)"
PENDING = f"""SELECT {ROW} FROM rows WHERE idx > ? AND turn_count >
(SELECT count(*) FROM answers WHERE generator = ? AND row = rows.idx) ORDER BY idx LIMIT {PAGE}"""
ROWS = f"SELECT {ROW} FROM rows WHERE idx > ? ORDER BY idx LIMIT {PAGE}"
ONE_ROW = f"SELECT {ROW} FROM rows WHERE idx = ?"
ONE_CALL = f"SELECT {CALL} FROM calls WHERE key = ?"
ANSWERS = f"""SELECT {ANSWER} FROM answers
WHERE generator = ? AND (row, turn) > (?, ?) ORDER BY row, turn LIMIT {PAGE}"""
ONE_ANSWER = f"SELECT {ANSWER} FROM answers WHERE generator = ? AND row = ? AND turn = ?"
USED = """SELECT row, turn, layer, place, model, key FROM used
WHERE generator = ? AND (row, turn) BETWEEN (?, ?) AND (?, ?)"""
ADD_ROW = f"""INSERT INTO rows ({ROW}, turn_count)
VALUES ({marks(ROW)}, ?) ON CONFLICT DO NOTHING"""
ADD_GENERATOR = f"""INSERT INTO generators ({GENERATOR})
VALUES ({marks(GENERATOR)}) ON CONFLICT DO NOTHING"""
ONE_GENERATOR = f"SELECT {GENERATOR} FROM generators WHERE name = ?"
GENERATORS = f"SELECT {GENERATOR} FROM generators ORDER BY id"
ONE_ID = "SELECT id FROM generators WHERE name = ?"
ANSWERED = "SELECT answered FROM generators WHERE id = ?"
TURN_COUNT = "SELECT turn_count FROM rows WHERE idx = ?"
KEEP_CALL = f"""INSERT INTO calls ({CALL})
VALUES ({marks(CALL)}) ON CONFLICT DO NOTHING"""
KEEP_ANSWER = f"""INSERT INTO answers (generator, {ANSWER})
VALUES (?, {marks(ANSWER)}) ON CONFLICT DO UPDATE SET text = excluded.text,
missing = excluded.missing, finish_reason = excluded.finish_reason, seconds = excluded.seconds,
at = excluded.at"""
FORGET_USED = "DELETE FROM used WHERE generator = ? AND row = ? AND turn = ?"
KEEP_USED = "INSERT INTO used VALUES (?, ?, ?, ?, ?, ?, ?)"
FORGET_FAILURE = """DELETE FROM failures
WHERE stage = ? AND generator = ? AND row = ? AND judge = ? AND baseline = ? AND turn = ?"""
KEEP_FAILURE = f"""INSERT INTO failures VALUES ({marks(FAILURE)})
ON CONFLICT DO UPDATE SET cause = excluded.cause, detail = excluded.detail, at = excluded.at,
attempts = attempts + excluded.attempts"""
KEEP_VERDICT = f"INSERT OR REPLACE INTO verdicts VALUES ({marks(VERDICT)})"
JUDGEMENTS = "SELECT DISTINCT judge, kind, baseline FROM verdicts ORDER BY judge, kind, baseline"
KEEP_PROGRESS = f"INSERT INTO progress ({PROGRESS}) VALUES ({marks(PROGRESS)})"

VERDICT_KEY = ("judge", "kind", "generator", "baseline", "row", "turn")


def paged(values: Iterable[T]) -> Iterator[list[T]]:
    """Values in lists of at most a page."""
    rest = iter(values)
    while page := list(islice(rest, PAGE)):
        yield page


def where(**given: Any) -> tuple[str, list[Any]]:
    """A condition on the columns that have a value, and those values."""
    wanted = {name: value for name, value in given.items() if value is not None}
    return " AND ".join(["TRUE", *(f"{name} = ?" for name in wanted)]), list(wanted.values())


def verdicts(given: Collection[str]) -> tuple[str, list[str]]:
    """A page of verdicts with values for the columns `given`, and the key's other columns.

    Its parameters: a value for each given column, then where to go on for each other one.
    """
    left = [name for name in VERDICT_KEY if name not in given]
    where = " AND ".join([*(f"{name} = ?" for name in VERDICT_KEY if name in given), ""])
    after = f"({', '.join(left)}) > ({marks(','.join(left))})"
    key = ", ".join(VERDICT_KEY)
    return f"SELECT {VERDICT} FROM verdicts WHERE {where}{after} ORDER BY {key} LIMIT {PAGE}", left


def add_rows(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Raises StoreError if another row has the index of one."""
    for row in rows:
        if connection.execute(ADD_ROW, (*row_record(row), len(row.turns))).rowcount == 0:
            stored = row_of(connection.execute(ONE_ROW, (row.index,)).fetchone())
            if stored != row:
                raise StoreError(f"row {row.index} is stored with other content: {stored}, now {row}")


def add_generator(connection: sqlite3.Connection, generator: Generator) -> None:
    """Raises StoreError if another generator has the name."""
    record = generator_record(generator)
    added = connection.execute(ADD_GENERATOR, record).rowcount
    stored = connection.execute(ONE_GENERATOR, (generator.name,)).fetchone()
    if not added and stored[:3] != record[:3]:
        raise StoreError(
            f"generator {generator.name!r} is stored as another one: {stored[1]} {stored[2]!r}, "
            f"now {generator.kind} {generator.identity!r}"
        )


def keep_answers(connection: sqlite3.Connection, answers: Iterable[tuple[int, Answer]]) -> None:
    """Answers, each with its generator's id."""
    for generator, answer in answers:
        keep_answer(connection, generator, answer)


def keep_answer(connection: sqlite3.Connection, generator: int, answer: Answer) -> None:
    """Replaces an earlier answer. Raises StoreError if the row has no such turn."""
    turns = connection.execute(TURN_COUNT, (answer.row,)).fetchone()
    if turns is None or not 0 <= answer.turn < turns[0]:
        raise StoreError(
            f"answer of {answer.generator!r} to row {answer.row}, turn {answer.turn}: "
            + ("there is no such row" if turns is None else f"the row has {turns[0]} turn(s), from 0")
        )
    which = (generator, answer.row, answer.turn)
    connection.execute(KEEP_ANSWER, (generator, *answer_record(answer)))
    connection.execute(FORGET_USED, which)
    used = [(*which, call.layer, call.place, call.model, call.key) for call in answer.used]
    connection.executemany(KEEP_USED, used)
    connection.execute(FORGET_FAILURE, ("generate", answer.generator, answer.row, "", "", 0))


def keep_verdict(connection: sqlite3.Connection, verdict: Verdict) -> None:
    """Replaces the judge's earlier verdict."""
    connection.execute(KEEP_VERDICT, verdict_record(verdict))
    which = (verdict.generator, verdict.row, verdict.judge, verdict.baseline, verdict.turn)
    connection.execute(FORGET_FAILURE, ("judge", *which))
