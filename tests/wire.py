"""Attempts on the door that no HTTP client would make, for any server that speaks HTTP/1.1."""

import io
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPMessage, HTTPResponse
from typing import Any, cast

import httpx

CHAT = "/v1/chat/completions"
CLOSE = "Connection: close"
UPGRADES: dict[str, tuple[str, ...]] = {
    "the JDK's": (
        "Connection: Upgrade, HTTP2-Settings",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
        "Upgrade: h2c",
    ),
    "curl's": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    "websocket": ("Connection: Upgrade", "Upgrade: websocket"),
    "any": ("Connection: upgrade", "Upgrade: foo/2"),
    "without Connection": ("Upgrade: h2c",),
}
"""Headers by which clients offer to speak another protocol, by who sends them."""


def head(*lines: str, path: str = "/v1/models", method: str = "GET") -> str:
    """A request without its body."""
    return "\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""])


def post(key: str, *lines: str) -> str:
    """The head of a chat completion's request."""
    typed = ("Content-Type: application/json", f"Authorization: Bearer {key}")
    return head(*typed, *lines, path=CHAT, method="POST")


def ambiguous(key: str) -> dict[str, tuple[str, list[int]]]:
    """Requests of two meanings, in one of which `key` lets them in, and the statuses that they get."""
    return {
        "two headers, the first right": (
            head(f"Authorization: Bearer {key}", "Authorization: Bearer x", CLOSE),
            [401],
        ),
        "two headers, the last right": (
            head("Authorization: Bearer x", f"Authorization: Bearer {key}", CLOSE),
            [401],
        ),
        "two keys in a header": (head(f"Authorization: Bearer x, Bearer {key}", CLOSE), [401]),
        "a space before the colon": (head(f"Authorization : Bearer {key}", CLOSE), [400]),
        "a folded line": (head("X: y", f" Authorization: Bearer {key}", CLOSE), [401]),
        "the open path, climbed out of": (head(CLOSE, path="/healthz/../v1/models"), [401]),
        "the same, encoded": (head(CLOSE, path="/healthz/%2e%2e/v1/models"), [401]),
        "the open path in a query": (head(CLOSE, path="/v1/models?/healthz"), [401]),
        "an absolute target": (head(CLOSE, path="http://localhost/v1/models"), [401]),
    }


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    headers: HTTPMessage
    body: str


class _Seen(io.BytesIO):
    """What was received, as the standard library's parser reads it from a socket."""

    def makefile(self, _mode: str) -> "_Seen":
        return self

    def close(self) -> None:
        """Stay open for the next response."""


def answers(seen: bytes) -> list[Answer]:
    """The responses in what was received; interim responses are left out."""
    stream, found = _Seen(seen), list[Answer]()
    while stream.tell() < len(seen):
        response = HTTPResponse(cast("socket.socket", stream))
        response.begin()
        found.append(Answer(response.status, response.headers, response.read().decode()))
    return found


class Wire:
    """A bare connection to the server at `url`. Nothing here waits longer than `patience_s`."""

    def __init__(self, url: str, patience_s: float = 20) -> None:
        at = httpx.URL(url)
        self._socket = socket.create_connection((at.host, at.port or 80), timeout=patience_s)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, head: str, body: str = "") -> None:
        """A head, its lines ended as HTTP has them, and a body as it is."""
        self._socket.sendall(head.replace("\n", "\r\n").encode() + body.encode())

    def end(self) -> None:
        """Send no more, but go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def answers(self) -> list[Answer]:
        """All responses until the server closes, which it has to."""
        return answers(self._received())

    def statuses(self) -> list[int]:
        """Of all responses until the server closes, which it has to; interim ones included."""
        lines = self._received().split(b"\r\n")
        return [int(line.split()[1]) for line in lines if line.startswith(b"HTTP/1.1 ")]

    def _received(self) -> bytes:
        seen = b""
        try:
            while part := self._socket.recv(65_536):
                seen += part
        except ConnectionResetError:  # it closed with something of ours unread
            pass
        return seen


def upgrading(key: str, lines: Sequence[str], body: str = "") -> tuple[str, str]:
    """The head and the body of a request that offers another protocol and ends its connection."""
    body = body or asked("mix")
    sent = post(key, *lines, CLOSE, f"Content-Length: {len(body)}")
    return sent.replace("\n", "\r\n"), body


def attempt(url: str, head: str, body: str = "") -> list[int]:
    """The statuses that one attempt gets."""
    with Wire(url) as wire:
        try:
            wire.send(head, body)
        except (ConnectionResetError, BrokenPipeError):
            return []
        return wire.statuses()


def smuggled(url: str, key: str) -> list[int]:
    """A body of two lengths, with a request in it that has a key: were it seen, it would get a 200."""
    outer = head(
        "Content-Type: application/json",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        path=CHAT,
        method="POST",
    )
    return attempt(url, outer, "0\r\n\r\n" + head(f"Authorization: Bearer {key}", CLOSE))


def asked(model: str, **fields: Any) -> str:
    """A request's body."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]} | fields)
