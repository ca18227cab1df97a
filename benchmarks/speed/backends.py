"""Simulated OpenAI-compatible servers: set latencies, real streaming, and a record of when they worked.

`python -m benchmarks.speed.backends PORT` serves each model of MODELS under /MODEL/v1. A user message
with `[request ID]` in it is recorded; GET /busy/ID tells when a backend worked on it, as pairs of
seconds on the monotonic clock, and forgets it.
"""

import asyncio
import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from aiohttp import web

MARK = re.compile(r"\[request (\w+)\]")


@dataclass(frozen=True, slots=True)
class Pace:
    """Latencies of one model, about those of a 7B to 70B model on a data-centre card."""

    first_token_s: float
    token_s: float
    tokens: int


MODELS = {
    "proposer-a": Pace(0.3, 0.005, 64),
    "proposer-b": Pace(0.3, 0.005, 64),
    "aggregator": Pace(0.2, 0.005, 128),
}


def create_app() -> web.Application:
    """The servers, all in one process."""
    busy: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    async def complete(request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        began = loop.time()
        body = await request.json()
        pace = MODELS[request.match_info["model"]]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        due = loop.time() + pace.first_token_s
        for n in range(pace.tokens):
            await asyncio.sleep(due - loop.time())
            due += pace.token_s
            await response.write(_sse({"choices": [{"index": 0, "delta": {"content": f"word{n} "}}]}))
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": pace.tokens}
        await response.write(_sse({"choices": [end]}) + _sse({"choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        if mark := MARK.search(body["messages"][-1]["content"]):
            busy[mark[1]].append((began, loop.time()))
        await response.write_eof()
        return response

    async def intervals(request: web.Request) -> web.Response:
        return web.json_response(busy.pop(request.match_info["id"], []))

    app = web.Application()
    app.router.add_post("/{model}/v1/chat/completions", complete)
    app.router.add_get("/busy/{id}", intervals)
    return app


def _sse(fields: dict[str, Any]) -> bytes:
    head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": "simulated"}
    return f"data: {json.dumps(head | fields)}\n\n".encode()


if __name__ == "__main__":
    web.run_app(create_app(), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
