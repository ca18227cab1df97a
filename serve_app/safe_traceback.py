"""Tracebacks for the log that show nothing of what was asked or answered."""

import traceback
from collections.abc import Iterator


def safe_traceback(error: BaseException) -> str:
    """The classes and source lines of an error and of its causes, without their messages.

    A message may quote a prompt, and prompts do not belong in a log.
    """
    return "\n".join(_traces(error))


def _traces(error: BaseException) -> Iterator[str]:
    """One text for each error of the chain, the first cause first."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _traces(cause)
    frames = "".join(traceback.format_tb(error.__traceback__))
    yield f"{type(error).__module__}.{type(error).__qualname__} at\n{frames}"
