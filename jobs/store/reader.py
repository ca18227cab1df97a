"""Reads from one SQLite file, whole or page by page."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jobs.store.tables import SqlRow
from jobs.store.writer import StoreError


class Reader:
    """Executes queries on a connection, from any thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """A reader over an open connection to the file `path`, which error messages name."""
        self._connection = connection
        self._path = path

    def read(self, query: str, *given: Any) -> list[SqlRow]:
        """All rows of a query with these parameters.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            return self._connection.execute(query, given).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self._path}: {error}") from error

    def read_one(self, query: str, *given: Any) -> SqlRow | None:
        """The first row of a query; None if the query has no row."""
        return next(iter(self.read(query, *given)), None)

    def read_pages(
        self, query: str, after: Callable[[SqlRow], Sequence[Any]], given: Sequence[Any]
    ) -> Iterator[SqlRow]:
        """All rows of a query that reads one page at a time.

        Args:
            query: A query that reads one page.
            after: Returns the parameters of the next page from the last row of a page.
            given: The parameters of the first page.
        """
        while page := self.read(query, *given):
            yield from page
            given = after(page[-1])

    def close(self) -> None:
        self._connection.close()
