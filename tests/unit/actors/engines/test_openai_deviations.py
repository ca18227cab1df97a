"""Small deviations of a stream never cost the answer."""

import json
from typing import Any

import pytest
from aiohttp import web

from actors.engine import Delta
from actors.engines.half_characters import Halves, decoded
from tests.unit.actors.engines.http_servers import (
    COUNTED,
    DONE,
    HELLO,
    USAGE,
    Connect,
    answer,
    chunk,
    text,
    whole,
)


def deltas_of(*contents: Any, name: str = "content", end: str = chunk(None, "stop") + DONE) -> str:
    events = [{"choices": [{"delta": {name: content}}]} for content in contents]
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + end


def lines(*objects: Any) -> str:
    return "".join(json.dumps(each) + "\n" for each in objects)


def events(*objects: Any) -> str:
    return "".join(f"data: {json.dumps(each)}\n\n" for each in objects)


def choice(**fields: Any) -> dict[str, Any]:
    return {"choices": [fields]}


PARTS = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
STOPPED = choice(delta={}, finish_reason="stop")
MESSAGE = {"role": "assistant", "content": "Hello"}
STREAMS: dict[str, str] = {
    "empty data": "data:\n\n" + HELLO.replace("\n\n", "\n\ndata: \n\ndata:   \n\n"),
    "pings": 'event: ping\ndata: {"type": "ping"}\n\ndata: ping\n\ndata: 17\n\n' + HELLO,
    "null events": "data: null\n\n" + HELLO.replace("\n\n", "\n\ndata: null\n\n"),
    "a byte order mark": "\ufeff" + HELLO,
    "a byte order mark and a comment": "\ufeff: hi\n\n" + HELLO,
    "spaces around [DONE]": chunk("Hello") + "data:   [DONE]  \n\n",
    "[DONE] in quotes": chunk("Hello") + 'data: "[DONE]"\n\n',
    "[done]": chunk("Hello") + "data: [done]\n\n",
    "[DONE] without data": chunk("Hello") + "[DONE]\n\n",
    "spaces behind the data": HELLO.replace("}\n\n", "}  \n\n"),
    "spaces before the field": HELLO.replace("data:", "  data:"),
    "line ends of a CR": HELLO.replace("\n", "\r"),
    "no blank lines": HELLO.replace("\n\n", "\n"),
    "retry and id": "retry: 3000\n\n" + HELLO.replace("data:", "id: 7\ndata:"),
    "a comment behind each event": HELLO.replace("\n\n", "\n\n: ping - 2026\n\n"),
    "an event message": HELLO.replace("data:", "event: message\ndata:"),
    "parts": deltas_of(PARTS[:1], PARTS[1:]),
    "parts at once": deltas_of(PARTS),
    "one part": deltas_of(*PARTS),
    "texts in a list": deltas_of(["Hel"], ["lo"]),
    "a nested part": deltas_of({"text": {"value": "Hello"}}),
    "null parts": deltas_of([None, {"type": "text", "text": None}, *PARTS]),
    "null in all places": deltas_of("Hello").replace(
        '"delta"', '"logprobs": null, "finish_reason": null, "index": null, "delta"'
    ),
    "wrong types beside the text": deltas_of("Hello").replace(
        '"delta"', '"logprobs": 3, "finish_reason": false, "delta"'
    ),
    "no choices": 'data: {"id": "x"}\n\ndata: {"choices": []}\n\ndata: {"choices": null}\n\n' + HELLO,
    "choices of null": 'data: {"choices": [null]}\n\n' + HELLO,
    "choices as an object": "".join(
        f"data: {json.dumps({'choices': {'delta': {'content': t}}})}\n\n" for t in ("Hel", "lo")
    )
    + DONE,
    "usage alone": COUNTED + HELLO,
    "usage of null": HELLO.replace('{"choices"', '{"usage": null, "choices"'),
    "no delta": 'data: {"choices": [{}]}\n\ndata: {"choices": [{"delta": null}]}\n\n' + HELLO,
    "message in place of delta": HELLO.replace('"delta"', '"message"'),
    "text in place of delta": "".join(
        f"data: {json.dumps(choice(text=t, index=0))}\n\n" for t in ("Hel", "lo")
    )
    + DONE,
    "delta as a text": "".join(f"data: {json.dumps(choice(delta=t))}\n\n" for t in ("Hel", "lo"))
    + DONE,
    "the whole message at the end": deltas_of("Hel", "lo", end="")
    + f"data: {json.dumps(choice(message=MESSAGE, finish_reason='stop'))}\n\n"
    + DONE,
    "control characters raw": chunk("Hello").replace("Hello", "Hel\tlo").replace("\t", "")
    + 'data: {"choices": [{"delta": {"content": ""}, "x": "a\tb"}]}\n\n'
    + DONE,
    "numbers beyond JSON": 'data: {"choices": [], "created": NaN, "x": Infinity}\n\n' + HELLO,
    "JSON in one piece": json.dumps(choice(message=MESSAGE, finish_reason="stop")),
    "JSON without a reason": json.dumps(choice(message=MESSAGE)),
    "JSON on many lines": json.dumps(choice(message=MESSAGE, finish_reason="stop"), indent=2),
    "JSON behind blank lines": "\n\n  \n" + json.dumps(choice(message=MESSAGE, finish_reason="stop")),
    "JSON in a list": json.dumps([choice(message=MESSAGE, finish_reason="stop")]),
    "JSON as an event": f"data: {json.dumps(choice(message=MESSAGE))}\n\n",
    "JSON of parts": json.dumps(choice(message=MESSAGE | {"content": PARTS}, finish_reason="stop")),
    "a line of JSON per chunk": lines(choice(delta={"content": "Hel"}), choice(delta={"content": "lo"}))
    + lines(STOPPED),
    "lines of JSON and [DONE]": lines(choice(delta={"content": "Hello"})) + "[DONE]\n",
    "lines of JSON without an end of line": lines(choice(delta={"content": "Hello"}))
    + json.dumps(STOPPED),
    "a line of JSON among events": chunk("Hel")
    + json.dumps(choice(delta={"content": "lo"}))
    + "\n\n"
    + DONE,
}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("case", STREAMS)
async def test_a_deviation_does_not_cost_the_answer(
    connect: Connect, case: str, streamed: bool
) -> None:
    engine, server = await connect(whole(STREAMS[case]))
    deltas = await answer(engine, streamed=streamed)
    assert text(deltas) == "Hello"
    assert [d.finish_reason for d in deltas if d.finish_reason] == ["stop"]
    assert deltas[-1].prompt_tokens > 0
    assert len(server.requests) == 1


async def test_201_is_a_success_too(connect: Connect) -> None:
    engine, _ = await connect(whole(HELLO, status=201))
    assert text(await answer(engine)) == "Hello"


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson", "text/html"])
async def test_the_body_decides_and_not_its_type(connect: Connect, content_type: str) -> None:
    for body in (HELLO, STREAMS["a line of JSON per chunk"], STREAMS["JSON on many lines"]):
        engine, _ = await connect(whole(body, content_type))
        assert text(await answer(engine)) == "Hello"


@pytest.mark.parametrize(
    "case", ["a byte order mark", "a line of JSON per chunk", "JSON on many lines"]
)
async def test_it_does_not_matter_how_the_bytes_come(connect: Connect, case: str) -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in STREAMS[case].encode():
            await response.write(bytes([byte]))
        return response

    engine, _ = await connect(reply)
    assert text(await answer(engine)) == "Hello"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking", "reasoning_text"])
@pytest.mark.parametrize("said", ["hm", ["hm"], [{"type": "text", "text": "hm"}], {"content": "hm"}])
async def test_reasoning_is_known_under_its_names(connect: Connect, name: str, said: Any) -> None:
    engine, _ = await connect(whole(deltas_of(said, name=name, end=HELLO)))
    deltas = await answer(engine)
    assert (text(deltas), "".join(d.reasoning for d in deltas)) == ("Hello", "hm")


async def test_reasoning_in_parts_is_told_from_text(connect: Connect) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    engine, _ = await connect(whole(deltas_of([thought], [thought, *PARTS])))
    deltas = await answer(engine)
    assert (text(deltas), "".join(d.reasoning for d in deltas)) == ("Hello", "hmhm")


HALVES: list[tuple[list[bytes], str]] = [
    ([b'"a\xe4\xbd"', b'"\xa0b"'], "a你b"),
    ([b'"\xf0"', b'"\x9f"', b'"\x98"', b'"\x80"'], "😀"),
    ([b'"\xf0\x9f\x98"', b'"x"'], "\ufffdx"),
    ([b'"\xff"', b'"x"'], "\ufffdx"),
    ([b'"a\\ud83d"', b'"\\ude00b"'], "a😀b"),
    ([b'"\\ud83d"', b'""', b'"\\ude00"'], "😀"),
    ([b'"\\ud83d"', b'"x"'], "\ufffdx"),
    ([b'"\\ude00x"'], "\ufffdx"),
    ([b'"x\\ud83d"'], "x\ufffd"),
    ([b'"x\xe4\xbd"'], "x\ufffd"),
    ([b'"\xe4\xbd\xa0\xe4"', b'"\xbd\xa0\xf0\x9f"', b'"\x98\x80!"'], "你你😀!"),
]


@pytest.mark.parametrize(("pieces", "expected"), HALVES, ids=range(len(HALVES)))
@pytest.mark.parametrize("end", [chunk(None, "stop") + DONE, DONE], ids=["stop", "done"])
async def test_the_halves_of_a_character_come_together(
    connect: Connect, pieces: list[bytes], expected: str, end: str
) -> None:
    body = b"".join(b'data: {"choices": [{"delta": {"content": %s}}]}\n\n' % p for p in pieces)
    engine, _ = await connect(whole(body + end.encode()))
    assert text(await answer(engine)) == expected


def test_every_cut_of_a_text_gives_the_text() -> None:
    sample = "aé你😀z"
    raw = sample.encode()
    for first in range(len(raw) + 1):
        for second in range(first, len(raw) + 1):
            halves = Halves()
            cuts = (raw[:first], raw[first:second], raw[second:])
            joined = "".join(halves.join(decoded(piece)) for piece in cuts)
            assert joined + halves.end() == sample


COUNTS = ["-1", "NaN", "Infinity", "1e30", "123456789012345678901234567890", '"x"', "null", "[]", "7.5"]


@pytest.mark.parametrize("count", [*COUNTS, "true", "{}", "1000000000"])
async def test_a_count_that_cannot_be_is_estimated(connect: Connect, count: str) -> None:
    usage = f'{{"prompt_tokens": {count}, "completion_tokens": {count}}}'
    body = chunk("a" * 30, "stop") + f'data: {{"choices": [], "usage": {usage}}}\n\n' + DONE
    engine, _ = await connect(whole(body), characters_per_token=3)
    last = (await answer(engine))[-1]
    assert last.completion_tokens == 10
    assert 0 < last.prompt_tokens < 100


async def test_one_bad_count_does_not_cost_the_other(connect: Connect) -> None:
    usage = '{"prompt_tokens": -1, "completion_tokens": "2"}'
    engine, _ = await connect(whole(chunk("Hello") + f'data: {{"usage": {usage}}}\n\n' + DONE))
    assert (await answer(engine))[-1].completion_tokens == 2


async def test_groqs_own_place_of_usage_is_known(connect: Connect) -> None:
    body = chunk("Hello", "stop", x_groq={"id": "r", "usage": USAGE}) + DONE
    engine, _ = await connect(whole(body))
    assert (await answer(engine))[-1] == Delta(prompt_tokens=7, completion_tokens=2)


@pytest.mark.parametrize(
    ("token", "read"),
    [
        ({"token": "a", "logprob": -1, "bytes": "x"}, {"token": "a", "logprob": -1.0, "bytes": None}),
        ({"token": "a", "logprob": -1, "bytes": [300]}, {"token": "a", "logprob": -1.0, "bytes": None}),
        (
            {"token": "a", "logprob": -1, "top_logprobs": [{"token": "b"}, 3, {"token": 4}]},
            {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "b", "logprob": -9999.0}]},
        ),
        ({"logprob": -1}, None),
    ],
    ids=range(4),
)
async def test_a_logprob_is_complete_or_left_out(
    connect: Connect, token: dict[str, Any], read: dict[str, Any] | None
) -> None:
    event = choice(delta={"content": "a"}, logprobs={"content": [token]})
    engine, _ = await connect(whole(f"data: {json.dumps(event)}\n\n" + DONE))
    assert (await answer(engine))[0].logprobs == (() if read is None else (read,))
