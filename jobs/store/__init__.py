"""All of a run in one SQLite file: rows, calls, answers, failures, verdicts, progress.

What a `keep_*` has returned from is on the disk and survives a SIGKILL or a power cut. All is found by
an index, and lists are read in pages, so that cost and memory do not grow with the number of rows and a
reader never holds up the file's checkpoints. A second process may read while a run writes.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jobs.records import Answer, Failure, Generator, Progress, Row, StoredCall, Used, Verdict
from jobs.store import database, queries, tables
from jobs.store.tables import Record
from jobs.store.writer import Action, StoreError, Writer

__all__ = ["FILE", "Store", "StoreError"]

FILE = "run.sqlite"


class Store:
    """A run's store; use as a context manager, closing waits for all that is queued.

    Writes contradicting what is there, or that the disk refuses, raise StoreError in their caller.
    Reads may come from any thread.
    """

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: Writer | None) -> None:
        self.path = path
        self._reader = reader
        self._writer = writer
        self._ids: dict[str, int] = {}

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False) -> Self:
        """The store of a run folder, made if it is not there.

        Raises:
            StoreError: there is none to read, it has another version, or it is no SQLite file.
        """
        path = folder / FILE
        if read_only and not path.is_file():
            raise StoreError(f"no run in {folder}: there is no {FILE}")
        try:
            made = None if read_only else database.made(path)
            return cls(path, database.reader(path), None if made is None else Writer(made, path))
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {path}: {error}") from error

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
        """Return when all that was queued is on the disk."""
        self._reader.close()  # first: the last to close folds the files beside the store into it
        if self._writer is not None:
            self._writer.close()

    def about(self) -> dict[str, Any]:
        """What `set_about` was told, by name."""
        return {name: json.loads(value) for name, value in self._read(queries.ABOUT)}

    def set_about(self, **values: Any) -> None:
        """Keep JSON values by name, in place of what the name had."""
        records = [(name, json.dumps(value, ensure_ascii=False)) for name, value in values.items()]
        self._write_now(lambda c: c.executemany(queries.SET_ABOUT, records))

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Add a set's rows, streamed. The same rows again change nothing.

        Raises:
            StoreError: another row is stored under an index; what came before is kept.
        """
        for some in queries.paged(rows):
            self._write_now(partial(queries.add_rows, rows=some))

    def rows(self, indices: Iterable[int] | None = None) -> Iterator[Row]:
        """All rows in order, or those asked for, in the order asked."""
        if indices is None:
            yield from map(tables.row_of, self._pages(queries.ROWS, lambda last: (last[0],), (-1,)))
            return
        for index in indices:
            if (record := self._one(queries.ONE_ROW, index)) is None:
                raise StoreError(f"there is no row {index} in {self.path}")
            yield tables.row_of(record)

    def row_count(self) -> int:
        return int(self._read("SELECT count(*) FROM rows")[0][0])

    def pending(self, generator: str) -> Iterator[Row]:
        """Rows without all their turns answered by `generator` when their page is read, in order."""
        number = self._id(generator)
        pages = self._pages(queries.PENDING, lambda last: (last[0], number), (-1, number))
        yield from map(tables.row_of, pages)

    def add_generator(self, generator: Generator) -> None:
        """Add who answers. The same again changes nothing; another identity is a StoreError."""
        self._write_now(lambda c: queries.add_generator(c, generator))

    def generators(self) -> list[Generator]:
        """In the order in which they were added."""
        return [tables.generator_of(record) for record in self._read(queries.GENERATORS)]

    def generator(self, name: str) -> Generator | None:
        record = self._one(queries.ONE_GENERATOR, name)
        return None if record is None else tables.generator_of(record)

    def call(self, key: bytes) -> StoredCall | None:
        record = self._one(queries.ONE_CALL, key)
        return None if record is None else tables.call_of(record)

    async def keep_call(self, call: StoredCall) -> None:
        """A call that is there already stays as it is."""
        record = tables.call_record(call)
        await self._write(lambda c: c.execute(queries.KEEP_CALL, record))

    async def keep_answer(self, answer: Answer) -> None:
        """Replaces an earlier answer to the turn, and removes the row's `generate` failure."""
        number = self._id(answer.generator)
        await self._write(lambda c: queries.keep_answer(c, number, answer))

    def add_answers(self, answers: Iterable[Answer]) -> None:
        """Many answers, streamed, as `keep_answer` keeps each."""
        for some in queries.paged(answers):
            numbered = [(self._id(answer.generator), answer) for answer in some]
            self._write_now(partial(queries.keep_answers, answers=numbered))

    def answers(self, generator: str) -> Iterator[Answer]:
        """By row and turn."""
        number = self._id(generator)
        last = (-1, 0)
        while page := self._read(queries.ANSWERS, number, *last):
            yield from self._whole(generator, page)
            last = page[-1][:2]

    def answer(self, generator: str, row: int, turn: int = 0) -> Answer | None:
        record = self._one(queries.ONE_ANSWER, self._id(generator), row, turn)
        return None if record is None else next(self._whole(generator, [record]))

    def answered(self, generator: str) -> int:
        """How many rows have all their turns answered."""
        found = self._one(queries.ANSWERED, self._id(generator))
        return 0 if found is None else int(found[0])

    async def keep_failure(self, failure: Failure) -> None:
        """A failure of the same is replaced, and its attempts are added."""
        record = tables.failure_record(failure)
        await self._write(lambda c: c.execute(queries.KEEP_FAILURE, record))

    def failures(self, stage: str | None = None, generator: str | None = None) -> list[Failure]:
        where, given = queries.where(stage=stage, generator=generator)
        found = self._read(f"SELECT {tables.FAILURE} FROM failures WHERE {where}", *given)
        return [Failure(*record) for record in found]

    async def keep_verdict(self, verdict: Verdict) -> None:
        """Replaces the judge's earlier verdict, and removes its failure to come to one."""
        await self._write(lambda c: queries.keep_verdict(c, verdict))

    def verdicts(
        self,
        judge: str | None = None,
        kind: str | None = None,
        generator: str | None = None,
        baseline: str | None = None,
    ) -> Iterator[Verdict]:
        """By judge, kind, generator, baseline, row and turn."""
        given = {"judge": judge, "kind": kind, "generator": generator, "baseline": baseline}
        page, left = queries.verdicts({name for name, value in given.items() if value is not None})
        values = [value for value in given.values() if value is not None]
        start = [-1 if name in ("row", "turn") else "" for name in left]
        # The columns that are not given say where a page ends.
        places = [queries.VERDICT_KEY.index(name) for name in left]
        found = self._pages(page, lambda last: [*values, *(last[p] for p in places)], [*values, *start])
        yield from map(tables.verdict_of, found)

    def judgements(self) -> list[tuple[str, str, str]]:
        """Which judge judged against which baseline: (judge, kind, baseline)."""
        return [tuple(record) for record in self._read(queries.JUDGEMENTS)]

    def verdict(
        self, judge: str, kind: str, generator: str, baseline: str, row: int, turn: int
    ) -> Verdict | None:
        which = {"judge": judge, "kind": kind, "generator": generator, "baseline": baseline}
        where, given = queries.where(**which, row=row, turn=turn)
        record = self._one(f"SELECT {tables.VERDICT} FROM verdicts WHERE {where}", *given)
        return None if record is None else tables.verdict_of(record)

    async def keep_progress(self, progress: Progress) -> None:
        record = tables.progress_record(progress)
        await self._write(lambda c: c.execute(queries.KEEP_PROGRESS, record))

    def progress(self, generator: str | None = None) -> list[Progress]:
        """In the order in which it was kept."""
        where, given = queries.where(generator=generator)
        found = self._read(f"SELECT {tables.PROGRESS} FROM progress WHERE {where} ORDER BY id", *given)
        return [Progress(*record) for record in found]

    async def _write(self, action: Action) -> None:
        await self._for_writing().write(action)

    def _write_now(self, action: Action) -> None:
        self._for_writing().write_now(action)

    def _for_writing(self) -> Writer:
        if self._writer is None:
            raise StoreError(f"{self.path} is open for reading only")
        return self._writer

    def _read(self, query: str, *given: Any) -> list[Record]:
        try:
            return self._reader.execute(query, given).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.path}: {error}") from error

    def _one(self, query: str, *given: Any) -> Record | None:
        return next(iter(self._read(query, *given)), None)

    def _pages(
        self, query: str, after: Callable[[Record], Sequence[Any]], given: Sequence[Any]
    ) -> Iterator[Record]:
        """All records of a query that reads one page; `after` says what to give for the next one."""
        while page := self._read(query, *given):
            yield from page
            given = after(page[-1])

    def _whole(self, generator: str, page: Sequence[Record]) -> Iterator[Answer]:
        """Answers with the calls behind them."""
        used: dict[Record, list[Used]] = {}
        ends = (*page[0][:2], *page[-1][:2])
        for row, turn, *call in self._read(queries.USED, self._id(generator), *ends):
            used.setdefault((row, turn), []).append(Used(*call))
        for record in page:
            yield tables.answer_of(generator, record, tuple(used.get(record[:2], ())))

    def _id(self, generator: str) -> int:
        if generator not in self._ids:
            found = self._one(queries.ONE_ID, generator)
            if found is None:
                known = ", ".join(repr(each.name) for each in self.generators()) or "none"
                raise StoreError(f"there is no generator {generator!r} in {self.path}; known: {known}")
            self._ids[generator] = found[0]
        return self._ids[generator]
