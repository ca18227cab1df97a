"""Errors as HTTP responses."""

import logging
import math

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from configs.errors import OverAllowance, RequestError
from serve_app.http.response import error_body
from serve_app.safe_traceback import safe_traceback

LATER_S = 1
"""When to try again after a full queue or a model that is away."""

logger = logging.getLogger(__name__)


def error_response(error: RequestError) -> JSONResponse:
    """OpenAI's envelope, with the headers that belong to the status."""
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="slimmoa"'
    elif error.status in (408, 413):
        headers["Connection"] = "close"  # what is left of the body is no next request
    elif error.status in (429, 503):
        wait_s = error.retry_after_s if isinstance(error, OverAllowance) else LATER_S
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    return JSONResponse(error_body(error), status_code=error.status, headers=headers)


class DefectMiddleware:
    """An error that nobody expected becomes a 500 here. The server's own would log its message."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            logger.error("%s %s: %s", scope["type"], scope.get("path"), safe_traceback(error))
            name = type(error).__name__
            if begun or scope["type"] != "http":
                raise RuntimeError(f"{name} after the response had begun") from None
            said = f"internal error ({name}); the server's log says more"
            await error_response(RequestError(said))(scope, receive, send)
