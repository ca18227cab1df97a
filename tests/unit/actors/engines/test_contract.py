"""What every engine keeps to: one class, run against all of them.

The HTTP engine talks to a local server with the scripted engine behind it, so that both ends of a
cancellation are seen. llama.cpp needs real weights.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from msgspec import structs

from actors import engines
from actors.engine import Delta, Engine, Message, Share, merge
from actors.engines.scripted import ScriptedEngine
from configs.errors import ContextTooLong, EngineUnavailable
from configs.load import load
from configs.schema import OpenAIHttpModel, Sampling, ScriptedModel
from docs.example_engine import DiceEngine

CONTEXT_TOKENS = 512
CONCURRENCY = 2
QUESTION: list[Message] = [
    {"role": "system", "content": "You tell long stories."},
    {"role": "user", "content": "Tell me a story about a river. 你好 👩‍👩‍👧‍👦"},
]
TOO_LONG: list[Message] = [{"role": "user", "content": "word " * 2 * CONTEXT_TOKENS}]


class WatchedEngine(ScriptedEngine):
    """Knows how many calls it works on."""

    at_work = 0

    async def stream(
        self, messages: Sequence[Message], sampling: Sampling, streamed: bool = True
    ) -> AsyncGenerator[Delta]:
        self.at_work += 1
        try:
            async with aclosing(super().stream(messages, sampling, streamed)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self.at_work -= 1


@dataclass(frozen=True)
class Subject:
    """An engine under test. at_work: calls that are worked on at this moment, at their source.

    counts_exactly: `token_ends` of a conversation are the tokens that the call is charged for.
    """

    engine: Engine
    at_work: Callable[[], int]
    counts_exactly: bool = True


def scripted() -> WatchedEngine:
    model = ScriptedModel(
        engine="scripted",
        tokens=400,
        first_token_s=0.001,
        token_s=0.001,
        context_tokens=CONTEXT_TOKENS,
        concurrency=CONCURRENCY,
    )
    return WatchedEngine("subject", model)


async def a_scripted_engine(_stack: AsyncExitStack) -> Subject:
    engine = scripted()
    return Subject(engine, lambda: engine.at_work)


async def an_http_engine(stack: AsyncExitStack) -> Subject:
    behind = scripted()
    await behind.start()

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        names = Sampling.model_fields.keys() & body.keys()
        sampling = Sampling.model_validate({name: body[name] for name in names})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        async with aclosing(behind.stream(body["messages"], sampling)) as deltas:
            try:
                async for delta in deltas:
                    if not response.prepared:
                        await response.prepare(request)
                    await response.write(event(delta))
            except ContextTooLong as error:
                refusal = {"message": error.message, "code": error.code}
                return web.json_response({"error": refusal}, status=400)
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    stack.push_async_callback(server.close)
    model = OpenAIHttpModel(
        engine="openai_http",
        base_url=str(server.make_url("/v1")),
        model="m",
        context_tokens=CONTEXT_TOKENS,
        concurrency=CONCURRENCY,
    )
    return Subject(
        engines.create("subject", model, Share()), lambda: behind.at_work, counts_exactly=False
    )


async def the_documented_engine(_stack: AsyncExitStack) -> Subject:
    engine = DiceEngine("subject", CONTEXT_TOKENS)
    return Subject(engine, lambda: engine.calls_in_flight)


def event(delta: Delta) -> bytes:
    choice = {
        "delta": {"content": delta.text},
        "finish_reason": delta.finish_reason,
        "logprobs": {"content": delta.logprobs},
    }
    usage = {"prompt_tokens": delta.prompt_tokens, "completion_tokens": delta.completion_tokens}
    chunk = {"choices": [choice], "usage": usage if delta.prompt_tokens else None}
    return f"data: {json.dumps(chunk)}\n\n".encode()


async def a_llamacpp_engine(_stack: AsyncExitStack) -> Subject:
    smollm = load("tiny_cpu").models["smollm2-135m"]
    changes = {"context_tokens": CONTEXT_TOKENS, "concurrency": CONCURRENCY}
    engine: Any = engines.create("subject", smollm.model_copy(update=changes), Share(threads=2))

    def at_work() -> int:
        metrics = str(engine._server.handle_metrics())
        return int(metrics.split("\nllamacpp:requests_processing ")[1].split()[0])

    return Subject(engine, at_work)


SUBJECTS = [
    pytest.param(a_scripted_engine, id="scripted"),
    pytest.param(an_http_engine, id="openai_http"),
    pytest.param(the_documented_engine, id="documented"),
    pytest.param(a_llamacpp_engine, id="llamacpp", marks=pytest.mark.weights),
]


@pytest.fixture(params=SUBJECTS)
async def stopped(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """An engine that was not started yet."""
    make: Callable[[AsyncExitStack], Awaitable[Subject]] = request.param
    async with AsyncExitStack() as stack:
        subject = await make(stack)
        stack.push_async_callback(subject.engine.stop)
        yield subject


@pytest.fixture
async def subject(stopped: Subject) -> Subject:
    await stopped.engine.start()
    return stopped


@pytest.fixture
def engine(subject: Subject) -> Engine:
    return subject.engine


async def answer(
    engine: Engine, messages: list[Message] = QUESTION, *, streamed: bool = True, **sampling: Any
) -> list[Delta]:
    settings = {"max_tokens": 16, "seed": 1} | sampling
    return [delta async for delta in engine.stream(messages, Sampling(**settings), streamed)]


BOTH_WAYS = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def until(condition: Callable[[], bool], most_s: float = 1) -> None:
    async with asyncio.timeout(most_s):
        while not condition():  # noqa: ASYNC110  # native code has no event to wait for
            await asyncio.sleep(0)


class TestEveryEngine:
    @BOTH_WAYS
    async def test_an_answer_ends_once_and_its_tokens_are_counted_at_the_end(
        self, subject: Subject, streamed: bool
    ) -> None:
        *deltas, last = await answer(subject.engine, streamed=streamed)
        assert text(deltas)
        assert [d.finish_reason for d in (*deltas, last) if d.finish_reason] == ["length"]
        assert all(d.prompt_tokens == d.completion_tokens == 0 for d in deltas)
        assert last.completion_tokens == 16
        assert last.prompt_tokens > 10
        if subject.counts_exactly:
            assert last.prompt_tokens == len(await subject.engine.token_ends(QUESTION))

    async def test_a_last_message_of_the_assistant_is_continued(self, subject: Subject) -> None:
        begun: list[Message] = [*QUESTION, {"role": "assistant", "content": "The answer to this is"}]
        deltas = await answer(subject.engine, begun, temperature=0)
        assert text(deltas)
        assert "The answer to this is" not in text(deltas)  # only the text that is new
        if subject.counts_exactly:
            prompt = len(await subject.engine.token_ends(begun))
            assert deltas[-1].prompt_tokens == prompt
            # What was begun is part of the prompt.
            assert prompt >= 4 + len(await subject.engine.token_ends(QUESTION))

    @pytest.mark.parametrize("limit", [1, 2, 7])
    async def test_the_output_limit_is_kept(self, engine: Engine, limit: int) -> None:
        deltas = await answer(engine, max_tokens=limit)
        assert deltas[-1].completion_tokens == limit
        assert "length" in [delta.finish_reason for delta in deltas]

    @BOTH_WAYS
    async def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(
        self, engine: Engine, streamed: bool
    ) -> None:
        unstopped = text(await answer(engine, max_tokens=24))
        middle = len(unstopped) // 2
        stop = unstopped[middle : middle + 3]  # not at a token's edge, if chance does not have it
        stops = ("never written", stop)
        deltas = await answer(engine, max_tokens=24, stop=stops, streamed=streamed)
        assert text(deltas) == unstopped.split(stop)[0]
        assert [d.finish_reason for d in deltas if d.finish_reason] == ["stop"]

    async def test_the_same_seed_gives_the_same_text_and_another_another(self, engine: Engine) -> None:
        texts = [text(await answer(engine, seed=seed, temperature=1)) for seed in (0, 0, 1)]
        assert texts[0] == texts[1] != texts[2]

    @pytest.mark.parametrize("most", [0, 1, 2, 20])
    async def test_logprobs_are_openais_objects_one_per_token(self, engine: Engine, most: int) -> None:
        # llama.cpp has one object per character where a character is several tokens.
        english: list[Message] = [{"role": "user", "content": "Tell me a story about a river."}]
        deltas = await answer(engine, english, top_logprobs=most, temperature=0)
        tokens = [token for delta in deltas for token in delta.logprobs]
        assert len(tokens) == 16
        assert b"".join(bytes(token["bytes"]) for token in tokens).decode() == text(deltas)
        for token in tokens:
            assert token["token"].encode() == bytes(token["bytes"])
            assert token["logprob"] <= 0
            assert len(token["top_logprobs"]) <= most
            for other in token["top_logprobs"]:
                assert {"token", "logprob", "bytes"} <= other.keys()

    async def test_an_answer_that_nobody_reads_along_says_the_same_and_its_end_is_not_held_back(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        streamed = await answer(engine, temperature=0, top_logprobs=1)
        for module in ("http_events", "llamacpp_call", "scripted"):
            monkeypatch.setattr(f"actors.engines.{module}.PIECE_S", 3600)
        async with asyncio.timeout(10):
            whole = await answer(engine, temperature=0, top_logprobs=1, streamed=False)
        cached = merge(streamed).cached_tokens  # the second call finds more in the cache than the first
        assert structs.replace(merge(whole), cached_tokens=cached) == merge(streamed)
        assert len(whole) <= len(streamed)

    async def test_no_logprobs_unless_asked_for(self, engine: Engine) -> None:
        assert all(delta.logprobs == () for delta in await answer(engine))

    @BOTH_WAYS
    async def test_closing_stops_the_work_and_the_next_call_is_answered(
        self, subject: Subject, streamed: bool
    ) -> None:
        for _ in range(2 * CONCURRENCY):  # more often than there are places
            deltas = subject.engine.stream(QUESTION, Sampling(max_tokens=400), streamed)
            await anext(deltas)
            assert subject.at_work() == 1
            await deltas.aclose()
            await until(lambda: subject.at_work() == 0)
        assert text(await answer(subject.engine))

    @BOTH_WAYS
    async def test_a_cancelled_task_stops_the_work(self, subject: Subject, streamed: bool) -> None:
        call = asyncio.create_task(answer(subject.engine, max_tokens=400, streamed=streamed))
        await until(lambda: subject.at_work() == 1, most_s=10)
        call.cancel()
        await until(lambda: subject.at_work() == 0 and call.done())
        assert call.cancelled()

    async def test_more_calls_than_places_are_all_answered(self, engine: Engine) -> None:
        calls = [answer(engine, seed=seed) for seed in range(3 * CONCURRENCY)]
        assert [d[-1].completion_tokens for d in await asyncio.gather(*calls)] == [16] * len(calls)

    async def test_a_waiting_call_can_be_cancelled_at_once(self, subject: Subject) -> None:
        running = [
            asyncio.create_task(answer(subject.engine, max_tokens=300)) for _ in range(CONCURRENCY)
        ]
        await until(lambda: subject.at_work() == CONCURRENCY, most_s=10)
        extra = asyncio.create_task(answer(subject.engine))
        await asyncio.sleep(0)
        extra.cancel()
        await until(extra.done)
        assert extra.cancelled()
        for call in running:
            call.cancel()
        await asyncio.wait(running)

    async def test_a_conversation_that_does_not_fit_is_refused(self, engine: Engine) -> None:
        with pytest.raises(ContextTooLong, match=str(CONTEXT_TOKENS)) as refusal:
            await answer(engine, TOO_LONG)
        assert (refusal.value.model, refusal.value.param) == ("subject", "messages")
        assert text(await answer(engine))

    async def test_an_answer_that_fills_the_context_is_cut_there(self, engine: Engine) -> None:
        message: list[Message] = [{"role": "user", "content": "la " * (CONTEXT_TOKENS - 60)}]
        deltas = await answer(engine, message, max_tokens=CONTEXT_TOKENS)
        assert [d.finish_reason for d in deltas if d.finish_reason] in (["length"], ["stop"])
        assert deltas[-1].prompt_tokens + deltas[-1].completion_tokens <= CONTEXT_TOKENS

    @pytest.mark.parametrize(
        "sampling",
        [
            {"temperature": 0},
            {"temperature": 2, "top_p": 1e-9},
            {"presence_penalty": -2, "frequency_penalty": 2},
            {"seed": -(2**63)},
            {"seed": 2**63 - 1},
            {"seed": None},
            {"stop": tuple("☃" * n for n in range(1, 17))},
            {"stop": ("👩‍👩‍👧‍👦", "\n\n\n\n")},
        ],
        ids=str,
    )
    async def test_extreme_sampling_is_answered(self, engine: Engine, sampling: dict[str, Any]) -> None:
        assert 0 < (await answer(engine, **sampling))[-1].completion_tokens <= 16

    async def test_messages_are_not_changed(self, engine: Engine) -> None:
        messages = deepcopy(QUESTION)
        await answer(engine, messages)
        assert messages == QUESTION

    @pytest.mark.parametrize(
        "sample",
        [
            "",
            " ",
            "hello world",
            "  two\n\nlines \n",
            "你好世界，今天天气很好",
            "👩‍👩‍👧‍👦🎉🏳️‍🌈 family",
            "e\u0302\u0323a\u0308 naïve",
            "नमस्ते دنیا",
            "\x00\u2028\ufeff",
            "<|im_end|>",
        ],
    )
    async def test_token_ends_of_a_text(self, engine: Engine, sample: str) -> None:
        ends = await engine.token_ends(sample)
        assert ends == sorted(ends)
        assert ends[-1:] == ([len(sample)] if sample else [])
        for n, end in enumerate(ends, 1):
            assert len(await engine.token_ends(sample[:end])) <= n

    async def test_token_ends_of_a_conversation_grow_with_it(self, engine: Engine) -> None:
        counts = [len(await engine.token_ends(QUESTION * n)) for n in (1, 2, 3)]
        assert counts[0] > len(QUESTION)
        assert counts == sorted(set(counts))

    async def test_it_is_unavailable_before_the_start(self, stopped: Subject) -> None:
        for call in (stopped.engine.check_health(), answer(stopped.engine)):
            with pytest.raises(EngineUnavailable) as refusal:
                await call
            assert refusal.value.model == "subject"

    async def test_it_is_unavailable_after_the_stop_and_stops_twice(self, engine: Engine) -> None:
        await engine.check_health()
        await engine.stop()
        await engine.stop()
        for call in (engine.check_health(), answer(engine)):
            with pytest.raises(EngineUnavailable):
                await call

    async def test_it_starts_again(self, engine: Engine) -> None:
        before = text(await answer(engine))
        await engine.stop()
        await engine.start()
        await engine.check_health()
        assert text(await answer(engine)) == before

    @BOTH_WAYS
    async def test_stopping_ends_calls_at_work_and_calls_that_wait(
        self, engine: Engine, streamed: bool
    ) -> None:
        deltas = engine.stream(QUESTION, Sampling(max_tokens=400), streamed)
        await anext(deltas)
        waiting = [
            asyncio.create_task(answer(engine, max_tokens=400, streamed=streamed))
            for _ in range(CONCURRENCY)
        ]
        await asyncio.sleep(0)
        await engine.stop()

        async def rest() -> list[Delta]:
            return [delta async for delta in deltas]

        for call in (rest(), *waiting):
            with pytest.raises(EngineUnavailable, match="stopped") as failure:
                await asyncio.wait_for(call, 1)
            assert failure.value.model == "subject"
