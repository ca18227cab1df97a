"""What llama.cpp writes into its log while it loads a model: the cause of a failure.

xllamacpp raises one error for every failure, "Failed to init server, please check the input params".
The causes go to llama.cpp's log (common/log.h), for which xllamacpp has no function. The functions of
the log are public symbols of the library, so that ctypes finds them. If a build hides them, messages
have no causes.
"""

import ctypes
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SILENT = -1
"""The verbosity with which llama.cpp writes nothing."""
ERRORS = 1
"""The verbosity with which llama.cpp writes errors only (LOG_LEVEL_ERROR)."""
LINE = re.compile(r"(?:[\d.]+ )?E (?P<message>.*)")
"""A line of an error: a time, the level, a message."""
WHO = re.compile(r"(?:\w+\s+)?\w+: +")
"""How a message begins: the part of the program and its function."""

_loads = threading.Lock()
"""The log belongs to the whole process."""


class LoadLog:
    """The errors of llama.cpp's log during one load."""

    def __init__(self, file: Path, log: Any) -> None:
        self._file = file
        self._log = log
        self.verbosity = ERRORS if log is not None else SILENT
        """The verbosity that the load has to ask for."""

    def errors(self) -> list[str]:
        """The messages so far, in order; the first one is mostly the cause."""
        if self._log is None:
            return []
        self._log.flush()
        lines = self._file.read_text("utf-8", "replace").splitlines() if self._file.exists() else []
        found = (LINE.match(line) for line in lines)
        return [WHO.sub("", each["message"], count=1).strip() for each in found if each is not None]


class _Log:
    """The log's functions, by their names in the library (C++)."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        main = library["_Z15common_log_mainv"]
        main.restype = ctypes.c_void_p
        self._set_file = library["_Z19common_log_set_fileP10common_logPKc"]
        self._set_file.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        self._flush = library["_Z16common_log_flushP10common_log"]
        self._flush.argtypes = (ctypes.c_void_p,)
        self._set_verbosity = library["_Z30common_log_set_verbosity_tholdi"]
        self._log = ctypes.c_void_p(main())

    def write_to(self, file: Path | None) -> None:
        self._set_file(self._log, None if file is None else bytes(file))

    def flush(self) -> None:
        self._flush(self._log)

    def silence(self) -> None:
        self._set_verbosity(ctypes.c_int(SILENT))


@contextmanager
def load_log(file: Path, library: str) -> Iterator[LoadLog]:
    """Have llama.cpp write its errors into `file` while the block loads a model, then be silent again.

    Args:
        file: where the errors go.
        library: path of the library that contains llama.cpp.
    """
    try:
        log = _Log(library)
    except (OSError, AttributeError):
        yield LoadLog(file, None)
        return
    with _loads:
        log.write_to(file)
        try:
            yield LoadLog(file, log)
        finally:
            log.silence()
            log.write_to(None)
