"""The thread in which this process starts Ray, deploys to it and leaves it.

A signal's handler runs in the main thread, in the midst of whatever the main thread does. Within Ray's
own code that has bad ends: a node that is half started, processes that nobody knows, a crash of the
interpreter. So the main thread only waits for this thread, and can leave at any moment.
"""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

MEANWHILE_S = 0.02
"""Seconds between two calls of what a caller does meanwhile."""


class RayThread:
    """A thread that runs one piece of work after the other, and never ends before the process.

    Ray's processes end with the thread that started them (PR_SET_PDEATHSIG). And the end of this
    process does not wait for a call of Ray that hangs, as it would for the thread of a pool.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._last: Future[Any] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether work is under way, because its caller was interrupted and has left."""
        return self._last is not None and not self._last.done()

    def run(self, work: Callable[[], T], meanwhile: Callable[[], None] | None = None) -> T:
        """Run `work` in the thread, wait for its end, and return or raise what it does.

        If a signal's handler raises in the caller meanwhile, the work goes on in the thread.

        Args:
            work: what to run.
            meanwhile: is called again and again by the caller's thread while it waits.
        """
        if threading.current_thread() is self._thread:
            return work()
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, daemon=True, name="ray")
            self._thread.start()
        done: Future[T] = Future()
        self._last = done

        def task() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # whatever it is, the caller has to know
                done.set_exception(error)

        self._work.put(task)
        while meanwhile is not None and not done.done():
            with suppress(TimeoutError):
                done.exception(MEANWHILE_S)
            meanwhile()
        return done.result()

    def _loop(self) -> None:
        # Ray's processes inherit this. A terminal that closes sends SIGHUP to all of them, and the
        # answers in work would be lost; Ray does the same for Ctrl-C itself.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        while True:
            self._work.get()()
