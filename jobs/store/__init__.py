"""All of a run in one SQLite file: rows, calls, answers, failures, verdicts, progress.

When a `keep_*` method returns, its value is on the disk and survives a SIGKILL or a power cut. Single
values are found by an index; rows, answers and verdicts are read in pages. So the time to find a value
and the memory do not grow with the number of rows, and no reader holds up the file's checkpoints. Only
the lists of generators, failures and progress are read whole. A second process may read while a run
writes.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jobs.records import Answer, Failure, Generator, Progress, Row, StoredCall, UsedCall, Verdict
from jobs.store import database, queries, tables
from jobs.store.reader import Reader
from jobs.store.tables import SqlRow
from jobs.store.writer import Action, StoreError, Writer

__all__ = ["FILE", "Store", "StoreError", "no_run"]

FILE = "run.sqlite"
"""Name of the file in the run's folder."""

NAME_RUN = "give a folder that `slimmoa bench run --out` made"


def no_run(folder: Path) -> str:
    """What is said of a folder that holds no run."""
    return (
        f"no run in {folder}: there is no {FILE} in it; `slimmoa bench run --out {folder}` makes a run"
    )


class Store:
    """A run's store. Use it as a context manager: closing waits for all queued writes.

    A write that contradicts what is stored, or that the disk refuses, raises StoreError in its caller.
    So does a read or write of answers if the store has no such generator. Reads may come from any
    thread.
    """

    def __init__(self, path: Path, reader: Reader, writer: Writer | None) -> None:
        """The store in the file `path`; without a writer it is open for reading only."""
        self.path = path
        self._reader = reader
        self._writer = writer
        self._ids: dict[str, int] = {}

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False) -> Self:
        """Open the store of a run folder. A missing store is created, unless `read_only`.

        Raises:
            StoreError: there is no store to read, it has another version, or it is no SQLite file.
        """
        path = folder / FILE
        if read_only and not path.is_file():
            raise StoreError(no_run(folder))
        try:
            # First the writer's: it creates a missing file.
            writing = None if read_only else database.open_for_writing(path)
            reader = Reader(database.open_for_reading(path), path)
            return cls(path, reader, None if writing is None else Writer(writing, path))
        except sqlite3.Error as error:
            if "not a database" in str(error):
                raise StoreError(f"cannot open {path}: it is not a database; {NAME_RUN}") from error
            raise StoreError(f"cannot open {path}: {error}; is it the file of a run?") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store; return when all queued writes are on the disk."""
        # The reader first: the last connection to close merges the files beside the store into it.
        self._reader.close()
        if self._writer is not None:
            self._writer.close()

    def about(self) -> dict[str, Any]:
        """All values that `set_about` stored, by name."""
        return {name: json.loads(value) for name, value in self._reader.read(queries.ABOUT)}

    def set_about(self, **values: Any) -> None:
        """Store JSON values by name. An earlier value of the same name is replaced."""
        pairs = [(name, json.dumps(value, ensure_ascii=False)) for name, value in values.items()]
        self._write_now(lambda c: c.executemany(queries.SET_ABOUT, pairs))

    def add_rows(self, rows: Iterable[Row], *, corrects: bool = False) -> None:
        """Add a set's rows, streamed. Adding a row that is stored already changes nothing, but for
        reference answers, an id and a temperature that the stored row lacks. With `corrects`, other
        reference answers take the place of the stored ones.

        Raises:
            StoreError: a row with other content is stored under the same index. The pages of rows
                before that row's page are stored nevertheless.
        """
        for page in queries.pages(rows):
            self._write_now(partial(queries.add_rows, rows=page, corrects=corrects))

    def rows(self, indices: Iterable[int] | None = None) -> Iterator[Row]:
        """All rows in the order of the set, or the rows of `indices` in the order given.

        Raises:
            StoreError: there is no row with one of `indices`.
        """
        if indices is None:
            found = self._reader.read_pages(queries.ROWS, lambda last: (last[0],), (-1,))
            yield from map(tables.row_from_sql, found)
            return
        for index in indices:
            if (sql_row := self._reader.read_one(queries.ONE_ROW, index)) is None:
                raise StoreError(f"there is no row {index} in {self.path}")
            yield tables.row_from_sql(sql_row)

    def row_count(self) -> int:
        return int(self._reader.read("SELECT count(*) FROM rows")[0][0])

    def has_temperatures(self) -> bool:
        """Whether the set gives a row a temperature of its own."""
        return bool(self._reader.read(queries.HAS_TEMPERATURES)[0][0])

    def pending_rows(self, generator: str) -> Iterator[Row]:
        """The rows that have a turn without an answer of `generator`, in the order of the set.

        Each page of rows is read when the iteration reaches it. So a row that is answered before its
        page is read is left out.
        """
        number = self._id(generator)
        found = self._reader.read_pages(queries.PENDING, lambda last: (last[0], number), (-1, number))
        yield from map(tables.row_from_sql, found)

    def add_generator(self, generator: Generator) -> None:
        """Add a generator. Adding a generator that is stored already changes nothing.

        Raises:
            StoreError: the name belongs to a generator of another kind or identity.
        """
        self._write_now(lambda c: queries.add_generator(c, generator))

    def generators(self) -> list[Generator]:
        """All generators in the order in which they were added."""
        return [tables.generator_from_sql(sql_row) for sql_row in self._reader.read(queries.GENERATORS)]

    def generator(self, name: str) -> Generator | None:
        sql_row = self._reader.read_one(queries.ONE_GENERATOR, name)
        return None if sql_row is None else tables.generator_from_sql(sql_row)

    def call(self, key: bytes) -> StoredCall | None:
        sql_row = self._reader.read_one(queries.ONE_CALL, key)
        return None if sql_row is None else tables.call_from_sql(sql_row)

    async def keep_call(self, call: StoredCall) -> None:
        """Store a call. If a call is stored under the same key already, that call stays as it is."""
        sql_row = tables.call_to_sql(call)
        await self._write(lambda c: c.execute(queries.KEEP_CALL, sql_row))

    async def keep_answer(self, answer: Answer) -> None:
        """Store an answer in place of an earlier answer, and remove the row's `generate` failure.

        Raises:
            StoreError: there is no such generator, row or turn.
        """
        number = self._id(answer.generator)
        await self._write(lambda c: queries.keep_answer(c, number, answer))

    def add_answers(self, answers: Iterable[Answer]) -> None:
        """Store many answers, streamed, each as `keep_answer` does."""
        for page in queries.pages(answers):
            numbered = [(self._id(answer.generator), answer) for answer in page]
            self._write_now(partial(queries.keep_answers, answers=numbered))

    def answers(self, generator: str) -> Iterator[Answer]:
        """All answers of a generator, by row and turn."""
        number = self._id(generator)
        last = (-1, 0)
        while page := self._reader.read(queries.ANSWERS, number, *last):
            yield from self._with_calls(generator, page)
            last = page[-1][:2]

    def answer(self, generator: str, row: int, turn: int = 0) -> Answer | None:
        sql_row = self._reader.read_one(queries.ONE_ANSWER, self._id(generator), row, turn)
        return None if sql_row is None else next(self._with_calls(generator, [sql_row]))

    def answered_count(self, generator: str) -> int:
        """The number of rows whose turns are all answered by `generator`."""
        found = self._reader.read_one(queries.ANSWERED, self._id(generator))
        return 0 if found is None else int(found[0])

    async def keep_failure(self, failure: Failure) -> None:
        """Store a failure in place of an earlier failure of the same answer or verdict.

        The attempts of both are added up.
        """
        sql_row = tables.failure_to_sql(failure)
        await self._write(lambda c: c.execute(queries.KEEP_FAILURE, sql_row))

    def failures(self, stage: str | None = None, generator: str | None = None) -> list[Failure]:
        where, given = queries.condition(stage=stage, generator=generator)
        found = self._reader.read(f"SELECT {tables.FAILURE} FROM failures WHERE {where}", *given)
        return [Failure(*sql_row) for sql_row in found]

    async def keep_verdict(self, verdict: Verdict) -> None:
        """Store a verdict in place of an earlier verdict, and remove the stored failure of this
        verdict."""
        await self._write(lambda c: queries.keep_verdict(c, verdict))

    def verdicts(
        self,
        judge: str | None = None,
        kind: str | None = None,
        generator: str | None = None,
        baseline: str | None = None,
    ) -> Iterator[Verdict]:
        """The verdicts with these values, where None stands for any value.

        The verdicts are sorted by judge, kind, generator, baseline, row and turn, and are read in
        pages.
        """
        wanted = {"judge": judge, "kind": kind, "generator": generator, "baseline": baseline}
        given = {name: value for name, value in wanted.items() if value is not None}
        query, others = queries.verdicts_page(given)
        start = [-1 if name in ("row", "turn") else "" for name in others]
        # The columns that are not given tell where the next page starts.
        columns = [queries.VERDICT_KEY.index(name) for name in others]

        def after(last: SqlRow) -> list[Any]:
            return [*given.values(), *(last[column] for column in columns)]

        found = self._reader.read_pages(query, after, [*given.values(), *start])
        yield from map(tables.verdict_from_sql, found)

    def judgements(self) -> list[tuple[str, str, str]]:
        """Each combination (judge, kind, baseline) that has verdicts, sorted."""
        return [tuple(sql_row) for sql_row in self._reader.read(queries.JUDGEMENTS)]

    def verdict(
        self, judge: str, kind: str, generator: str, baseline: str, row: int, turn: int
    ) -> Verdict | None:
        which = {"judge": judge, "kind": kind, "generator": generator, "baseline": baseline}
        where, given = queries.condition(**which, row=row, turn=turn)
        sql_row = self._reader.read_one(f"SELECT {tables.VERDICT} FROM verdicts WHERE {where}", *given)
        return None if sql_row is None else tables.verdict_from_sql(sql_row)

    async def keep_progress(self, progress: Progress) -> None:
        sql_row = tables.progress_to_sql(progress)
        await self._write(lambda c: c.execute(queries.KEEP_PROGRESS, sql_row))

    def progress(self, generator: str | None = None) -> list[Progress]:
        """The records of progress in the order in which they were stored."""
        where, given = queries.condition(generator=generator)
        found = self._reader.read(
            f"SELECT {tables.PROGRESS} FROM progress WHERE {where} ORDER BY id", *given
        )
        return [Progress(*sql_row) for sql_row in found]

    async def _write(self, action: Action) -> None:
        await self._require_writer().write(action)

    def _write_now(self, action: Action) -> None:
        self._require_writer().write_now(action)

    def _require_writer(self) -> Writer:
        if self._writer is None:
            raise StoreError(f"{self.path} is open for reading only")
        return self._writer

    def _with_calls(self, generator: str, page: Sequence[SqlRow]) -> Iterator[Answer]:
        """The answers of a page of SQL rows, each with the calls that the answer is made of."""
        used: dict[SqlRow, list[UsedCall]] = {}
        ends = (*page[0][:2], *page[-1][:2])
        for row, turn, *call in self._reader.read(queries.USED, self._id(generator), *ends):
            used.setdefault((row, turn), []).append(UsedCall(*call))
        for sql_row in page:
            calls = tuple(used.get(sql_row[:2], ()))
            yield tables.answer_from_sql(generator, sql_row, calls)

    def _id(self, generator: str) -> int:
        """The number of a generator in the tables.

        Raises:
            StoreError: there is no such generator.
        """
        if generator not in self._ids:
            found = self._reader.read_one(queries.ONE_ID, generator)
            if found is None:
                known = ", ".join(repr(each.name) for each in self.generators()) or "none"
                raise StoreError(f"there is no generator {generator!r} in {self.path}; known: {known}")
            self._ids[generator] = found[0]
        return self._ids[generator]
