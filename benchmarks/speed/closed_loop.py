"""Load in closed loop on the orchestrators of `overhead`, from a process of its own.

So many clients ask again as soon as they have an answer. The clients are `raw_client`'s; they read
their answers when the block is over, so that they take little of the CPU that they share with the
orchestrator.
"""

import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import uvloop

from benchmarks.shared.harness import QUESTIONS
from benchmarks.shared.raw_client import Connection, Exchange, read
from benchmarks.speed.backends import AGGREGATOR, IDEAL_WHOLE_S, MODELS, SERVED_NAME, mark


@dataclass(frozen=True, slots=True)
class Load:
    """Requests to one orchestrator.

    block: the name by which the simulated servers record it; requests: of each client; spread: the
    clients begin one after the other over the time of an ideal answer, and not all at once; fields: of
    each request's body, beside the usual ones.
    """

    url: str
    block: str
    concurrency: int
    requests: int
    spread: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as its client saw it: moments of the monotonic clock."""

    number: int
    began: float
    first: float
    ended: float


@dataclass(frozen=True, slots=True)
class Block:
    """What came of a load. cpu_s: CPU seconds of the client's process meanwhile."""

    by_client: list[list[Request]]
    cpu_s: float

    @property
    def requests(self) -> list[Request]:
        """All of them."""
        return [request for client in self.by_client for request in client]

    @property
    def wall_s(self) -> float:
        """From the first request to the end of the last."""
        return max(r.ended for r in self.requests) - min(r.began for r in self.requests)

    @property
    def per_s(self) -> float:
        """Requests per second: the sum over the clients, each over the time that it was at work."""
        return sum(len(c) / (c[-1].ended - c[0].began) for c in self.by_client)


def process_of(pool: ProcessPoolExecutor) -> int:
    """The ID of the process in which the clients run."""
    return pool.submit(os.getpid).result()


def offer(pool: ProcessPoolExecutor, load: Load) -> Block:
    """Offer a load from the pool's process."""
    block: Block = pool.submit(_run, _offer, load).result()
    return block


def in_turns(pool: ProcessPoolExecutor, loads: tuple[Load, ...]) -> list[Block]:
    """The loads' requests one at a time, in turns: the first of each, then the second of each."""
    blocks: list[Block] = pool.submit(_run, _in_turns, loads).result()
    return blocks


def question(block: str, number: int) -> dict[str, Any]:
    """The body of a request, with the mark by which its calls are recorded."""
    text = f"{QUESTIONS[number % len(QUESTIONS)]} {mark(block, number)}"
    return {"model": SERVED_NAME, "messages": [{"role": "user", "content": text}]}


def _run(work: Callable[[Any], Awaitable[Any]], argument: Any) -> Any:
    gc.disable()  # its pauses would be taken for the orchestrator's
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work(argument))  # type: ignore[arg-type]
    finally:
        gc.enable()
        gc.collect()


async def _offer(load: Load) -> Block:
    connections = [Connection(load.url) for _ in range(load.concurrency)]
    for connection in connections:
        await connection.open()
    asked: list[list[tuple[int, Exchange]]] = [[] for _ in connections]

    async def client(place: int, connection: Connection) -> None:
        if load.spread:
            await asyncio.sleep(IDEAL_WHOLE_S * place / load.concurrency)
        for n in range(load.requests):
            number = n * load.concurrency + place
            asked[place].append((number, await connection.ask(_streamed(load, number))))

    cpu_s = time.process_time()
    async with asyncio.TaskGroup() as clients:
        for place, connection in enumerate(connections):
            clients.create_task(client(place, connection))
    cpu_s = time.process_time() - cpu_s
    for connection in connections:
        connection.close()
    return Block([[_request(*each) for each in client] for client in asked], cpu_s)


async def _in_turns(loads: tuple[Load, ...]) -> list[Block]:
    connections = [Connection(load.url) for load in loads]
    asked: list[list[tuple[int, Exchange]]] = [[] for _ in loads]
    for number in range(max(load.requests for load in loads)):
        for load, connection, mine in zip(loads, connections, asked, strict=True):
            mine.append((number, await connection.ask(_streamed(load, number))))
    for connection in connections:
        connection.close()
    return [Block([[_request(*each) for each in mine]], 0.0) for mine in asked]


def _streamed(load: Load, number: int) -> dict[str, Any]:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    return {**question(load.block, number), **usage, **load.fields}


def _request(number: int, exchange: Exchange) -> Request:
    """The request, read; raises RuntimeError if its answer is not whole."""
    reply = read(exchange)
    words = len(reply.text.split())
    if reply.problem or words != MODELS[AGGREGATOR].tokens or reply.moa.get("degraded"):
        raise RuntimeError(f"status {reply.status}, {words} words: {reply.problem or reply.moa}")
    return Request(number, exchange.began, reply.words[0][0], exchange.ended)
