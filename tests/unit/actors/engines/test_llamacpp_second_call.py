"""llama.cpp's engine asks once more where a call leaves no answer. The library is played here."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from actors.engine import Delta, Message, Share, merge
from actors.engines.llamacpp import LlamaCppEngine
from actors.engines.llamacpp_request import with_text
from actors.text.chat_marks import ChatMarks
from actors.text.thinking_marks import BY_NAME
from configs.errors import EngineError, EngineUnavailable
from configs.schema import LlamaCppModel, Sampling

QUESTION: list[Message] = [{"role": "user", "content": "Why?"}]
PROMPT = "<|user|>Why?<|assistant|><think>\n"
Chunk = dict[str, Any]


def call(*texts: str, finish: str | None = "stop", prompt: int = 10, end: int = 1) -> list[Chunk]:
    """The chunks of a call with one token for each text, and `end` more that end the message."""
    chunks: list[Chunk] = [
        {"choices": [{"delta": {"content": text}, "text": text}], "timings": timings(prompt, n)}
        for n, text in enumerate(texts, 1)
    ]
    if finish is not None:
        usage = {"prompt_tokens": prompt, "completion_tokens": len(texts) + end}
        chunks += [
            {"choices": [{"delta": {}, "finish_reason": finish}]},
            {"choices": [], "usage": usage},
        ]
    return chunks


def timings(prompt: int, written: int) -> dict[str, int]:
    return {"prompt_n": prompt, "cache_n": 0, "predicted_n": written}


class FakeServer:
    """Plays the library: each call gets the next chunks, unless it is cancelled."""

    def __init__(self, calls: Sequence[list[Chunk]]) -> None:
        self.calls = list(calls)
        self.requests: list[dict[str, Any]] = []

    def _handle(self, request: str, callback: Callable[[Any], bool]) -> None:
        self.requests.append(json.loads(request))
        for chunk in self.calls.pop(0):
            if callback(chunk):
                break

    handle_completions = handle_chat_completions = _handle


class FakeSocket:
    """Plays the socket: a prompt, and a token for each word of a mark."""

    async def prompt(self, *_: Any) -> str:
        return PROMPT

    async def mark_tokens(self, text: str) -> int:
        return len(text.split())

    async def close(self) -> None:
        pass


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[LlamaCppEngine, FakeServer]]]:
    pools: list[ThreadPoolExecutor] = []

    def make(*calls: list[Chunk]) -> tuple[LlamaCppEngine, FakeServer]:
        weights = [{"path": "x.gguf"}]
        model = LlamaCppModel.model_validate({"engine": "llamacpp", "weights": weights})
        engine, server = LlamaCppEngine("m", model, Share()), FakeServer(calls)
        fake: Any = engine
        fake._server, fake._socket = server, FakeSocket()
        fake._marks = ChatMarks([BY_NAME["think"]], {"<|user|>"}, ())
        pools.append(ThreadPoolExecutor(1))
        fake._pool, fake._stopping = pools[-1], threading.Event()
        return engine, server

    yield make
    for pool in pools:
        pool.shutdown()


Make = Callable[..., tuple[LlamaCppEngine, FakeServer]]


async def answer(engine: LlamaCppEngine, **sampling: Any) -> Delta:
    return merge([delta async for delta in engine.stream(QUESTION, Sampling(**sampling))])


BOUNDED: dict[str, Any] = {"max_tokens": 4, "thinking_tokens": 8}


async def test_the_second_call_has_the_thought_and_keeps_all_limits(make: Make) -> None:
    engine, server = make(call("hm", " <|user|>"), call("Be", "cause", prompt=14))
    limits = {"stop": ["END"], "seed": 7, "temperature": 0.5, "top_logprobs": 2}
    whole = await answer(engine, **BOUNDED, **limits)
    first, second = server.requests
    assert (first["messages"], first["max_tokens"], "grammar" in first) == (QUESTION, 12, False)
    assert second["prompt"] == PROMPT + "hm ‹|user|>\n</think>\n\n"
    assert (second["max_tokens"], second["grammar"]) == (4, with_text(["<|user|>"]))
    assert (first["reasoning_budget_tokens"], second["reasoning_budget_tokens"]) == (8, 1)
    for name in ("stop", "seed", "temperature", "top_logprobs"):
        assert first[name] == second[name]
    # Three tokens of the thought, one for the mark, three of the answer; the first call's prompt.
    expected = Delta("Because", "hm <|user|>", "stop", prompt_tokens=10, completion_tokens=3 + 1 + 3)
    assert whole == expected


async def test_an_answer_that_is_there_takes_one_call(make: Make) -> None:
    engine, server = make(call("hm", "</think>", "Because"))
    whole = await answer(engine, **BOUNDED)
    assert whole == Delta("Because", "hm", "stop", prompt_tokens=10, completion_tokens=4)
    assert len(server.requests) == 1


async def test_blanks_behind_a_thought_are_no_answer(make: Make) -> None:
    engine, _ = make(call("hm", "</think>", "\n\n", " "), call("Yes", prompt=13))
    whole = await answer(engine, **BOUNDED)
    assert (whole.text, whole.reasoning, whole.completion_tokens) == ("Yes", "hm", 5 + 1 + 2)


async def test_a_thought_that_passes_its_limit_is_ended_here(make: Make) -> None:
    engine, server = make(call(*["a"] * 30, finish=None), call("Yes", prompt=20))
    whole = await answer(engine, max_tokens=50, thinking_tokens=4)
    assert server.requests[1]["prompt"] == PROMPT + "aaaaa\n</think>\n\n"
    assert (whole.text, whole.finish_reason) == ("Yes", "stop")
    assert (whole.prompt_tokens, whole.completion_tokens) == (10, 4 + 16 + 1 + 1 + 2)


async def test_the_form_of_an_answer_is_left_to_the_second_call(make: Make) -> None:
    engine, server = make(call("hm", "</think>", "No", finish=None), call("{}", prompt=13))
    whole = await answer(engine, max_tokens=50, extra={"structure": {"grammar": 'root ::= "{}"'}})
    first, second = server.requests
    assert ("grammar" in first, second["grammar"]) == (False, 'root ::= "{}"')
    assert second["max_tokens"] == 50 - 2 - 1  # what the thought and the mark have left
    assert (whole.text, whole.reasoning) == ("{}", "hm")


async def test_a_call_that_uses_up_everything_ends_so(make: Make) -> None:
    engine, server = make(call("a", "b", finish="length", end=0))
    whole = await answer(engine, max_tokens=2)
    assert whole == Delta("", "ab", "length", prompt_tokens=10, completion_tokens=2)
    assert len(server.requests) == 1


async def test_whoever_closes_the_stream_ends_the_second_call(make: Make) -> None:
    engine, server = make(call("hm"), call(*["a"] * 100, prompt=13, finish=None))
    stream = engine.stream(QUESTION, Sampling(**BOUNDED))
    async for delta in stream:
        if delta.text:
            break
    await stream.aclose()
    assert len(server.requests) == 2
    assert server.calls == []


async def test_a_stop_between_the_calls_is_an_error(make: Make) -> None:
    engine, _ = make(call("hm"), call("Yes"))

    class Stopped(FakeSocket):
        async def prompt(self, *_: Any) -> str:
            if engine._ends:  # the second time
                await engine.stop()
                raise EngineUnavailable("gone", model="m")
            return PROMPT

    fake: Any = engine
    fake._socket = Stopped()
    with pytest.raises(EngineUnavailable):
        await answer(engine, **BOUNDED)


async def test_an_error_of_the_second_call_is_the_answers(make: Make) -> None:
    engine, _ = make(call("hm"), [{"error": {"message": "broken", "code": 500}}])
    with pytest.raises(EngineError, match="broken"):
        await answer(engine, **BOUNDED)


def test_the_grammar_of_the_second_call_begins_with_text() -> None:
    grammar = with_text(["<|im_end|>", "[INST]", "◁think▷"])
    assert grammar.startswith("root ::= [^\\U00000009")
    assert grammar.endswith("] [^\\x00]*")
    for first in "\n <[◁\u3000":
        assert f"\\U{ord(first):08X}" in grammar
    assert f"\\U{ord('a'):08X}" not in grammar
