"""Calls between a caller and a replica, over real sockets of both kinds."""

import asyncio
import json
import socket
from contextlib import aclosing

import pytest

from actors.calls.address import TCP_OPTIONS
from actors.calls.connection import Connection
from actors.calls.incoming import TAKEN_EVERY
from actors.calls.outgoing import MOST_UNREAD
from actors.calls.server import _Served
from actors.engine import Delta, collect_answer
from cluster.logs.line import Formatter
from configs.errors import (
    BadRequest,
    ContextTooLong,
    EngineError,
    EngineUnavailable,
    OverAllowance,
    Overloaded,
    RequestError,
)
from tests.unit.actors.calls.conftest import ASKED, SAMPLING, Connect, Served, until


async def test_deltas_arrive_one_by_one_and_as_they_were(
    served: Served, connection: Connection
) -> None:
    logprob = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    written = [
        Delta("Grüße"),
        Delta("", reasoning="Hm."),
        Delta(" a", logprobs=(logprob,)),
        Delta(finish_reason="length", prompt_tokens=3, completion_tokens=4),
        Delta(engine_s=1.5, last=True),
    ]
    async with aclosing(connection.stream(ASKED, SAMPLING)) as deltas:
        for delta in written:
            served.script.steps.put_nowait(delta)
            assert await anext(deltas) == delta
        with pytest.raises(StopAsyncIteration):
            await anext(deltas)
    assert served.script.asked == [(ASKED, SAMPLING, True, None)]
    assert connection.in_flight == 0


async def test_an_answer_in_one_piece_and_the_short_calls(
    served: Served, connection: Connection
) -> None:
    served.script.write("one", " two")
    served.script.end()
    whole = await connection.complete(ASKED, SAMPLING, 12.5)
    assert (whole.text, whole.completion_tokens, whole.last) == ("one two", 2, True)
    assert served.script.asked == [(ASKED, SAMPLING, False, 12.5)]
    assert await connection.count_tokens(ASKED) == 5
    assert await connection.count_tokens(ASKED, {"enable_thinking": False}) == 5
    assert served.script.templates == [{}, {"enable_thinking": False}]
    assert await connection.token_ends(["ab", ""]) == [[2], [0]]
    assert await connection.about("stats") == {"said": "stats"}


async def test_a_call_carries_where_it_comes_from_and_no_other_call_does(
    served: Served, connection: Connection
) -> None:
    for _ in range(3):
        served.script.end()
    here = {"traceparent": "00-1-2-01", "tracestate": "a=b"}
    await connection.complete(ASKED, SAMPLING, None, None, here)
    await connection.complete(ASKED, SAMPLING, None)
    await collect_answer(connection.stream(ASKED, SAMPLING, origin=here))
    assert served.script.origins == [here, {}, here]


async def test_the_lines_of_a_call_have_the_id_of_its_request_and_no_others_do(
    served: Served,
    connection: Connection,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caplog.handler, "formatter", Formatter("json", "model:m"))
    for origin in ({"request_id": "req-7"}, {}):
        served.script.steps.put_nowait(ZeroDivisionError("a prompt"))
        with pytest.raises(EngineError):
            await connection.complete(ASKED, SAMPLING, None, None, origin)
    said = [json.loads(line) for line in caplog.text.splitlines()]
    assert [line.get("request") for line in said] == ["req-7", None]
    assert [line["msg"] for line in said] == ["a call failed with ZeroDivisionError at"] * 2
    assert "a prompt" not in caplog.text


async def test_calls_go_over_one_connection_at_the_same_time(
    served: Served, connection: Connection
) -> None:
    held = asyncio.create_task(connection.complete(ASKED, SAMPLING, None))
    await served.script.began.wait()
    assert await connection.count_tokens(ASKED) == 5
    assert connection.in_flight == 1
    served.script.end()
    await held


@pytest.mark.parametrize(
    "error",
    [
        ContextTooLong("too long by 4", model="m", param="messages"),
        Overloaded("busy"),
        OverAllowance("wait", retry_after_s=3.5, model="m"),
        EngineUnavailable("gone", model="other"),
    ],
)
async def test_an_error_arrives_as_it_was_raised(
    served: Served, connection: Connection, error: RequestError
) -> None:
    served.script.write("before")
    served.script.steps.put_nowait(error)
    deltas = connection.stream(ASKED, SAMPLING)
    assert (await anext(deltas)).text == "before"
    with pytest.raises(type(error)) as raised:
        await anext(deltas)
    assert type(raised.value) is type(error)
    assert vars(raised.value) == vars(error) | {"model": error.model or "m"}
    assert raised.value.message == error.message


async def test_a_defect_of_the_replica_names_its_class_and_quotes_nothing(
    served: Served, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    served.script.steps.put_nowait(KeyError("a prompt"))
    with pytest.raises(EngineError, match="KeyError") as raised:
        await connection.complete(ASKED, SAMPLING, None)
    assert "a prompt" not in raised.value.message + caplog.text
    assert "conftest.py" in caplog.text


async def test_an_error_with_half_a_character_arrives_too(
    served: Served, connection: Connection
) -> None:
    served.script.steps.put_nowait(EngineError("the server says \ud83d"))
    with pytest.raises(EngineError, match=r"the server says \?"):
        await connection.complete(ASKED, SAMPLING, None)


async def test_a_lone_surrogate_is_refused_by_the_caller(connection: Connection) -> None:
    with pytest.raises(BadRequest, match=r"cannot be sent.*surrogates"):
        await connection.count_tokens([{"role": "user", "content": "\ud83d"}])
    assert connection.in_flight == 0


async def test_a_reader_who_leaves_cancels_the_call(served: Served, connection: Connection) -> None:
    served.script.write("one")
    deltas = connection.stream(ASKED, SAMPLING)
    await anext(deltas)
    await deltas.aclose()
    await served.script.cancelled.wait()
    assert connection.in_flight == 0


async def test_a_caller_that_is_cancelled_cancels_the_call(
    served: Served, connection: Connection
) -> None:
    asking = asyncio.create_task(connection.complete(ASKED, SAMPLING, None))
    await served.script.began.wait()
    asking.cancel()
    await served.script.cancelled.wait()
    assert asking.cancelled() or asking.cancelling()


async def test_a_lost_connection_ends_the_call_on_both_sides(
    served: Served, connection: Connection
) -> None:
    served.script.write("one")
    deltas = connection.stream(ASKED, SAMPLING)
    await anext(deltas)
    connection.close()
    with pytest.raises(EngineUnavailable, match="'m' is gone"):
        await anext(deltas)
    await served.script.cancelled.wait()
    with pytest.raises(EngineUnavailable, match="'m' is gone"):
        await connection.count_tokens(ASKED)


async def test_deltas_are_merged_only_while_the_reader_is_slower(
    served: Served, connection: Connection
) -> None:
    many = [f"{n} " for n in range(5 * MOST_UNREAD)]
    deltas = connection.stream(ASKED, SAMPLING)
    served.script.write(*many)
    seen = [(await anext(deltas)).text]
    await until(served.script.steps.empty)  # the reader takes nothing while the replica writes on
    served.script.end()
    seen += [delta.text async for delta in deltas]
    assert "".join(seen) == "".join(many)
    assert seen[:MOST_UNREAD] == many[:MOST_UNREAD]
    assert len(seen) <= MOST_UNREAD + 2  # what waited, and the end


async def test_a_reader_who_keeps_up_gets_every_delta(served: Served, connection: Connection) -> None:
    deltas = connection.stream(ASKED, SAMPLING)
    for n in range(3 * MOST_UNREAD + TAKEN_EVERY):
        served.script.write(f"{n}")
        assert (await anext(deltas)).text == f"{n}"
    await deltas.aclose()


async def test_a_slow_reader_does_not_hold_the_replica(served: Served, connecting: Connect) -> None:
    connection = await connecting(served.near)
    served.script.write(*["word "] * 1000)
    served.script.end()
    deltas = connection.stream(ASKED, SAMPLING)
    await anext(deltas)
    await until(served.script.steps.empty)
    assert await connection.count_tokens(ASKED) == 5  # the connection is not blocked
    assert (await collect_answer(deltas)).text == "word " * 999


async def test_a_conversation_beyond_the_longest_frame_is_refused_by_the_caller(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.calls.frames.MOST_BYTES", 10_000)
    with pytest.raises(BadRequest, match="10,000 are allowed"):
        await connection.count_tokens([{"role": "user", "content": "x" * 20_000}])
    assert await connection.count_tokens(ASKED) == 5
    assert connection.in_flight == 0


async def test_a_replica_that_drains_waits_for_its_calls_and_for_its_callers(
    served: Served, connection: Connection
) -> None:
    asking = asyncio.create_task(connection.complete(ASKED, SAMPLING, None))
    await served.script.began.wait()
    draining = asyncio.create_task(served.server.drain(60))
    await until(lambda: connection.is_leaving)
    assert await connection.count_tokens(ASKED) == 5  # callers without another replica may still ask
    served.script.end()
    assert (await asking).last
    assert not draining.done()
    connection.close()
    await draining


async def test_calls_that_outlast_the_drain_end_with_an_error(
    served: Served, connection: Connection
) -> None:
    asking = asyncio.create_task(connection.complete(ASKED, SAMPLING, None))
    await served.script.began.wait()
    await served.server.drain(0.01)
    with pytest.raises(EngineUnavailable, match="stops"):
        await asking
    assert served.script.cancelled.is_set()


async def test_both_sides_of_tcp_notice_a_machine_that_is_gone(
    served: Served, connecting: Connect
) -> None:
    """A machine without power sends nothing, so the kernel has to ask it. Here only the settings are
    tested: the loopback interface loses no machine."""
    near = (await connecting(await served.far()))._transport
    (far,) = (each._transport for each in served.server._connections)
    for transport in (near, far):
        tcp = transport.get_extra_info("socket")
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        for name, value in TCP_OPTIONS.items():
            assert tcp.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value


async def test_a_replica_that_stops_takes_no_new_connections(
    served: Served, connecting: Connect
) -> None:
    far = await served.far()
    await served.server.drain(0)
    for address in (served.near, far):
        with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
            await connecting(address)


async def test_a_caller_whose_connection_was_just_accepted_learns_that_the_replica_leaves(
    served: Served, connection: Connection
) -> None:
    """asyncio makes a connection some steps after it has accepted the connection."""
    loop = asyncio.get_running_loop()
    draining = asyncio.create_task(served.server.drain(60))
    await until(lambda: connection.is_leaving)
    near, far = socket.socketpair()
    late = Connection("m", None, lambda: None)
    await loop.connect_accepted_socket(lambda: late, near)
    await loop.connect_accepted_socket(lambda: _Served(served.server, None), far)
    await until(lambda: late.is_leaving)
    late.close()
    connection.close()
    await draining


async def test_a_warm_up_crosses_and_tells_what_was_read(
    served: Served, connection: Connection
) -> None:
    served.script.may_warm.set()
    assert await connection.warm(ASKED, {"x": 1}, "poet") == 5
    assert (served.script.templates, served.script.adapters) == ([{"x": 1}], ["poet"])


async def test_a_warm_up_that_is_given_up_ends_at_the_replica(
    served: Served, connection: Connection
) -> None:
    warming = asyncio.create_task(connection.warm(ASKED))
    await served.script.began.wait()
    warming.cancel()
    await served.script.cancelled.wait()
    assert not connection.in_flight


async def test_a_warm_up_ends_with_its_connection(served: Served, connection: Connection) -> None:
    warming = asyncio.create_task(connection.warm(ASKED))
    await served.script.began.wait()
    connection.close()
    with pytest.raises(EngineUnavailable, match="gone"):
        await warming
    await served.script.cancelled.wait()
