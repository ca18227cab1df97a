"""Whatever a server sends, the engine finds an answer or one of our errors."""

import json
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.openai_answer import StreamedAnswer
from actors.engines.openai_chunks import read_chunk
from actors.engines.openai_errors import Fault, fault_of_page, fault_of_response
from actors.engines.sse import EventStream, JsonLines
from configs.errors import RequestError
from tests.unit.actors.engines.http_servers import COUNTED, HELLO, chunk

NAMES = (
    *("choices", "delta", "message", "content", "text", "type", "error", "code", "status", "usage"),
    *("prompt_tokens", "completion_tokens", "detail", "finish_reason", "logprobs", "token", "logprob"),
    *("reasoning", "refusal", "x_groq", "index"),
)
LEAVES = (
    *(None, True, False, 0, 7, -1, 10**30, 0.5, math.nan, math.inf, -math.inf, "", "a", "\ud83d", "-1"),
    *("stop", "error", "length", "text", "thinking", "é\u2028", "\ude00"),
)


def odd(random: Random, depth: int = 4) -> Any:
    """A JSON value with the names of chunks and values that nobody expects."""
    kind = random.random() if depth else 1
    if kind < 0.15:
        return [odd(random, depth - 1) for _ in range(random.randrange(3))]
    if kind < 0.5:
        return {random.choice(NAMES): odd(random, depth - 1) for _ in range(random.randrange(4))}
    return random.choice(LEAVES)


def odd_chunk(random: Random) -> Any:
    if random.random() < 0.3:
        return odd(random)
    token = {"token": odd(random, 1), "logprob": odd(random, 1), "top_logprobs": odd(random, 3)}
    logprobs = {"content": [token]}
    choice = {"delta": odd(random), "finish_reason": odd(random, 1), "logprobs": logprobs}
    if random.random() < 0.5:
        choice["delta"] = {"content": odd(random, 2), "reasoning": odd(random, 2)}
    return {"choices": [choice], "usage": odd(random, 2)}


def read(events: list[bytes]) -> None:
    answer = StreamedAnswer()
    fault = None
    deltas = []
    try:
        deltas = [answer.add(read_chunk(data), data) for data in events]
    except ValueError:
        return
    except Fault as failed:
        fault = failed
    if fault is not None:
        assert issubclass(fault.kind, RequestError)
        assert "\n" not in fault.words
        return
    deltas.append(answer.final_delta(lambda: 1, 3))
    for delta in deltas:
        delta.text.encode()  # no half of a character
        delta.reasoning.encode()
        assert delta.prompt_tokens >= 0
        assert delta.completion_tokens >= 0
        assert all(math.isfinite(token["logprob"]) for token in delta.logprobs)


@pytest.mark.parametrize("seed", range(8))
def test_any_json_is_read_or_refused(seed: int) -> None:
    random = Random(seed)
    for _ in range(400):
        read([json.dumps(odd_chunk(random)).encode() for _ in range(random.randrange(4))])


WORDS = HELLO + COUNTED + chunk("é你😀", "length")
EDITS = st.lists(st.tuples(st.integers(0, len(WORDS.encode())), st.binary(max_size=3)), max_size=6)


@given(EDITS, st.integers(1, 400))
def test_any_bytes_are_read_or_refused(edits: list[tuple[int, bytes]], size: int) -> None:
    body = bytearray(WORDS.encode())
    for at, new in edits:
        body[at : at + len(new)] = new
    for stream in (EventStream(), JsonLines()):
        cuts = [bytes(body[n : n + size]) for n in range(0, len(body), size)]
        events = [event for cut in cuts for event in stream.feed(cut)]
        read([*events, *stream.end()])
    fault_of_page(bytes(body))


def test_any_error_has_words_and_a_class() -> None:
    random = Random(0)
    for _ in range(2000):
        body = json.dumps(odd(random)).encode()
        fault = fault_of_response(random.randrange(400, 600), {}, body, "Reason")
        assert fault.words
        assert "\n" not in fault.words
        assert issubclass(fault.kind, RequestError)
