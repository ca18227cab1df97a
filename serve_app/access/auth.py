"""Authentication: an ASGI middleware that every request passes before it reaches a route.

1. `/healthz` needs no key, and `/metrics` needs none if the recipe says `access.metrics: open`.
2. Where there are API keys, a request needs a valid key, in exactly one `Authorization: Bearer KEY`
   header. Two such headers are refused even if both are right, because a proxy in front of this server
   may have checked the other header.
3. Where there are no keys and the recipe says `access.open`, every request is admitted.
4. Otherwise only requests from this machine are admitted: both ends of the connection are here, and the
   Host header names this machine. So a web page that has pointed its own name here (DNS rebinding) is
   refused. A request for which a proxy names another client (`X-Forwarded-For`) is refused too.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from configs.access import Access, is_loopback
from configs.errors import Forbidden, RequestError, Unauthorized
from serve_app.access.api_keys import Key, KeyFile, find_key
from serve_app.error_response import error_response

OPEN_PATHS = frozenset({"/healthz"})
"""Paths that rule 1 always admits. They are compared exactly, so that no other spelling is open."""
METRICS = "/metrics"
"""The path of the numbers for Prometheus."""
KEY = "slimmoa.key"
"""Name of the entry of a request's scope that holds the Key by which the request was admitted."""
ANYONE = "anyone"
"""Name of the Key that stands for all requests where no API key is needed, so that the limits count
these requests together."""
BEARER = re.compile(rb"Bearer +([!-~]+) *", re.IGNORECASE)
CLIENT_OF_PROXY = (b"x-forwarded-for", b"x-real-ip")
"""Headers in which a reverse proxy names its client, and the clients of proxies before it."""
HOST_PORT = re.compile(r":\d*$")
ONLY_LOCAL = "without API keys only this machine may ask (access.open in the recipe lets everybody in)"


class Authenticator:
    """Finds the key of a request.

    Args:
        access: the recipe's rules, with the path of its file of keys.
        env_keys: keys of the environment, which are valid beside the file's.

    Raises:
        KeysError: the file of keys cannot be used.
    """

    def __init__(self, access: Access, env_keys: Sequence[Key] = ()) -> None:
        self._access = access
        self._env_keys = tuple(env_keys)
        self._file = None
        if access.keys_file is not None:
            self._file = KeyFile(Path(access.keys_file), access.reload_s)

    def is_open(self, path: str) -> bool:
        """Whether rule 1 admits requests to a path."""
        return path in OPEN_PATHS or (path == METRICS and self._access.metrics == "open")

    @property
    def needs_key(self) -> bool:
        """Whether requests need a key: if the recipe names a file of keys, even an empty file, or if
        the environment has keys."""
        return self._file is not None or bool(self._env_keys)

    def has_several_keys(self, now: float) -> bool:
        """Whether more than one key is valid now.

        Args:
            now: seconds on a steady clock; all calls have to use the same clock.
        """
        return len(self._valid_keys(now)) > 1

    def authenticate(self, scope: Scope, now: float) -> Key:
        """The key of a request. Its allowance is complete: the recipe's limits apply where the key has
        no limit of its own.

        Args:
            scope: the ASGI scope of the HTTP request.
            now: seconds on a steady clock; all calls have to use the same clock.

        Raises:
            Unauthorized: the request has no key, several keys, or a key that is not valid.
            Forbidden: rule 4 refuses the request.
        """
        if self.needs_key:  # 2
            key = find_key(self._valid_keys(now), _presented_key(scope))
            if key is None:
                raise Unauthorized("this API key is not known here")
        else:
            if not self._access.open:  # 4; otherwise 3
                _require_local(scope)
            key = Key(ANYONE, b"")
        return replace(key, allowance=key.allowance.over(self._access.allowance))

    def _valid_keys(self, now: float) -> tuple[Key, ...]:
        return self._env_keys + (() if self._file is None else self._file.current(now))


class AuthMiddleware:
    """Passes on the requests that the authenticator admits, and answers all others with an error.

    Args:
        app: gets the requests that are admitted.
        authenticator: finds the key of a request.
        on_refusal: is told of each request that is not admitted.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        on_refusal: Callable[[Scope, RequestError], None],
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._authenticator.is_open(_path(scope)):  # 1
            try:
                scope[KEY] = self._authenticator.authenticate(scope, asyncio.get_running_loop().time())
            except RequestError as error:
                self._on_refusal(scope, error)
                await error_response(error)(scope, receive, send)
                return
        elif scope["type"] == "websocket":  # the API has none
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)


def _path(scope: Scope) -> str:
    """The path as routes see it, without the path under which the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _presented_key(scope: Scope) -> bytes:
    sent = _headers(scope, b"authorization")
    if not sent:
        raise Unauthorized("an API key is needed: Authorization: Bearer KEY")
    if len(sent) > 1:
        raise Unauthorized(f"there are {len(sent)} Authorization headers; send one")
    bearer = BEARER.fullmatch(sent[0])
    if bearer is None:
        raise Unauthorized("the Authorization header has to be: Bearer KEY")
    return bearer[1]


def _require_local(scope: Scope) -> None:
    for end in ("server", "client"):
        host = (scope.get(end) or ("",))[0]
        if not is_loopback(host):
            raise Forbidden(f"{ONLY_LOCAL}, and this request came over another interface")
    for header in CLIENT_OF_PROXY:
        for hosts in _headers(scope, header):
            if not all(is_loopback(host.strip()) for host in hosts.decode("latin-1").split(",")):
                raise Forbidden(f"{ONLY_LOCAL}, and a proxy says that this one came from elsewhere")
    for host in _headers(scope, b"host"):
        name = HOST_PORT.sub("", host.decode("latin-1"))
        if not is_loopback(name) and not name.lower().endswith(".localhost"):
            raise Forbidden(f"{ONLY_LOCAL}, under a name such as localhost, not {name!r:.80}")


def _headers(scope: Scope, name: bytes) -> list[bytes]:
    return [value for header, value in scope["headers"] if header.lower() == name]
