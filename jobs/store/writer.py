"""One thread that writes to one SQLite file and commits waiting writes in groups.

A commit waits for the disk. Writes that arrive meanwhile form the next group, so many small writes
cost few waits. Each write is durable when its caller is woken.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from configs.errors import UserError

LARGEST_GROUP = 1000
"""One transaction has so many writes at most."""

Action = Callable[[sqlite3.Connection], object]
"""One write: a function that executes statements on the given connection."""

Outcome = tuple[asyncio.Future[None], Exception | None]
"""The future that the caller of a write waits for, and the write's error; None after a success."""


class StoreError(UserError):
    """A run's store cannot be opened, read or written, or a write contradicts what is stored."""


@dataclass(frozen=True, slots=True)
class _Write:
    action: Action
    waiter: "asyncio.Future[None] | Future[None]"


class Writer:
    """Executes writes from any thread and any event loop in the order of their arrival.

    A write that fails is rolled back; only its own caller gets the error.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Start the thread.

        Args:
            connection: The connection to write on. From now on only the thread uses it; at the end the
                thread closes it.
            path: The path of the file, for error messages.
        """
        self._connection = connection
        self._path = path
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def write(self, action: Action) -> None:
        """Execute the action, and return when it is durable. Cancelling the caller does not cancel the
        action.

        Raises:
            StoreError: the action failed, or the writer is closed.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._put(_Write(action, waiter))
        await waiter

    def write_now(self, action: Action) -> None:
        """As `write`, for code without an event loop."""
        waiter: Future[None] = Future()
        self._put(_Write(action, waiter))
        waiter.result()

    def close(self) -> None:
        """Return when all queued writes are done; later writes are refused."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _put(self, write: _Write) -> None:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self._path} is closed")
            self._queue.put(write)

    def _run(self) -> None:
        is_open = True
        while is_open:
            group = [self._queue.get()]
            with suppress(Empty):
                while len(group) < LARGEST_GROUP:
                    group.append(self._queue.get_nowait())
            is_open = None not in group
            self._write([write for write in group if write is not None])
        self._connection.close()

    def _write(self, group: Sequence[_Write]) -> None:
        error = self._commit(group)
        if error is None or len(group) == 1:
            _wake_callers(group, [error] * len(group))
        else:  # one write failed: retry each alone, so that only the bad one fails
            _wake_callers(group, [self._commit([write]) for write in group])

    def _commit(self, group: Sequence[_Write]) -> Exception | None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for write in group:
                write.action(self._connection)
            self._connection.execute("COMMIT")
        except Exception as error:
            with suppress(sqlite3.Error):  # SQLite has rolled back already if the disk is full
                self._connection.execute("ROLLBACK")
            return error if isinstance(error, StoreError) else self._error(error)
        return None

    def _error(self, cause: Exception) -> StoreError:
        error = StoreError(f"cannot write to {self._path}: {cause}")
        error.__cause__ = cause
        return error


def _wake_callers(group: Sequence[_Write], errors: Sequence[Exception | None]) -> None:
    """Resolve all waiters; each event loop is woken once, however many of its writes are done."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for write, error in zip(group, errors, strict=True):
        if isinstance(write.waiter, Future):
            _resolve([(write.waiter, error)])
        else:
            by_loop.setdefault(write.waiter.get_loop(), []).append((write.waiter, error))
    for loop, outcomes in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
            loop.call_soon_threadsafe(_resolve, outcomes)


def _resolve(outcomes: "Sequence[Outcome | tuple[Future[None], Exception | None]]") -> None:
    for waiter, error in outcomes:
        if waiter.done():  # the caller was cancelled
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
