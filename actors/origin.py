"""Where a call comes from: facts about the request behind a call, as they travel with the call.

The process that makes a call and the replica that answers the call are two processes. What the replica
has to know of the request, and is no part of the question, is the call's origin: a few short texts by
their names. The names are those of HTTP headers (`traceparent`, `tracestate`), so that an engine that
asks another server can pass them on as they are.
"""

from collections.abc import Mapping
from contextvars import ContextVar

from actors.engine import NONE

TRACE_HEADERS = ("traceparent", "tracestate")
"""The headers of W3C Trace Context, by which another server joins the trace of a request."""
REQUEST = "request_id"
"""The name of the request's ID, which the replica's log lines have. It does not go to other servers. A
request makes several calls, and vLLM takes the header `X-Request-Id` for the ID of one call, which has
to be unique (github.com/vllm-project/vllm/issues/10583)."""
ORIGIN: ContextVar[Mapping[str, str]] = ContextVar("origin", default=NONE)
"""The origin of the call that the current task answers; empty if the caller says nothing. A replica
runs each call in a task of its own."""


def trace_headers() -> dict[str, str]:
    """The headers by which a server that this call asks joins the trace; none without a trace."""
    origin = ORIGIN.get()
    return {name: origin[name] for name in TRACE_HEADERS if name in origin}
