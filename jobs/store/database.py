"""A run's SQLite file: its tables, and connections that create, write or read it.

Texts are plain TEXT, so that people can read the file with the sqlite3 program. The view `proposals`
joins every answer's calls with their texts.
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from jobs.store.writer import StoreError

VERSION = 3
"""Version of the tables. A file of another version is refused, except for one of WITHOUT_IDS."""

WITHOUT_IDS = 2
"""Version of stores whose rows have neither ids nor temperatures. A writing connection adds the
columns, and a reading connection shows them empty."""

BUSY_S = 30.0
"""Seconds that SQLite waits for a lock that another process holds."""

CACHE_KIB = 32 * 1024
"""Size of the writing connection's page cache."""

CHECKPOINT_PAGES = 16_000
"""A checkpoint begins when the write-ahead log has so many pages, 64 MB. Keys are hashes, so new calls
change pages all over their index: the more calls share one checkpoint, the fewer pages are written per
call."""

# Tables with long texts are rowid tables with a separate index over their keys: rows are appended, and
# counting or finding a row reads no text. The other tables are WITHOUT ROWID: their rows are small and
# stored in the index itself.
SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows (
    idx INTEGER PRIMARY KEY, turns TEXT NOT NULL, turn_count INTEGER NOT NULL, before TEXT,
    dataset TEXT NOT NULL, category TEXT NOT NULL, reference_answers TEXT, id TEXT, temperature REAL
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


def open_for_writing(path: Path) -> sqlite3.Connection:
    """A connection whose commits are durable and that any thread may use; a missing file is created.

    Raises:
        StoreError: the file has another version of the tables.
        sqlite3.Error: the file is not an SQLite file, or cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        # One transaction: two processes may come at once, and either may be killed here.
        connection.execute("BEGIN IMMEDIATE")
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
            for statement in _statements():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        elif _version(connection) == WITHOUT_IDS:
            connection.execute("ALTER TABLE rows ADD COLUMN id TEXT")
            connection.execute("ALTER TABLE rows ADD COLUMN temperature REAL")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        _check_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that only reads, from any thread, also while another process writes.

    Raises:
        StoreError: the file has another version of the tables.
        sqlite3.Error: the file is not an SQLite file, or cannot be read.
    """
    # Readers and the writer coordinate through files beside the store. In a read-only folder SQLite
    # cannot create those files; if they do not exist, nobody writes and `immutable` skips them.
    has_log = path.with_name(f"{path.name}-wal").exists()
    immutable = not os.access(path.parent, os.W_OK) and not has_log
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}"
    connection = sqlite3.connect(uri, BUSY_S, isolation_level=None, check_same_thread=False, uri=True)
    try:
        if _version(connection) == WITHOUT_IDS:
            # A temporary view hides the table of the same name, also where nothing can be written.
            view = "CREATE TEMP VIEW rows AS SELECT *, NULL AS id, NULL AS temperature FROM main.rows"
            connection.execute(view)
        else:
            _check_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    found = _version(connection)
    if found != VERSION:
        raise StoreError(f"{path} is a store of version {found}; this program reads version {VERSION}")


def _statements() -> Iterator[str]:
    """The statements of the schema one by one; `executescript` would commit between them."""
    statement = ""
    for line in SCHEMA.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
