"""The SQL of a run's store: statements, queries that read a page, and writes of several statements."""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
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
    answer_to_sql,
    generator_to_sql,
    marks,
    row_from_sql,
    row_to_sql,
    verdict_to_sql,
)
from jobs.store.writer import StoreError

PAGE = 500
"""A read or a write handles so many rows at most at a time."""

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
COMPLETE_ROW = "UPDATE rows SET reference_answers = ?, id = ?, temperature = ? WHERE idx = ?"
LATER: Mapping[str, Any] = {"references": (), "id": None, "temperature": None}
"""What a stored row may lack until its set is given once more, with the values of rows that lack it."""
HAS_TEMPERATURES = "SELECT EXISTS (SELECT 1 FROM rows WHERE temperature IS NOT NULL)"
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
"""The primary key of the table `verdicts`, in its order."""


def pages(values: Iterable[T]) -> Iterator[list[T]]:
    """Split values into lists of at most PAGE values. A list is read only when it is asked for."""
    rest = iter(values)
    while page := list(islice(rest, PAGE)):
        yield page


def condition(**given: Any) -> tuple[str, list[Any]]:
    """An SQL condition and its parameters.

    The condition holds where each column has its given value; a column with None may have any value.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    return " AND ".join(["TRUE", *(f"{name} = ?" for name in wanted)]), list(wanted.values())


def verdicts_page(given: Collection[str]) -> tuple[str, list[str]]:
    """Make a query that reads the next page of the verdicts with given values in some key columns.

    The query takes two groups of parameters, each in the order of VERDICT_KEY. First, the value of each
    given column. Second, for each other column of the key, its value in the last row of the page
    before; for the first page, a value below all others.

    Args:
        given: names of the columns of VERDICT_KEY whose value is given; not all of them.

    Returns:
        The query, and the names of the other columns of the key.
    """
    others = [name for name in VERDICT_KEY if name not in given]
    where = " AND ".join([*(f"{name} = ?" for name in VERDICT_KEY if name in given), ""])
    after = f"({', '.join(others)}) > ({marks(','.join(others))})"
    key = ", ".join(VERDICT_KEY)
    return f"SELECT {VERDICT} FROM verdicts WHERE {where}{after} ORDER BY {key} LIMIT {PAGE}", others


def add_rows(connection: sqlite3.Connection, rows: Iterable[Row], *, corrects: bool = False) -> None:
    """Add rows. Adding a row that is stored already changes nothing, but for reference answers, an id
    and a temperature that the stored row lacks.

    Args:
        connection: a connection to the store's database.
        rows: the rows.
        corrects: whether other reference answers take the place of the stored ones.

    Raises:
        StoreError: a row with other content is stored under the same index.
    """
    for row in rows:
        sql_row = row_to_sql(row)
        if connection.execute(ADD_ROW, (*sql_row, len(row.turns))).rowcount == 0:
            stored = row_from_sql(connection.execute(ONE_ROW, (row.index,)).fetchone())
            if stored == row:
                continue
            lacks = {name: none for name, none in LATER.items() if getattr(stored, name) == none}
            if corrects:
                lacks["references"] = stored.references
            if stored == replace(row, **lacks):
                connection.execute(COMPLETE_ROW, (*sql_row[-3:], row.index))
            else:
                raise StoreError(f"row {row.index} is stored with other content: {stored}, now {row}")


def add_generator(connection: sqlite3.Connection, generator: Generator) -> None:
    """Add a generator. Adding a generator that is stored already changes nothing.

    Raises:
        StoreError: the name belongs to a generator of another kind or identity.
    """
    sql_row = generator_to_sql(generator)
    added = connection.execute(ADD_GENERATOR, sql_row).rowcount
    stored = connection.execute(ONE_GENERATOR, (generator.name,)).fetchone()
    if not added and stored[:3] != sql_row[:3]:
        raise StoreError(
            f"generator {generator.name!r} is stored as another one: {stored[1]} {stored[2]!r}, "
            f"now {generator.kind} {generator.identity!r}"
        )


def keep_answers(connection: sqlite3.Connection, answers: Iterable[tuple[int, Answer]]) -> None:
    """Store many answers, each as `keep_answer` does. Each answer comes with its generator's id."""
    for generator, answer in answers:
        keep_answer(connection, generator, answer)


def keep_answer(connection: sqlite3.Connection, generator: int, answer: Answer) -> None:
    """Store an answer in place of an earlier answer, and remove the row's `generate` failure.

    Args:
        connection: a connection to the store's database.
        generator: the id of the generator; `answer` has its name.
        answer: the answer to store.

    Raises:
        StoreError: there is no such row, or the row has no such turn.
    """
    turns = connection.execute(TURN_COUNT, (answer.row,)).fetchone()
    if turns is None or not 0 <= answer.turn < turns[0]:
        raise StoreError(
            f"answer of {answer.generator!r} to row {answer.row}, turn {answer.turn}: "
            + ("there is no such row" if turns is None else f"the row has {turns[0]} turn(s), from 0")
        )
    key = (generator, answer.row, answer.turn)
    connection.execute(KEEP_ANSWER, (generator, *answer_to_sql(answer)))
    connection.execute(FORGET_USED, key)
    used = [(*key, call.layer, call.place, call.model, call.key) for call in answer.used]
    connection.executemany(KEEP_USED, used)
    connection.execute(FORGET_FAILURE, ("generate", answer.generator, answer.row, "", "", 0))


def keep_verdict(connection: sqlite3.Connection, verdict: Verdict) -> None:
    """Store a verdict in place of an earlier verdict, and remove the stored failure of this verdict."""
    connection.execute(KEEP_VERDICT, verdict_to_sql(verdict))
    judged = (verdict.generator, verdict.row, verdict.judge, verdict.baseline, verdict.turn)
    connection.execute(FORGET_FAILURE, ("judge", *judged))
