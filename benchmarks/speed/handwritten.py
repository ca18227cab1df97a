"""The yardstick: a mixture of agents as one would write it by hand, with asyncio and aiohttp alone.

`python -m benchmarks.speed.handwritten PORT BACKENDS_URL` serves it in OpenAI's shape, streamed.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

INSTRUCTIONS = "Synthesise these responses into one answer. Judge them critically."


class Handwritten:
    """Two proposers side by side, then an aggregator that streams; no limits, no error handling."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def answer(self, question: str) -> AsyncIterator[str]:
        """The aggregator's text as it comes."""
        user = {"role": "user", "content": question}
        proposals = await asyncio.gather(
            self._whole("proposer-a", [user], 64), self._whole("proposer-b", [user], 64)
        )
        references = "\n".join(f"{n}. {text}" for n, text in enumerate(proposals, 1))
        system = {"role": "system", "content": f"{INSTRUCTIONS}\n{references}"}
        async for text in self._stream("aggregator", [system, user], 128):
            yield text

    async def _whole(self, model: str, messages: list[dict[str, str]], tokens: int) -> str:
        return "".join([text async for text in self._stream(model, messages, tokens)])

    async def _stream(
        self, model: str, messages: list[dict[str, str]], tokens: int
    ) -> AsyncIterator[str]:
        body = {"model": model, "messages": messages, "stream": True, "max_tokens": tokens}
        url = f"{self._url}/{model}/v1/chat/completions"
        async with self._session.post(url, json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        if text := choice["delta"].get("content"):
                            yield text


async def create_app(url: str) -> web.Application:
    """An HTTP server around it."""

    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for text in Handwritten(session, url).answer(body["messages"][-1]["content"]):
            await response.write(_sse({"index": 0, "delta": {"content": text}}))
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await response.write(_sse(end) + b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    app.on_cleanup.append(lambda _: session.close())
    return app


def _sse(choice: dict[str, Any]) -> bytes:
    head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": "mixture"}
    return f"data: {json.dumps(head | {'choices': [choice]})}\n\n".encode()


if __name__ == "__main__":
    web.run_app(
        create_app(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        access_log=None,
        loop=uvloop.new_event_loop(),
    )
