"""An error for the log: where it came from, and nothing of what was asked or answered."""

import traceback
from collections.abc import Iterator


def safe_traceback(error: BaseException) -> str:
    """Where an error came from: classes and lines of source, of its causes too, without their messages,
    which may quote a prompt."""
    return "\n".join(_traces(error))


def _traces(error: BaseException) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _traces(cause)
    frames = "".join(traceback.format_tb(error.__traceback__))
    yield f"{type(error).__module__}.{type(error).__qualname__} at\n{frames}"
