"""Runs a few jobs in threads that do not keep the process alive."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

WORKERS = 4
"""How many downloads run side by side."""


def side_by_side(jobs: Sequence[Callable[[], None]]) -> None:
    """Run jobs in `WORKERS` threads; the first error of a job ends the wait for the others.

    The threads do not keep the process alive, as those of a ThreadPoolExecutor do. So Ctrl-C ends a
    command at once, also where a slow server has the threads wait for their next bytes.
    """
    ends: SimpleQueue[BaseException | None] = SimpleQueue()
    left: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def work() -> None:
        with suppress(Empty):
            while True:
                job = left.get_nowait()
                try:
                    job()
                except BaseException as error:
                    ends.put(error)
                    return
                ends.put(None)

    for job in jobs:
        left.put(job)
    for _ in range(min(WORKERS, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    for _ in jobs:
        if (error := ends.get()) is not None:
            raise error
