"""What a request gets whose path or method is none of the API's, and paths that mean one of them.

`Paths` lets three other ways of asking reach a route:

1. A path with slashes too many (`//v1/models`, `/v1/models/`) means the path without them. Base URLs
   that end with a slash make such paths. A redirect would make many clients repeat a POST as a GET.
2. HEAD is answered as GET is, without the body (RFC 9110, 9.3.2).
3. The names that other servers have for `/readyz`: benchmarks look there before they begin.
"""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CHAT = "/v1/chat/completions"
SLASHES = re.compile("/{2,}")
ONLY_CHAT = f"this server answers conversations: POST {CHAT} with `messages`"
NOT_KEPT = "this server keeps no answers; send the whole conversation with each request"
OTHER_NAMES = dict.fromkeys(("/health", "/v1/health", "/health/ready", "/ping"), "/readyz")
"""Paths by which vLLM, llama.cpp, SGLang and TGI say whether they can answer, and our path."""
BASE = "the base URL of this OpenAI-compatible API ends with /v1, such as http://HOST:PORT/v1"
HINTS = (
    (r"/", f"the page here is for browsers (Accept: text/html); {BASE}: POST {CHAT}, GET /v1/models"),
    (r"/v1/completions", f"there are no text completions here; {ONLY_CHAT}"),
    (r".*/(embeddings?|embed)", f"there are no embeddings here; {ONLY_CHAT}"),
    (r".*/rerank", f"there is no reranking here; {ONLY_CHAT}"),
    (r"/v1/(audio|images|videos|realtime|moderations)(/.*)?", f"text only; {ONLY_CHAT}"),
    (r"/v1/messages(/.*)?", f"this is not Anthropic's API but OpenAI's; {ONLY_CHAT}"),
    (r"/v1/(responses|conversations|chat/completions)/.*|/v1/conversations", NOT_KEPT),
    (r"/v1/(files|batches|fine_tuning|assistants|threads|vector_stores)(/.*)?", ONLY_CHAT),
    (r"/api(/.*)?", f"this is not Ollama's API but OpenAI's; {ONLY_CHAT}"),
)
"""Paths of other servers, or of other parts of OpenAI's API, and what to do instead. The first pattern
that matches counts."""


class Paths:
    """Middleware that does what the file's docstring says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            root = scope.get("root_path", "")
            path = SLASHES.sub("/", scope["path"].removeprefix(root))  # 1
            path = path.rstrip("/") or "/"
            scope = {**scope, "path": root + OTHER_NAMES.get(path, path)}  # 3
            if scope["method"] == "HEAD":  # 2
                scope["method"] = "GET"
                send = _without_body(send)
        await self._app(scope, receive, send)


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head


def where_to_ask(method: str, path: str) -> str:
    """The message for a request to a path that is not there: where the API is."""
    for pattern, hint in HINTS:
        if re.fullmatch(pattern, path):
            return f"{method} {path:.80}: {hint}"
    return f"{method} {path:.80}: there is nothing here; {BASE}: POST {CHAT}, GET /v1/models"


def allowed_methods(allow: str) -> str:
    """The value of `Allow` for a path, given the methods of its route: where GET is, HEAD is too."""
    methods = [method.strip() for method in allow.split(",")]
    return ", ".join([*methods, "HEAD"] if "GET" in methods else methods)
