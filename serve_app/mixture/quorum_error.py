"""The error of an answer whose first layer has fewer proposals than the quorum."""

from collections.abc import Sequence

from configs.errors import (
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    Overloaded,
    QuorumNotMet,
    RequestError,
    TemplateRefused,
)
from serve_app.mixture.events import Missing

SHARED_CAUSES: dict[str, type[RequestError]] = {
    "late": DeadlineExceeded,
    ContextTooLong.code: ContextTooLong,
    ContentFiltered.code: ContentFiltered,
    TemplateRefused.code: TemplateRefused,
    Overloaded.code: Overloaded,
}
"""Errors by the cause of missing samples. If the first layer misses the quorum, and all missing samples
have the same cause, the request fails with the error that is listed for that cause. That error tells
the client more about what to do than QuorumNotMet, which is the error otherwise."""


def quorum_error(missing: Sequence[Missing], got: int, needed: int) -> RequestError:
    """Make the error of an answer whose first layer misses the quorum. The message names every cause.

    Args:
        missing: the samples without a proposal; at least one.
        got: how many proposals came.
        needed: how many proposals the quorum is.
    """
    causes = "; ".join(f"{m.model}: {m.cause}: {m.detail}" for m in missing)
    message = f"{needed} proposals are needed and {got} came ({causes})"
    kinds = {m.cause for m in missing}
    error = SHARED_CAUSES.get(kinds.pop(), QuorumNotMet) if len(kinds) == 1 else QuorumNotMet
    param = "messages" if error is ContextTooLong else None
    return error(message, model=missing[0].model, param=param)
