"""Servers for the HTTP engine that behave well, badly and oddly."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from actors.engine import Delta, Message
from actors.engines.openai_http import OpenAIHttpEngine
from configs.schema import OpenAIHttpModel, Sampling

MESSAGES: list[Message] = [{"role": "user", "content": "hello"}]
KEY = "sk-very-secret"
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Sends its replies in order, then repeats the last reply; records the requests."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = replies
        self.requests: list[web.Request] = []
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.peers: list[object] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.times.append(time.monotonic())
        assert request.transport is not None
        self.peers.append(request.transport.get_extra_info("peername"))
        self.bodies.append(await request.json())
        return await self.replies[min(len(self.bodies), len(self.replies)) - 1](request)


class Connect(Protocol):
    async def __call__(
        self, *replies: Reply, **settings: object
    ) -> tuple[OpenAIHttpEngine, Server]: ...


def model(**settings: object) -> OpenAIHttpModel:
    quick = {"engine": "openai_http", "model": "m", "backoff_s": 0.001}
    return OpenAIHttpModel.model_validate(quick | settings)


def whole(body: bytes | str, content_type: str = "text/event-stream", status: int = 200) -> Reply:
    """A reply that is sent in one piece."""

    async def reply(_request: web.Request) -> web.StreamResponse:
        raw = body.encode() if isinstance(body, str) else body
        return web.Response(body=raw, content_type=content_type, status=status)

    return reply


def piecewise(*parts: str, then: Callable[[web.Request], Awaitable[object]] | None = None) -> Reply:
    """A streamed reply, written part by part; `then` is awaited before the stream ends."""

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await response.write(part.encode())
        if then is not None:
            await then(request)
        return response

    return reply


def refusal(status: int, error: object = "no", **headers: str) -> Reply:
    async def reply(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": error}, status=status, headers=headers)

    return reply


async def hang(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def disconnect(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


def chunk(text: str | None = None, finish: str | None = None, **more: object) -> str:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]} | more)}\n\n"


USAGE = {"prompt_tokens": 7, "completion_tokens": 2}
COUNTED = f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\n"
DONE = "data: [DONE]\n\n"
HELLO = chunk("Hel") + chunk("lo") + chunk(finish="stop") + COUNTED + DONE


async def answer(engine: OpenAIHttpEngine, *, streamed: bool = True, **sampling: Any) -> list[Delta]:
    return [d async for d in engine.stream(MESSAGES, Sampling.model_validate(sampling), streamed)]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)
