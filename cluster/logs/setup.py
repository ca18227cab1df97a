"""Where this process's log lines go: to the log's file, and to standard error where that is shown."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from cluster.logs.file import LogFile
from cluster.logs.line import Formatter, Shape

OURS = ("serve_app", "actors", "cluster", "configs", "jobs")
"""The loggers of this project. Every module's logger is below one of them."""
NOT_SHOWN = "RAY_SERVE_LOG_TO_STDERR", "0"
"""An environment variable of Ray Serve and its value with which nothing that a replica writes to
standard error is shown. `slimmoa serve` sets it, because it shows the log's file."""


class _Writer(logging.Handler):
    """Passes each line on."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record))
        except Exception:  # a line must never disturb the work that it tells of
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Nothing can be done: the default would print the line's values, whatever they are."""


def log_name(app: str) -> str:
    """The name of the log's file of an application, which each of its nodes has."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in app)
    return f"{safe if safe.startswith('slimmoa') else f'slimmoa-{safe}'}.log"


def log_to(path: Path, process: str, shape: Shape) -> None:
    """Send all lines of this process to a file, and to standard error unless `NOT_SHOWN` is set.

    Args:
        path: the file; other processes write to it as well.
        process: what this process is; each line has it.
        shape: the shape of the lines.
    """
    writers: list[logging.Handler] = [_Writer(LogFile(path).write)]
    name, value = NOT_SHOWN
    if os.environ.get(name) != value:
        writers.append(_Writer(lambda line: print(line, file=sys.stderr, flush=True)))
    formatter = Formatter(shape, process)
    for writer in writers:
        writer.setFormatter(formatter)
    for name in OURS:
        logger = logging.getLogger(name)
        logger.handlers = list(writers)
        logger.setLevel(logging.INFO)
        logger.propagate = False
