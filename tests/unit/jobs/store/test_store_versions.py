"""Runs that were made before rows had ids and temperatures."""

import sqlite3
from pathlib import Path

import pytest

from jobs.records import Answer, Generator, Row
from jobs.store import FILE, Store, StoreError

OLD = [Row(0, ("a", "b"), dataset="d", category="math", references=("r", "s")), Row(1, ("c",))]
NEW = [
    Row(0, ("a", "b"), dataset="d", category="math", references=("r", "s"), id=81, temperature=0.0),
    Row(1, ("c",), id="x"),
]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A run of the version without ids, with an answer."""
    with Store.open(tmp_path) as store:
        store.add_rows(OLD)
        store.add_generator(Generator("g", "file", "1"))
        store.add_answers([Answer("g", 1, 0, "C")])
    with sqlite3.connect(tmp_path / FILE) as connection:
        for column in ("id", "temperature"):
            connection.execute(f"ALTER TABLE rows DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    return tmp_path


def test_an_older_run_is_read_without_a_change(old: Path) -> None:
    with Store.open(old, read_only=True) as store:
        assert list(store.rows()) == OLD
        assert list(store.rows([1])) == OLD[1:]
        assert [row.index for row in store.pending_rows("g")] == [0]
        assert not store.has_temperatures()
    connection = sqlite3.connect(old / FILE)
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


def test_an_older_run_goes_on_and_its_set_adds_the_ids(old: Path) -> None:
    with Store.open(old) as store:
        assert list(store.rows()) == OLD
        assert store.answered_count("g") == 1
        store.add_rows(NEW)
        assert list(store.rows()) == NEW
        store.add_rows(NEW)
    with Store.open(old, read_only=True) as store:
        assert list(store.rows()) == NEW


def test_ids_that_are_stored_do_not_change(old: Path) -> None:
    with Store.open(old) as store:
        store.add_rows(NEW)
        with pytest.raises(StoreError, match="row 1 is stored with other content"):
            store.add_rows([Row(1, ("c",), id="y")])
        with pytest.raises(StoreError, match="row 1 is stored with other content"):
            store.add_rows([Row(1, ("c",))])


def test_right_answers_are_added_to_a_row_and_corrected_only_where_that_is_allowed(
    tmp_path: Path,
) -> None:
    def row(*references: str) -> Row:
        return Row(0, ("2 + 2?",), references=references)

    with Store.open(tmp_path) as store:
        store.add_rows([row()])
        store.add_rows([row("5")])
        assert list(store.rows()) == [row("5")]
        with pytest.raises(StoreError, match="row 0 is stored with other content"):
            store.add_rows([row("4")])
        store.add_rows([row("4", "four")], corrects=True)
        assert list(store.rows()) == [row("4", "four")]
        with pytest.raises(StoreError, match="row 0 is stored with other content"):
            store.add_rows([Row(0, ("3 + 3?",), references=("4",))], corrects=True)
