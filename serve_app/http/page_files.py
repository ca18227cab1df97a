"""The page at `/`: the files of a folder, served to browsers as they are.

The files are built from `page/` (CONTRIBUTING.md). They hold nothing of the recipe, of its answers or
of its users, and they are the same for everybody. So they need no API key, and the middleware stands
before authentication. The page asks the API for all that it shows, with the key that its user types.

1. `GET /` gives `index.html` to those who ask for HTML by name, as browsers do. To all others, such as
   clients of the API with a wrong base URL, and `curl`, there is no `/`: they read where the API is.
2. `GET /page/NAME` gives a file of the folder. All files are read when the server starts, and names are
   compared with theirs exactly, so no name leads out of the folder.
3. HEAD is answered as GET is, without the body.

Every other request passes.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.types import ASGIApp, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
"""What the page may do (Content Security Policy). The texts of models are hostile: whatever one of them
might smuggle into the page can run no script, and can load nothing from another host."""
SAFETY = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
"""Headers of every file of the page."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
"""Content types by the end of a name. Files with other ends are not served."""
INDEX = "index.html"
PACKED = ".gz"
"""What the name of a file's compressed form ends with."""
HASHED = re.compile(r".+-([A-Z2-7]{8}|[0-9a-f]{8,64})\.\w+")
"""Names that change with the content: esbuild's eight characters of base 32, or hexadecimal digits."""
FOR_EVER = "public, max-age=31536000, immutable"
"""Cache-Control of files whose names change with their content."""
ASK_FIRST = "no-cache"
"""Cache-Control of all other files: a browser asks by ETag whether its copy is still good."""


def built_page() -> Traversable:
    """The folder with the page of this package."""
    return resources.files("serve_app").joinpath("page")


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the page."""

    content: bytes
    packed: bytes | None
    """The content, compressed by gzip; None if nobody has compressed it."""
    content_type: str
    cache: str
    """The value of Cache-Control."""
    tag: str
    """The checksum in its ETags."""
    vary: str
    """The value of Vary: headers of a request on which the response depends."""


class PageFiles:
    """Middleware that serves the page, as the file's docstring says.

    Args:
        app: answers all other requests.
        folder: the files of the page.
    """

    def __init__(self, app: ASGIApp, folder: Traversable) -> None:
        self._app = app
        self._files = dict(_read(folder))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = self._asked(scope) if scope["type"] == "http" else None
        if file is None:
            await self._app(scope, receive, send)
            return
        status, headers, body = _response(file, scope)
        if scope["method"] == "HEAD":
            body = b""
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    def _asked(self, scope: Scope) -> _File | None:
        """The file that a request asks for; None if it asks for none."""
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        file = self._files.get(path)
        if file is None or scope["method"] not in ("GET", "HEAD"):
            return None
        return file if path != "/" or _wants_html(scope) else None


def _read(folder: Traversable) -> Iterator[tuple[str, _File]]:
    """The files of the page by their paths; none if there is no page."""
    found = {file.name: file for file in folder.iterdir()} if folder.is_dir() else {}
    for name, file in found.items():
        content_type = TYPES.get(name[name.rfind(".") :])
        if content_type is None or not file.is_file():
            continue
        content, packed = file.read_bytes(), found.get(f"{name}{PACKED}")
        yield (
            "/" if name == INDEX else f"/page/{name}",
            _File(
                content=content,
                packed=None if packed is None else packed.read_bytes(),
                content_type=content_type,
                cache=FOR_EVER if HASHED.fullmatch(name) else ASK_FIRST,
                tag=hashlib.sha256(content).hexdigest()[:32],
                vary="accept, accept-encoding" if name == INDEX else "accept-encoding",
            ),
        )


def _response(file: _File, scope: Scope) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the response to a GET."""
    packed = file.packed if _is_welcome("gzip", _weights(scope, b"accept-encoding")) else None
    # Two forms of a file have two ETags, because their bytes differ (RFC 9110, 8.8.3).
    tag = f'"{file.tag}"' if packed is None else f'"{file.tag}-gz"'
    headers = {"cache-control": file.cache, "etag": tag, "vary": file.vary, **SAFETY}
    known = _header(scope, b"if-none-match")
    if known.strip() == "*" or tag in (each.strip().removeprefix("W/") for each in known.split(",")):
        return 304, headers, b""
    headers["content-type"] = file.content_type
    if packed is not None:
        headers["content-encoding"] = "gzip"
    body = file.content if packed is None else packed
    headers["content-length"] = str(len(body))
    return 200, headers, body


def _wants_html(scope: Scope) -> bool:
    """Whether the client names HTML among what it reads, and likes JSON no better."""
    weights = _weights(scope, b"accept")
    html = weights.get("text/html", 0.0)
    return html > 0 and html >= weights.get("application/json", 0.0)


def _is_welcome(coding: str, weights: Mapping[str, float]) -> bool:
    return weights.get(coding, weights.get("*", 0.0)) > 0


def _weights(scope: Scope, name: bytes) -> dict[str, float]:
    """The weight of each item of a header such as `Accept` (RFC 9110, 12.4.2), 0 to 1."""
    weights: dict[str, float] = {}
    for item in _header(scope, name).lower().split(","):
        value, *parameters = (part.strip() for part in item.split(";"))
        found = [part[2:] for part in parameters if part.startswith("q=")]
        weights[value] = _number(found[0]) if found else 1.0
    return weights


def _number(text: str) -> float:
    """A weight; 0 for a text that is none."""
    return float(text) if re.fullmatch(r"[01](\.\d{0,3})?", text) else 0.0


def _header(scope: Scope, name: bytes) -> str:
    """The values of a header, joined; empty if the request does not have it."""
    values = [value for header, value in scope["headers"] if header.lower() == name]
    return b",".join(values).decode("latin-1")
