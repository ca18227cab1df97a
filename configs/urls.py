"""The URL of an API's root, in the forms in which people write it.

`127.0.0.1:8000`, `localhost`, `http://host:8000/`, `https://host/prefix/v1/chat/completions` and `::1`
all name an API. What cannot be one is refused with an example.
"""

import re
from urllib.parse import SplitResult, urlsplit

from configs.access import is_loopback
from configs.errors import UserError

DEFAULT_PORT = 8000
"""The port of `slimmoa serve`, for a host that is named without scheme and port."""
ENDPOINTS = (
    "/chat/completions",
    "/completions",
    "/responses",
    "/models",
    "/embeddings",
    "/healthz",
    "/readyz",
    "/docs",
)
"""Paths below an API's root, or beside it, that people copy along with it."""
VERSION = re.compile(r"v\d+\w*", re.IGNORECASE)
"""The part of a path that names the API's version."""
EXAMPLE = "such as http://127.0.0.1:8000/v1"


class BadUrl(UserError):
    """A text is not the URL of an API."""


def api_root(text: str, option: str, *, adds_version: bool = True) -> str:
    """The root of an API, as clients need it: scheme, host, port and path, without a slash at the end.

    1. Without a scheme it is http, or https for port 443. A host without scheme and port is our own
       server's: DEFAULT_PORT.
    2. Paths of single endpoints (`/chat/completions`) are taken away.
    3. A path without a version gets `/v1`, if the path is empty or `adds_version` is true.
    4. 0.0.0.0 and [::], which servers print as the address that they listen on, mean this machine.

    Args:
        text: what a person wrote.
        option: who has given it, for messages: `--url`.
        adds_version: whether the path of the API is known to end with its version, as that of ours.

    Raises:
        BadUrl: this cannot be the URL of an API; the message has an example. It never repeats a
        password.
    """
    url = text.strip().strip("'\"<>").strip()
    if not url:
        raise BadUrl(f"{option}: the URL is empty; give the root of the API, {EXAMPLE}")
    if any(c.isspace() or not c.isprintable() for c in url):
        raise BadUrl(f"{option}: {_shown(url)} has a space in it; give one {EXAMPLE}")
    parts = _split(url, option)
    path = _path(parts.path, adds_version=adds_version)
    return f"{parts.scheme}://{parts.netloc}{path}"


def is_this_machine(url: str) -> bool:
    """Whether a URL always leads to this machine, so that no proxy may stand between."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host in ("0.0.0.0", "::") or is_loopback(host)


def _split(url: str, option: str) -> SplitResult:
    wrong = f"{option}: {_shown(url)} is not the URL of an API"
    scheme, has_scheme, rest = url.partition("://")
    if not has_scheme:
        if re.match(r"https?:?/", url, re.IGNORECASE):
            raise BadUrl(f"{wrong}: the scheme is written http:// or https://; give one {EXAMPLE}")
        rest = _with_brackets(url)
        authority = rest.partition("/")[0]
        scheme = "https" if authority.endswith(":443") else "http"
        if authority.rpartition("]")[2].rstrip(":") == authority.rpartition("]")[2].split(":")[0]:
            rest = f"{authority.rstrip(':')}:{DEFAULT_PORT}{rest[len(authority) :]}"
    scheme = scheme.lower()
    if scheme not in ("http", "https"):
        why = f"it begins with {scheme[:20]}://, and only http:// and https:// are known"
        raise BadUrl(f"{wrong}: {why}; give one {EXAMPLE}")
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        is_address = rest.partition("/")[0].count(":") > 1 or "ort" not in str(error)
        why = "the port is a number from 1 to 65535"
        raise BadUrl(f"{wrong}: {_ADDRESS if is_address else f'{why}; give one {EXAMPLE}'}") from None
    if not host or not re.fullmatch(r"[\w.:%-]+", host) or host.startswith(("-", ".")) or port == 0:
        why = "the port is a number from 1 to 65535" if port == 0 else "it has no host"
        raise BadUrl(f"{wrong}: {why}; give one {EXAMPLE}")
    if parts.query or parts.fragment:
        raise BadUrl(f"{wrong}: it has a ? or a #; give only the root, {EXAMPLE}")
    if parts.username or parts.password:
        raise BadUrl(
            f"{option}: leave user and password out of the URL; give the API key with --api-key"
        )
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # 4
    netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    return parts._replace(netloc=netloc)


_ADDRESS = "an address of IPv6 stands in brackets, such as http://[::1]:8000/v1"


def _with_brackets(url: str) -> str:
    """An address of IPv6 alone, which people write without brackets, gets them."""
    return f"[{url}]" if url.count(":") > 1 and re.fullmatch(r"[0-9A-Fa-f:.]+", url) else url


def _path(path: str, *, adds_version: bool) -> str:
    path = re.sub(r"/{2,}", "/", path).rstrip("/")
    path = re.sub(r"(?<=/)V(?=\d)", "v", path)
    for endpoint in ENDPOINTS:
        path = path.removesuffix(endpoint).rstrip("/")
    has_version = any(VERSION.fullmatch(step) for step in path.split("/"))
    return path if has_version or (path and not adds_version) else f"{path}/v1"


def _shown(url: str) -> str:
    """The text for a message, without user and password."""
    return repr(re.sub(r"(?<=//)[^/@]*@|^[^/@]*@", "***@", url))[:120]
