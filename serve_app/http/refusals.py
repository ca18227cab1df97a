"""Responses to requests that fail before their answer begins, and who is told of these requests."""

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from configs.errors import BadRequest, RequestError
from serve_app.access.auth import KEY
from serve_app.error_response import error_response
from serve_app.error_schema import error_body
from serve_app.http.paths import allowed_methods, where_to_ask
from serve_app.observe import Observer, Refused
from serve_app.request_id import request_id

WATCHED = "slimmoa.watched"
"""Name of the entry that the scope of a request has once a watcher has seen the request begin. How such
a request ends is told to the watcher, and is no refusal."""
CLIENT_LEFT = 499
"""HTTP status of a request whose client left, as in the access logs of nginx and of Ray Serve."""


class Refusals:
    """Answers requests with errors, and tells an observer of the requests that were refused."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def tell(self, scope: Scope, error: RequestError, status: int | None = None) -> None:
        """Tell the observer of a refused request.

        Args:
            scope: the request.
            error: why it is refused.
            status: HTTP status in place of the error's.
        """
        if WATCHED in scope:
            return
        key = scope.get(KEY)
        refused = Refused(
            request_id=request_id(scope),
            key=None if key is None else key.name,
            method=scope["method"],
            path=scope["path"],
            error=error,
            status=status or error.status,
        )
        self._observer.refuse(refused)

    async def on_request_error(self, request: Request, error: Exception) -> JSONResponse:
        """The response to an error of the request."""
        assert isinstance(error, RequestError)
        self.tell(request.scope, error)
        return error_response(error)

    async def on_http_error(self, request: Request, error: Exception) -> Response:
        """An error of Starlette in OpenAI's envelope: an unknown path (404), a method that the path
        does not have (405), a body that is not read (415). `OPTIONS` is answered with the methods of
        the path."""
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        message = f"{request.method} {request.url.path}: {error.detail}"
        if error.status_code == 404:
            message = where_to_ask(request.method, request.url.path)
        elif "Allow" in headers:
            headers["Allow"] = allowed_methods(headers["Allow"])
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=headers)
            message = f"{message}; the path has {headers['Allow']}"
        refusal = BadRequest(message)
        self.tell(request.scope, refusal, error.status_code)
        return JSONResponse(error_body(refusal), error.status_code, headers)


async def on_client_left(_request: Request, _error: Exception) -> Response:
    """A response that nobody reads; only access logs show its status."""
    return Response(status_code=CLIENT_LEFT)
