"""Simulated OpenAI-compatible servers: set latencies, real streaming, and a record of each call.

`python -m benchmarks.speed.backends PORT` serves each model of MODELS under /MODEL/v1. A call whose
messages have `[request BLOCK.NUMBER]` in them is recorded. GET /calls/BLOCK gives the records of a
block and forgets them.

The servers share the machine with what is measured. So their answers are made beforehand, a token is
one write, and there is no HTTP library between a timer and the socket. They read requests that have a
Content-Length, as all clients of the benchmarks send them.
"""

import asyncio
import json
import re
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import aiohttp
import uvloop

from configs.schema import Recipe

MARK = re.compile(rb"\[request (\w+)\.(\d+)\]")
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
SERVED_NAME = "mixture"


@dataclass(frozen=True, slots=True)
class Pace:
    """Latencies of one model, about those of a 7B to 70B model on a data-centre card."""

    first_token_s: float
    token_s: float
    tokens: int

    @property
    def whole_s(self) -> float:
        """Seconds from a call's arrival to its last token."""
        return self.first_token_s + (self.tokens - 1) * self.token_s


PROPOSERS = ("proposer-a", "proposer-b")
AGGREGATOR = "aggregator"
MODELS = {
    "proposer-a": Pace(0.3, 0.005, 64),
    "proposer-b": Pace(0.3, 0.005, 64),
    AGGREGATOR: Pace(0.2, 0.005, 128),
}
IDEAL_FIRST_S = max(MODELS[name].whole_s for name in PROPOSERS) + MODELS[AGGREGATOR].first_token_s
"""Time to the first token of an answer, if nothing but the models takes time."""
IDEAL_WHOLE_S = IDEAL_FIRST_S + MODELS[AGGREGATOR].whole_s - MODELS[AGGREGATOR].first_token_s
"""The same for the whole answer."""


@dataclass(slots=True)
class Call:
    """The record of a call. Times are of the monotonic clock, which all processes share."""

    number: int
    """The request that the call belongs to."""
    model: str
    began: float
    """When the whole request had arrived."""
    wrote: list[float] = field(default_factory=list)
    """When each token was written, or made where the answer is sent in one piece."""
    ended: float | None = None
    """When the whole answer was written."""
    lost: float | None = None
    """When the connection was lost before the answer was whole."""

    @property
    def stopped(self) -> float:
        """When the server worked no longer; infinite for a call that is not over."""
        return next((at for at in (self.ended, self.lost) if at is not None), float("inf"))


def mark(block: str, number: int) -> str:
    """What a message says so that the calls of its request are recorded."""
    return f"[request {block}.{number}]"


async def calls_of(url: str, block: str) -> dict[int, list[Call]]:
    """The recorded calls of a block by request, each request's in the order in which they began."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/calls/{block}") as response:
        calls = [Call(**fields) for fields in await response.json()]
    found: dict[int, list[Call]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.began):
        found[call.number].append(call)
    return dict(found)


def recipe(url: str) -> Recipe:
    """Two proposers and an aggregator on the simulated servers, with room for 128 requests at once."""
    models = {
        name: {"engine": "openai_http", "base_url": f"{url}/{name}/v1", "model": name}
        | {"context_tokens": 32768, "concurrency": 256}
        for name in MODELS
    }
    proposers = [{"model": name, "sampling": {"max_tokens": MODELS[name].tokens}} for name in PROPOSERS]
    aggregator = {"model": AGGREGATOR, "sampling": {"max_tokens": MODELS[AGGREGATOR].tokens}}
    return Recipe.model_validate(
        {"name": SERVED_NAME, "models": models, "aggregator": aggregator}
        | {"layers": [{"proposers": proposers}]}
    )


def _sse(fields: dict[str, Any]) -> bytes:
    head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": "simulated"}
    return f"data: {json.dumps(head | fields)}\n\n".encode()


def _http_chunk(payload: bytes) -> bytes:
    return f"{len(payload):x}\r\n".encode() + payload + b"\r\n"


def _http_json(value: Any, status: str = "200 OK") -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _pieces(pace: Pace) -> list[bytes]:
    """What is written for each token; the last piece ends the answer."""
    words = [{"index": 0, "delta": {"content": f"word{n} "}} for n in range(pace.tokens)]
    pieces = [_http_chunk(_sse({"choices": [word]})) for word in words]
    end = _sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 100, "completion_tokens": pace.tokens}
    rest = end + _sse({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
    pieces[-1] += _http_chunk(rest) + b"0\r\n\r\n"
    return pieces


def _whole(pace: Pace) -> bytes:
    """The answer in one piece."""
    text = "".join(f"word{n} " for n in range(pace.tokens))
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": pace.tokens}
    return _http_json({"object": "chat.completion", "choices": [choice], "usage": usage})


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
PIECES = {name: _pieces(pace) for name, pace in MODELS.items()}
WHOLES = {name: _whole(pace) for name, pace in MODELS.items()}
Records = defaultdict[str, list[Call]]


class Connection(asyncio.Protocol):
    """A client's connection: one request after the other."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._received = b""
        self._call: Call | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = LENGTH.search(head)
        body, self._received = _split(rest, int(length[1]) if length else 0, self._received)
        if body is None:
            return
        method, path, _ = head.split(b" ", 2)
        if method == b"POST":
            self._begin(path.decode().split("/")[1], body)
        else:
            calls = self._records.pop(path.decode().rpartition("/")[2], [])
            self._transport.write(_http_json([asdict(call) for call in calls]))

    def _begin(self, model: str, body: bytes) -> None:
        marked = MARK.search(body)
        self._call = call = Call(int(marked[2]) if marked else -1, model, time.monotonic())
        if marked:
            self._records[marked[1].decode()].append(call)
        self._pieces = PIECES[model]
        self._due = call.began + MODELS[model].first_token_s
        if json.loads(body).get("stream"):
            self._transport.write(STREAM_HEAD)
            self._in(self._due, self._write_token)
        else:
            self._in(call.began + MODELS[model].whole_s, self._write_whole)

    def _in(self, due: float, act: Any) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, due - time.monotonic()), act)

    def _write_token(self) -> None:
        call = self._call
        assert call is not None
        written = len(call.wrote)
        self._transport.write(self._pieces[written])
        call.wrote.append(time.monotonic())
        if written + 1 == len(self._pieces):
            self._end()
        else:
            self._due += MODELS[call.model].token_s
            self._in(self._due, self._write_token)

    def _write_whole(self) -> None:
        call = self._call
        assert call is not None
        call.wrote = _made_until(call, time.monotonic())
        self._transport.write(WHOLES[call.model])
        self._end()

    def _end(self) -> None:
        assert self._call is not None
        self._call.ended = time.monotonic()
        self._call = self._timer = None

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # asyncio's
        if self._call is None:
            return
        assert self._timer is not None
        self._timer.cancel()
        self._call.lost = time.monotonic()
        if not self._call.wrote:
            self._call.wrote = _made_until(self._call, self._call.lost)


def _split(rest: bytes, length: int, all_of_it: bytes) -> tuple[bytes | None, bytes]:
    """A body of that length and what comes after it, or None and all as long as it is not all there."""
    return (None, all_of_it) if len(rest) < length else (rest[:length], rest[length:])


def _made_until(call: Call, moment: float) -> list[float]:
    """When the model had made each token that it had made by then."""
    pace = MODELS[call.model]
    made = [call.began + pace.first_token_s + n * pace.token_s for n in range(pace.tokens)]
    return [at for at in made if at <= moment]


async def _serve(port: int) -> None:
    records: Records = defaultdict(list)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(records), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
