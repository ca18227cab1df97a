"""Errors as HTTP responses and as the ends of streams: expected errors, and defects."""

import json
import logging
import math

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.logs.line import current_request, shortened
from configs.errors import OverAllowance, RequestError
from serve_app.error_schema import error_body
from serve_app.request_id import request_id
from serve_app.safe_traceback import safe_traceback

RETRY_AFTER_S = 1
"""Seconds of Retry-After where nobody knows when the queue moves or the replica is back. The header has
whole seconds, so 1 is its shortest wait. To refuse a retry that comes too early costs little."""

DONE = "data: [DONE]\n\n"
"""The last event of every stream, as in OpenAI's streams."""

logger = logging.getLogger(__name__)


def error_response(error: RequestError, request: str | None = None) -> JSONResponse:
    """The response for an error: OpenAI's error envelope, and the headers that belong to the status.

    Args:
        error: the error.
        request: the ID of the request, as `error_body` takes it.
    """
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="slimmoa"'
    elif error.status in (408, 413):
        # The rest of the request's body is still on its way and would be read as the next request.
        headers["Connection"] = "close"
    elif error.status in (429, 503):
        wait_s = error.retry_after_s if isinstance(error, OverAllowance) else RETRY_AFTER_S
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    return JSONResponse(error_body(error, request), status_code=error.status, headers=headers)


def error_events(error: RequestError, request: str | None = None) -> str:
    """The end of a stream that fails after it began: the error, then `DONE`. See `error_response`."""
    return f"data: {json.dumps(error_body(error, request))}\n\n{DONE}"


class DefectMiddleware:
    """Answers an unexpected error with status 500, and logs the error without its message.

    From here on all log lines and errors of a request have the request's ID.

    The message could quote a prompt, and the handler of the server itself would log the message.

    Raises:
        RuntimeError: the response had begun, or the connection is not HTTP. The server ends the
            connection then.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False
        request = request_id(scope)
        current_request.set(request)

        async def send_and_note(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            trace = safe_traceback(error)
            logger.error("%s %s: %s", scope["type"], shortened(scope.get("path", "")), trace)
            name = type(error).__name__
            if has_begun or scope["type"] != "http":
                raise RuntimeError(f"{name} after the response had begun") from None
            message = f"internal error ({name}); the server's log says more"
            await error_response(RequestError(message))(scope, receive, send)
