"""What the `openai_http` engine costs beside OpenAI's own Python client, in the same run.

    python -m benchmarks.speed.http_clients [--quick] [--json FILE]

The question is whether `openai.AsyncOpenAI` should replace the hand-written HTTP client of
`actors/engines/openai_http.py`. The rule: ours stays as long as OpenAI's client takes at least 1.1
times its CPU time per request, at concurrency 1 and at concurrency 32.

All clients run in this process and call the same simulated server, which has a process of its own.
They take turns, block by block, under three loads: one stream at a time and 32 streams at a time with
5 ms between tokens, and 32 streams at a time without pauses. With pauses, chunks arrive one by one, as
from a real model. Without pauses, requests/s shows the most that client and server together can do.
OpenAI's client is measured twice: over httpx, its default, and over aiohttp (`DefaultAioHttpClient`).

Columns: CPU milliseconds of this process per request of 128 tokens; the same over ours; CPU
microseconds per chunk, from the difference between requests of 128 and of 8 tokens; the time to the
first token, less what the server waits before it; requests/s.

Limits of this measurement: the server shares the machine's cores, so only the CPU figures hold while
other work runs. They include the benchmark's own loop, which is the same for all clients. Host names,
TLS and a real network are left out, and so is how the clients treat odd servers.
"""

import asyncio
import gc
import json as jsonlib
import multiprocessing
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from aiohttp import web
from openai import AsyncOpenAI, DefaultAioHttpClient, Timeout, omit
from openai.types.chat.chat_completion_chunk import Choice

from actors.engine import Delta, Message
from actors.engines.openai_http import OpenAIHttpEngine
from benchmarks.shared.harness import HOST, QUESTIONS, Limit, percentile, report, run
from configs.schema import OpenAIHttpModel, Sampling

OURS, OPENAI, OPENAI_AIOHTTP = "openai_http", "AsyncOpenAI", "AsyncOpenAI, aiohttp"
CPU_RATIO_LIMIT = 1.1
"""OpenAI's client replaces ours if it takes no more than this many times our CPU time."""
LONG_TOKENS = 128
SHORT_TOKENS = 8
FIRST_TOKEN_S = 0.05
"""Seconds that the paced server waits before its first token."""
TOKEN_S = 0.005
"""Seconds between two tokens of the paced server: about those of a 7B model on a data-centre card."""


@dataclass(frozen=True, slots=True)
class Load:
    """One way to call the server."""

    concurrency: int
    paced: bool
    """Whether the server waits between tokens."""
    requests: int
    """Requests of each length in one block."""

    def __str__(self) -> str:
        return f"{self.concurrency}, {'paced' if self.paced else 'unpaced'}"


LOADS = (Load(1, True, 8), Load(32, True, 128), Load(32, False, 128))


class OpenAIClient:
    """A straightforward engine over OpenAI's client: what would replace ours."""

    def __init__(self, base_url: str, model: str, *, over_aiohttp: bool = False) -> None:
        self._model = model
        self._client = AsyncOpenAI(
            base_url=base_url,
            api_key="none",
            max_retries=0,
            timeout=Timeout(120, connect=10),
            http_client=DefaultAioHttpClient() if over_aiohttp else None,
        )

    async def stream(self, messages: Sequence[Message], sampling: Sampling) -> AsyncGenerator[Delta]:
        """Answer a conversation; the fields that are sent and read are the engine's."""
        asked: Any = list(messages)
        chunks = await self._client.chat.completions.create(
            model=self._model,
            messages=asked,
            stream=True,
            stream_options={"include_usage": True},
            temperature=omit if sampling.temperature is None else sampling.temperature,
            top_p=omit if sampling.top_p is None else sampling.top_p,
            max_tokens=omit if sampling.max_tokens is None else sampling.max_tokens,
        )
        prompt_tokens = completion_tokens = 0
        async with chunks:
            async for chunk in chunks:
                if chunk.usage is not None:
                    prompt_tokens = chunk.usage.prompt_tokens
                    completion_tokens = chunk.usage.completion_tokens
                if not chunk.choices:
                    continue
                if (delta := _delta(chunk.choices[0])) != Delta():
                    yield delta
        yield Delta(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)

    async def stop(self) -> None:
        """Close all connections."""
        await self._client.close()


def _delta(choice: Choice) -> Delta:
    text, logprobs = choice.delta, choice.logprobs
    reason: Any = choice.finish_reason
    return Delta(
        text=text.content or "",
        reasoning=getattr(text, "reasoning_content", None) or getattr(text, "reasoning", None) or "",
        finish_reason=reason if reason in (None, "length") else "stop",
        logprobs=tuple(t.model_dump() for t in logprobs.content or ()) if logprobs else (),
    )


Client = OpenAIHttpEngine | OpenAIClient


async def start_clients(url: str, model: str) -> dict[str, Client]:
    """Start the clients, each with its own connections, and return them by name."""
    settings = {"engine": "openai_http", "base_url": url, "model": model, "retries": 0}
    engine = OpenAIHttpEngine("server", OpenAIHttpModel.model_validate(settings))
    await engine.start()
    over_aiohttp = OpenAIClient(url, model, over_aiohttp=True)
    return {OURS: engine, OPENAI: OpenAIClient(url, model), OPENAI_AIOHTTP: over_aiohttp}


@dataclass
class Block:
    """What one client's requests of one length took."""

    cpu_s: float
    """CPU seconds of this process per request."""
    rate: float
    """Requests per second."""
    first_s: list[float]
    """Seconds to the first token, by request."""


async def measure_block(client: Client, load: Load, tokens: int, requests: int) -> Block:
    """Send `requests` requests of `tokens` tokens, always as many at a time as the load has."""
    numbers = iter(range(requests))
    first_s: list[float] = []

    async def send_requests() -> None:
        for number in numbers:
            first_s.append(await time_to_first_token(client, number, tokens))

    gc.collect()
    began_s, cpu_began_s = time.monotonic(), time.process_time()
    async with asyncio.TaskGroup() as senders:
        for _ in range(load.concurrency):
            senders.create_task(send_requests())
    cpu_s, wall_s = time.process_time() - cpu_began_s, time.monotonic() - began_s
    return Block(cpu_s / requests, requests / wall_s, first_s)


async def time_to_first_token(client: Client, number: int, tokens: int) -> float:
    """Seconds to the first text of one request; raises RuntimeError if the answer is not whole."""
    messages: list[Message] = [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}]
    began_s, first_s, words, counted = time.monotonic(), 0.0, 0, 0
    async with aclosing(client.stream(messages, Sampling(max_tokens=tokens))) as deltas:
        async for delta in deltas:
            if delta.text:
                first_s = first_s or time.monotonic() - began_s
                words += 1
            counted += delta.completion_tokens
    if not words == counted == tokens:
        raise RuntimeError(f"{words} words and {counted} counted tokens instead of {tokens}")
    return first_s


@dataclass
class Figures:
    """The blocks of one client under one load."""

    long: list[Block] = field(default_factory=list)
    short: list[Block] = field(default_factory=list)

    @property
    def cpu_s(self) -> float:
        """CPU seconds per long request, of the median block."""
        return median(block.cpu_s for block in self.long)

    @property
    def chunk_s(self) -> float:
        """CPU seconds per chunk: the median difference of long and short requests."""
        pairs = zip(self.long, self.short, strict=True)
        return median(long.cpu_s - short.cpu_s for long, short in pairs) / (LONG_TOKENS - SHORT_TOKENS)

    @property
    def first_s(self) -> float:
        """Seconds to the first token, p50 over the requests of both lengths."""
        return percentile([s for block in self.long + self.short for s in block.first_s], 0.5)


async def measure(url: str, blocks: int, requests: int | None) -> dict[tuple[Load, str], Figures]:
    """Figures by load and client. Clients take turns; each block begins with another one of them."""
    figures: dict[tuple[Load, str], Figures] = {}
    async with AsyncExitStack() as stack:
        for load in LOADS:
            clients = await start_clients(url, "paced" if load.paced else "unpaced")
            for name, client in clients.items():
                stack.push_async_callback(client.stop)
                figures[load, name] = Figures()
                await measure_block(client, load, SHORT_TOKENS, load.concurrency * 2)  # warms up
            order = list(clients.items())
            for _ in range(blocks):
                for name, client in order:
                    of_client, count = figures[load, name], requests or load.requests
                    of_client.long.append(await measure_block(client, load, LONG_TOKENS, count))
                    of_client.short.append(await measure_block(client, load, SHORT_TOKENS, count))
                order.append(order.pop(0))
    return figures


def serve(sock: socket.socket) -> None:
    """Run the simulated server: an answer is `max_tokens` words, the token counts and [DONE]."""

    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        paced, loop = body["model"] == "paced", asyncio.get_running_loop()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        due_s = loop.time() + FIRST_TOKEN_S
        for _ in range(body["max_tokens"]):
            await asyncio.sleep(due_s - loop.time() if paced else 0)
            due_s += TOKEN_S
            await response.write(word)
        usage = {"prompt_tokens": 20, "completion_tokens": body["max_tokens"]}
        await response.write(last + _event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        return response

    # Encoded once, so that the server takes little of the cores that it shares with the clients.
    choice = {"index": 0, "logprobs": None, "finish_reason": None}
    word = _event({"choices": [choice | {"delta": {"content": " word"}}]})
    last = _event({"choices": [choice | {"delta": {}, "finish_reason": "stop"}]})
    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    web.run_app(app, sock=sock, print=None, access_log=None)


def _event(fields: dict[str, Any]) -> bytes:
    """A chunk with the fields that OpenAI's servers and vLLM send in each of them."""
    head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": "simulated"}
    return f"data: {jsonlib.dumps(head | fields)}\n\n".encode()


def main(
    *,
    quick: Annotated[bool, typer.Option(help="Few requests: that it runs, not how fast.")] = False,
    blocks: Annotated[int, typer.Option(help="Blocks per client and load.")] = 5,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """The openai_http engine beside OpenAI's client; takes about 3 minutes."""
    sock = socket.create_server((HOST, 0))  # calls wait in its queue until the server is up
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(sock,))
    server.start()
    try:
        url = f"http://{HOST}:{sock.getsockname()[1]}/v1"
        figures = asyncio.run(measure(url, 1 if quick else blocks, 4 if quick else None))
    finally:
        server.terminate()
        server.join()
    summarise(figures, json)


def summarise(figures: dict[tuple[Load, str], Figures], json: Path | None) -> None:
    """Print one row per load and client, and the limits."""
    rows: list[dict[str, Any]] = []
    for (load, client), of_client in figures.items():
        first_s = of_client.first_s - (FIRST_TOKEN_S if load.paced else 0)
        rows.append(
            {"concurrency": str(load), "client": client}
            | {"CPU ms/request": of_client.cpu_s * 1e3}
            | {"over ours": of_client.cpu_s / figures[load, OURS].cpu_s}
            | {"CPU us/chunk": of_client.chunk_s * 1e6, "first token ms": first_s * 1e3}
            | {"requests/s": median(block.rate for block in of_client.long)}
        )
    limits = [
        Limit(
            f"CPU of {client} over ours, {load}",
            of_client.cpu_s / figures[load, OURS].cpu_s,
            CPU_RATIO_LIMIT,
            at_least=True,
        )
        for (load, client), of_client in figures.items()
        if client != OURS and load.paced
    ]
    title = f"Requests of {LONG_TOKENS} tokens; on a missed limit, OpenAI's client should replace ours"
    report(title, rows, limits, json)


if __name__ == "__main__":
    run(main)
