"""A run's SQLite file: its tables, and how it is made and opened.

Texts are plain TEXT, so that the file can be read with the sqlite3 program; the view `proposals` shows
every call behind an answer beside its text.
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from jobs.store.writer import StoreError

VERSION = 2
BUSY_S = 30.0
CACHE_KIB = 32 * 1024
# Keys are hashes, so calls touch pages all over their index: the more of them one checkpoint carries
# over, the less each costs. 64 MB beside the store.
CHECKPOINT_PAGES = 16_000

# Long texts live in rowid tables, which are appended to; their keys are in an index of their own, so
# that counting and finding reads no text. Small records are stored in the index itself.
SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (
    idx INTEGER PRIMARY KEY, turns TEXT NOT NULL, turn_count INTEGER NOT NULL, before TEXT,
    dataset TEXT NOT NULL, category TEXT NOT NULL, reference_answers TEXT
);
CREATE TABLE generators (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, identity TEXT NOT NULL,
    about TEXT NOT NULL, answered INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, model TEXT NOT NULL, seed INTEGER,
    text TEXT NOT NULL, reasoning TEXT NOT NULL, finish_reason TEXT, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, logprobs TEXT, engine_s REAL NOT NULL
);
CREATE TABLE answers (
    generator INTEGER NOT NULL REFERENCES generators (id), row INTEGER NOT NULL REFERENCES rows (idx),
    turn INTEGER NOT NULL, text TEXT NOT NULL, missing TEXT, finish_reason TEXT NOT NULL,
    seconds REAL NOT NULL, at REAL NOT NULL, PRIMARY KEY (generator, row, turn)
);
CREATE TRIGGER answered AFTER INSERT ON answers
WHEN (SELECT count(*) FROM answers WHERE generator = NEW.generator AND row = NEW.row)
   = (SELECT turn_count FROM rows WHERE idx = NEW.row)
BEGIN
    UPDATE generators SET answered = answered + 1 WHERE id = NEW.generator;
END;
CREATE TABLE used (
    generator INTEGER NOT NULL, row INTEGER NOT NULL, turn INTEGER NOT NULL, layer INTEGER NOT NULL,
    place INTEGER NOT NULL, model TEXT NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (generator, row, turn, layer, place)
) WITHOUT ROWID;
CREATE TABLE failures (
    stage TEXT NOT NULL, generator TEXT NOT NULL, row INTEGER NOT NULL, cause TEXT NOT NULL,
    detail TEXT NOT NULL, attempts INTEGER NOT NULL, at REAL NOT NULL, judge TEXT NOT NULL,
    baseline TEXT NOT NULL, turn INTEGER NOT NULL,
    PRIMARY KEY (stage, generator, row, judge, baseline, turn)
) WITHOUT ROWID;
CREATE TABLE verdicts (
    judge TEXT NOT NULL, kind TEXT NOT NULL, generator TEXT NOT NULL, baseline TEXT NOT NULL,
    row INTEGER NOT NULL, turn INTEGER NOT NULL, value REAL, cause TEXT NOT NULL,
    switched INTEGER NOT NULL, call BLOB,
    PRIMARY KEY (judge, kind, generator, baseline, row, turn)
) WITHOUT ROWID;
CREATE TABLE progress (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, generator TEXT NOT NULL, rows INTEGER NOT NULL,
    failed INTEGER NOT NULL, tokens INTEGER NOT NULL, calls INTEGER NOT NULL, reused INTEGER NOT NULL,
    swaps INTEGER NOT NULL
);
CREATE INDEX progress_of ON progress (generator, id);
CREATE VIEW proposals AS
SELECT generators.name AS generator, used.row, used.turn, used.layer, used.place, used.model,
       calls.text, calls.reasoning, calls.prompt_tokens, calls.completion_tokens
FROM used JOIN generators ON generators.id = used.generator LEFT JOIN calls ON calls.key = used.key;
"""


def made(path: Path) -> sqlite3.Connection:
    """A connection that writes durably, for another thread; the file is made if it is not there.

    Raises:
        StoreError: the file is of another version.
        sqlite3.Error: it is no SQLite file, or cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute("BEGIN IMMEDIATE")  # two may come at once; killed here, nothing is made
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
            for statement in _statements():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        _check_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads, from any thread, also while another process writes.

    Raises:
        StoreError: the file is of another version.
        sqlite3.Error: it is no SQLite file, or cannot be read.
    """
    # In a folder that may not be written SQLite cannot make the files beside it through which readers
    # and a writer agree; if they are not there, nobody writes and none is needed.
    alone = not os.access(path.parent, os.W_OK) and not path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    connection = sqlite3.connect(uri, BUSY_S, isolation_level=None, check_same_thread=False, uri=True)
    try:
        _check_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != VERSION:
        raise StoreError(f"{path} is a store of version {found}; this program reads version {VERSION}")


def _statements() -> Iterator[str]:
    """The schema, one statement after another: a script would commit in between."""
    statement = ""
    for line in SCHEMA.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
