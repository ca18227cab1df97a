"""The door: every request passes here before anything else looks at it. An ASGI middleware.

1. `/healthz` is open.
2. With keys, a request needs one: exactly one `Authorization: Bearer KEY` header. Two are refused
   even if both are right, because what stands in front of us may have looked at the other one.
3. Without keys, unless the recipe says `access.open`, only this machine may ask: by a connection of
   which both ends are here, and under a name of this machine's, so that no web page comes in by a name
   of its own that it has pointed here (DNS rebinding).
"""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from configs.access import Access, is_loopback
from configs.errors import Forbidden, RequestError, Unauthorized
from serve_app.access.api_keys import Key, KeyFile, match
from serve_app.error_response import error_response

OPEN_PATHS = frozenset({"/healthz"})
KEY = "slimmoa.key"
"""Where a request's scope has the Key that let it in."""
ANYONE = "anyone"
"""The name under which all are counted who come in without keys."""
BEARER = re.compile(rb"Bearer +([!-~]+) *", re.IGNORECASE)
HOST_PORT = re.compile(r":\d*$")
WHERE_FROM = "without API keys only this machine may ask (access.open in the recipe lets everybody in)"


class Authenticator:
    """Decides who a request is from. env_keys: those of the environment, beside the recipe's file.

    Raises:
        KeysError: the file of keys cannot be used.
    """

    def __init__(self, access: Access, env_keys: Sequence[Key] = ()) -> None:
        self._access = access
        self._env_keys = tuple(env_keys)
        self._file = None
        if access.keys_file is not None:
            self._file = KeyFile(Path(access.keys_file), access.reload_s)

    @property
    def asks_for_keys(self) -> bool:
        """Whether a request needs a key."""
        return self._file is not None or bool(self._env_keys)

    def has_several_keys(self, now: float) -> bool:
        """Whether more than one key can come in. now: of a clock in seconds."""
        return len(self._known_keys(now)) > 1

    def admit(self, scope: Scope, now: float) -> Key:
        """The key of a request, its allowance complete. now: of a clock in seconds.

        Raises:
            Unauthorized: it has none, several, or one that is not known.
            Forbidden: there are no keys, and it is not from this machine.
        """
        if self.asks_for_keys:
            key = self._known(_presented(scope), now)
        else:
            if not self._access.open:
                _check_is_local(scope)
            key = Key(ANYONE, b"")
        return Key(key.name, key.digest, key.allowance.over(self._access.allowance))

    def _known(self, presented: bytes, now: float) -> Key:
        key = match(self._known_keys(now), presented)
        if key is None:
            raise Unauthorized("this API key is not known here")
        return key

    def _known_keys(self, now: float) -> tuple[Key, ...]:
        return self._env_keys + (() if self._file is None else self._file.current(now))


class AuthMiddleware:
    """Lets in whom the doorkeeper knows, and answers the others itself."""

    def __init__(self, app: ASGIApp, keeper: Authenticator) -> None:
        self._app = app
        self._keeper = keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _path(scope) not in OPEN_PATHS:
            try:
                scope[KEY] = self._keeper.admit(scope, asyncio.get_running_loop().time())
            except RequestError as error:
                await error_response(error)(scope, receive, send)
                return
        elif scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)


def _path(scope: Scope) -> str:
    """The path as routes see it: below what the application is mounted under."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _presented(scope: Scope) -> bytes:
    sent = _headers(scope, b"authorization")
    if not sent:
        raise Unauthorized("an API key is needed: Authorization: Bearer KEY")
    if len(sent) > 1:
        raise Unauthorized(f"there are {len(sent)} Authorization headers; send one")
    bearer = BEARER.fullmatch(sent[0])
    if bearer is None:
        raise Unauthorized("the Authorization header has to be: Bearer KEY")
    return bearer[1]


def _check_is_local(scope: Scope) -> None:
    for end in ("server", "client"):
        host = (scope.get(end) or ("",))[0]
        if not is_loopback(host):
            raise Forbidden(f"{WHERE_FROM}, and this came over another interface")
    for host in _headers(scope, b"host"):
        name = HOST_PORT.sub("", host.decode("latin-1"))
        if not is_loopback(name) and not name.lower().endswith(".localhost"):
            raise Forbidden(f"{WHERE_FROM}, by a name of its own such as localhost, not {name!r:.80}")


def _headers(scope: Scope, name: bytes) -> list[bytes]:
    return [value for header, value in scope["headers"] if header.lower() == name]
