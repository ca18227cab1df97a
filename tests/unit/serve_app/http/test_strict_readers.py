"""Streams as the strictest readers take them, each rebuilt here as its own source reads.

The server-sent events of WHATWG HTML (9.2) allow more than some readers do.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from actors.engine import Delta
from serve_app.http.request import parse
from serve_app.http.response import ChatResponse
from serve_app.http.sse import in_one_line
from serve_app.mixture.events import AnswerDelta
from tests.unit.serve_app.conftest import HELLO, MIXTURE, Exchange

Ask = Callable[..., Exchange]
SEPARATORS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""All characters at which `str.splitlines` ends a line."""


def reply() -> ChatResponse:
    return ChatResponse(parse(json.dumps(MIXTURE | {"stream": True}).encode()))


def stream(*texts: str) -> str:
    """A stream with signs of life before, between and behind the texts."""
    made = reply()
    parts = [made.role(), made.chunks([])]
    for text in texts:
        parts += [made.chunks([AnswerDelta(Delta(text=text))]), made.chunks([]), made.chunks([])]
    return "".join(parts) + "data: [DONE]\n\n"


def by_openai_go(raw: str) -> Iterator[Any]:
    """openai-go before 3.43: a blank line is an event, and an event without data ends the stream."""
    data = ""
    for line in raw.split("\n")[:-1]:
        if line == "":
            if data.startswith("[DONE]"):
                return
            yield json.loads(data)  # of "" too
            data = ""
        elif line.startswith("data:"):
            data += line.removeprefix("data:").removeprefix(" ")


def by_go_openai(raw: str) -> Iterator[Any]:
    """sashabaranov/go-openai: lines that begin with `data: `."""
    for line in raw.split("\n"):
        if line.strip().startswith("data: "):
            data = line.strip().removeprefix("data: ")
            if data == "[DONE]":
                return
            yield json.loads(data)


def by_blocks(raw: str) -> Iterator[Any]:
    """Many a hand-made reader: blocks that begin with `data: `."""
    for block in raw.split("\n\n"):
        if block.startswith("data: ") and block != "data: [DONE]":
            yield json.loads(block.removeprefix("data: "))


def by_unicode_lines(raw: str) -> Iterator[Any]:
    """Python's `str.splitlines`, as `requests.iter_lines` and httpx's `iter_lines` use it."""
    for line in raw.splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def by_openai_python(raw: str) -> Iterator[Any]:
    decoder = SSEDecoder()
    for event in decoder.iter_bytes(iter([raw.encode()])):
        if event.data != "[DONE]":
            yield event.json()


READERS = (by_openai_go, by_go_openai, by_blocks, by_unicode_lines, by_openai_python)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(st.characters() | st.sampled_from(SEPARATORS), min_size=1), max_size=4))
def test_every_reader_gets_the_text(reader: Callable[[str], Iterator[Any]], texts: list[str]) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return
    contents = [chunk["choices"][0]["delta"]["content"] for chunk in reader(stream(*texts))]
    assert "".join(contents) == "".join(texts)


def test_no_block_consists_of_comments_alone() -> None:
    for block in stream("a", "b").split("\n\n")[:-1]:
        assert any(line.startswith("data: ") for line in block.split("\n"))


async def test_a_sign_of_life_is_an_event_too(ask: Ask) -> None:
    """Clients that give up a stream without events do not give up this one."""
    exchange = ask(stream=True, limits={"keepalive_s": 0.001})
    await exchange.start()
    await exchange.body()
    sign = (await exchange.body()).decode()
    comment, data, end = sign.split("\n", 2)
    assert (comment, end) == (": keep-alive", "\n")
    chunk = json.loads(data.removeprefix("data: "))
    assert chunk["choices"] == [
        {"index": 0, "delta": {"content": ""}, "finish_reason": None, "logprobs": None}
    ]
    exchange.leave()
    await exchange.app


@pytest.mark.parametrize("character", SEPARATORS)
def test_no_separator_of_lines_is_raw_in_json(character: str) -> None:
    raw = stream(f"a{character}b")
    assert character in "\n" or character not in raw
    assert len(raw.splitlines()) == len(raw.split("\n")) - 1


def test_json_without_separators_stays_as_it_is() -> None:
    for text in ('"a"', '"Grüße 天空 👋"', '"\\u2028"'):
        assert in_one_line(text) is text
    assert in_one_line('"\x85\u2028\u2029é"') == '"\\u0085\\u2028\\u2029é"'


@pytest.fixture
async def answer(http: httpx.AsyncClient) -> str:
    asked = MIXTURE | {"messages": [{**HELLO[0], "vendor\u2028": 1}]}
    return (await http.post("/v1/chat/completions", json=asked)).text


async def test_a_whole_answer_is_one_line_too(answer: str) -> None:
    assert answer.splitlines() == [answer]
    assert json.loads(answer)["moa"]["ignored"] == ["messages.vendor\u2028"]
