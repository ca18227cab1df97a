"""Errors of calls on their way between two processes: each arrives as the class that was raised.

An error travels as the name of its class, its message and its attributes. So the other side can choose
among our errors at most, and no code runs. An exception that is none of ours becomes an EngineError
that names only its class, because its message could quote a prompt.
"""

import logging
import traceback

from actors.calls.frames import Failed
from configs import errors
from configs.errors import EngineError, RequestError

KINDS: dict[str, type[RequestError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, RequestError)
}
"""The classes of errors that travel, by name."""

logger = logging.getLogger(__name__)


def describe(call: int, error: Exception) -> Failed:
    """The frame that tells the caller how its call failed."""
    if not isinstance(error, RequestError):
        trace = "".join(traceback.format_tb(error.__traceback__))
        logger.error("a call failed with %s at\n%s", type(error).__name__, trace)
        error = EngineError(f"the replica failed ({type(error).__name__})")
    details = {name: value for name, value in vars(error).items() if value is not None}
    # A server of a remote model may put half a character into its message, which no frame can carry.
    message = error.message.encode("utf-8", "replace").decode()
    return Failed(call, type(error).__name__, message, details)


def rebuild(failed: Failed, model: str) -> RequestError:
    """The error that a frame describes.

    Args:
        failed: the frame.
        model: name of the model that was called, for an error that names none.
    """
    kind = KINDS.get(failed.name, EngineError)
    details = {"model": model} | failed.details
    try:
        return kind(failed.message, **details)
    except TypeError:  # the other side has other attributes than this side
        return kind(failed.message, model=model)
