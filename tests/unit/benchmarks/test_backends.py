"""The simulated servers and the raw client, each against bytes in any pieces."""

import asyncio
import json
from collections import defaultdict
from typing import Any, cast

import pytest

from benchmarks.shared.raw_client import Connection as Client
from benchmarks.shared.raw_client import Exchange, dechunked, read
from benchmarks.speed.backends import IDEAL_FIRST_S, IDEAL_WHOLE_S, MODELS, Call, Connection, mark


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_whole = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if data.endswith(b"\r\n0\r\n\r\n"):
            self.is_whole.set()

    def abort(self) -> None:
        self.written.append(b"aborted")


def request(model: str, block: str, number: int, **more: Any) -> bytes:
    body = json.dumps({"messages": [{"content": f"why? {mark(block, number)}"}], **more}).encode()
    head = f"POST /{model}/v1/chat/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def backend() -> tuple[Connection, Wire, dict[str, list[Call]]]:
    records: defaultdict[str, list[Call]] = defaultdict(list)
    connection, wire = Connection(records), Wire()
    connection.connection_made(cast(Any, wire))
    return connection, wire, records


@pytest.mark.virtual_time
async def test_an_answer_is_a_write_per_token_and_its_record() -> None:
    connection, wire, records = backend()
    asked = request("proposer-a", "b", 7, stream=True)
    connection.data_received(asked[:50])
    connection.data_received(asked[50:-3])
    assert wire.written == []
    connection.data_received(asked[-3:])
    await wire.is_whole.wait()
    tokens = MODELS["proposer-a"].tokens
    assert len(wire.written) == 1 + tokens
    reply = read(Exchange(0.0, [(float(n), data) for n, data in enumerate(wire.written)]))
    assert [text for _, text in reply.words] == [f"word{n} " for n in range(tokens)]
    assert [at for at, _ in reply.words] == [float(n) for n in range(1, tokens + 1)]
    assert reply.usage["completion_tokens"] == tokens
    (call,) = records["b"]
    assert (call.number, call.model, len(call.wrote), call.lost) == (7, "proposer-a", tokens, None)
    assert call.stopped == call.ended


@pytest.mark.virtual_time
async def test_nothing_is_written_to_a_connection_that_is_lost() -> None:
    connection, wire, records = backend()
    connection.data_received(request("aggregator", "b", 1, stream=True))
    await asyncio.sleep(MODELS["aggregator"].first_token_s + 10 * MODELS["aggregator"].token_s)
    connection.connection_lost(None)
    written = len(wire.written)
    await asyncio.sleep(10)
    assert len(wire.written) == written
    (call,) = records["b"]
    assert 0 < len(call.wrote) < MODELS["aggregator"].tokens
    assert call.ended is None
    assert call.stopped == call.lost


@pytest.mark.virtual_time
async def test_an_answer_in_one_piece_has_all_words() -> None:
    connection, wire, _ = backend()
    connection.data_received(request("aggregator", "b", 1))
    await asyncio.sleep(2)
    (whole,) = wire.written
    reply = read(Exchange(0.0, [(1.0, whole[:99]), (2.0, whole[99:])], ended=2.0))
    assert (reply.status, reply.problem, len(reply.text.split())) == (200, "", 128)


async def test_records_are_given_once() -> None:
    connection, wire, _ = backend()
    connection.data_received(request("aggregator", "b", 3, stream=True))
    asked = b"GET /calls/b HTTP/1.1\r\n\r\n"
    connection.data_received(asked)
    connection.data_received(asked)
    *_, first, second = wire.written
    assert [call["number"] for call in json.loads(first.partition(b"\r\n\r\n")[2])] == [3]
    assert json.loads(second.partition(b"\r\n\r\n")[2]) == []
    connection.connection_lost(None)


def test_a_call_that_is_not_over_has_not_stopped() -> None:
    assert Call(1, "aggregator", 5.0).stopped == float("inf")


def test_the_ideal_is_of_the_set_pace() -> None:
    assert pytest.approx(0.3 + 63 * 0.005 + 0.2) == IDEAL_FIRST_S
    assert pytest.approx(IDEAL_FIRST_S + 127 * 0.005) == IDEAL_WHOLE_S


SSE = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + f"{len(SSE[:20]):x}\r\n".encode()
    + SSE[:20]
    + f"\r\n{len(SSE[20:]):X};name=value\r\n".encode()
    + SSE[20:]
    + b"\r\n0\r\n\r\n"
)
SIZED = b'HTTP/1.1 429 Slow\r\ncontent-length: 21\r\n\r\n{"error":"too many"} '


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("whole", [CHUNKED, SIZED], ids=["chunked", "sized"])
async def test_the_client_sees_the_end_of_an_answer_in_any_pieces(size: int, whole: bytes) -> None:
    client, wire = Client("http://127.0.0.1:1"), Wire()
    client._transport = cast(Any, wire)
    wire.is_closing = lambda: False  # type: ignore[attr-defined]
    exchange, ended = await client.begin({"model": "m"})
    for place in range(0, len(whole), size):
        assert not ended.done()
        client.data_received(whole[place : place + size])
    assert ended.done()
    reply = read(exchange)
    if whole is CHUNKED:
        assert (reply.status, reply.text, reply.problem) == (200, "a", "")
    else:
        assert (reply.status, reply.problem) == (429, '{"error":"too many"} ')


async def test_a_client_that_leaves_aborts_and_its_answer_is_not_whole() -> None:
    client, wire = Client("http://127.0.0.1:1"), Wire()
    client._transport = cast(Any, wire)
    wire.is_closing = lambda: False  # type: ignore[attr-defined]
    exchange, ended = await client.begin({"model": "m"})
    client.data_received(CHUNKED[:-5])
    client.leave()
    assert wire.written[-1] == b"aborted"
    client.connection_lost(None)
    assert ended.done()
    assert read(exchange).problem == "the connection was lost"


def test_a_chunk_that_is_not_whole_waits() -> None:
    assert dechunked(b"3\r\nabc\r\n2\r\nd") == (b"abc", b"2\r\nd")
    assert dechunked(b"3\r\nabc") == (b"", b"3\r\nabc")
    assert dechunked(b"") == (b"", b"")
