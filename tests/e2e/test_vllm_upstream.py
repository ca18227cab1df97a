"""vLLM's own server on this CPU as an upstream, and a mixture over three servers.

The server runs a copy of SmolLM2-135M that thinks unless it is told not to (`test_vllm_thinking.py`).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from importlib.util import find_spec
from typing import Any

import aiohttp
import pytest

from actors.engine import Delta, Message, merge
from actors.engines.openai_http import OpenAIHttpEngine
from configs.errors import BadRequest, ContextTooLong, EngineError
from configs.schema import OpenAIHttpModel, Recipe, Sampling
from serve_app.http.api import create_api
from serve_app.mixture import moa
from serve_app.mixture.events import AnswerDelta, AnswerDone, ProposalDone
from tests.e2e import upstream_servers, vllm_folders
from tests.unit.serve_app.conftest import Scripted, listening, recipe

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: see docs/vllm.md"),
]

CONTEXT_TOKENS = 1024
KEY = "a-key-of-this-test"
TEMPLATE = (
    "{% for m in messages %}"
    "{% if strict is defined and m.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}{% endif %}"
)
"""It thinks by default, as Qwen3's does, and knows no system role if it is told to be strict."""
QUESTION: list[Message] = [{"role": "user", "content": "What is the capital of France?"}]
QUIET = {"enable_thinking": False}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of vLLM's server."""
    folder = tmp_path_factory.mktemp("thinker")
    marks = {"<issue_start>": "<think>", "<issue_closed>": "</think>"}
    source = vllm_folders.checkpoint("smollm2-135m")
    vllm_folders.thinker(source, folder / "thinker", TEMPLATE, marks)
    with upstream_servers.vllm_server(
        folder / "thinker",
        folder / "server.log",
        1,
        *("--served-model-name", "thinker", "--api-key", KEY),
        *("--max-model-len", str(CONTEXT_TOKENS), "--max-num-seqs", "4"),
        *("--kv-cache-memory-bytes", str(256 << 20), "--gpu-memory-utilization", "0.2"),
        *("--reasoning-parser", "qwen3", "--generation-config", "vllm"),
        # vLLM 0.32 on a CPU dies when a step cuts the prompt of a call with a seed: docs/vllm.md.
        *("--no-enable-chunked-prefill", "--max-num-batched-tokens", str(CONTEXT_TOKENS)),
    ) as url:
        yield url


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)


def far(url: str, **more: Any) -> dict[str, Any]:
    about = {"engine": "openai_http", "base_url": url, "model": "thinker", "backoff_s": 0.01}
    return about | {"api_key_env": "UPSTREAM_KEY", "template": QUIET} | more


@asynccontextmanager
async def engine_of(url: str, **more: Any) -> AsyncIterator[OpenAIHttpEngine]:
    engine = OpenAIHttpEngine("far", OpenAIHttpModel.model_validate(far(url, **more)))
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def engine(server: str) -> AsyncIterator[OpenAIHttpEngine]:
    async with engine_of(server) as engine:
        yield engine


async def deltas_of(
    engine: OpenAIHttpEngine, chat: list[Message], streamed: bool = True, **sampling: Any
) -> list[Delta]:
    settings = Sampling(**{"temperature": 0, "max_tokens": 24, "seed": 1} | sampling)
    return [delta async for delta in engine.stream(chat, settings, streamed)]


async def read(engine: OpenAIHttpEngine, chat: list[Message] = QUESTION, **sampling: Any) -> Delta:
    return merge(await deltas_of(engine, chat, **sampling))


async def asked(url: str, path: str, body: Any = None) -> Any:
    """What the server says beside its chat API."""
    headers = {"Authorization": f"Bearer {KEY}"}
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, url.removesuffix("/v1") + path, json=body) as response,
    ):
        assert response.status == 200
        return await (response.text() if body is None else response.json())


async def test_an_answer_is_read_with_the_servers_own_counts(
    engine: OpenAIHttpEngine, server: str
) -> None:
    deltas = await deltas_of(engine, QUESTION)
    whole = merge(deltas)
    assert "Paris" in whole.text
    assert (whole.reasoning, whole.finish_reason) == ("", "stop")
    assert len(deltas) > 3
    body = {"model": "thinker", "messages": QUESTION, "chat_template_kwargs": QUIET}
    counted = await asked(server, "/tokenize", body)
    assert whole.prompt_tokens == counted["count"]
    at_once = merge(await deltas_of(engine, QUESTION, streamed=False))
    assert at_once == whole


async def test_a_limit_cuts_and_log_probabilities_are_one_per_token(engine: OpenAIHttpEngine) -> None:
    cut = await read(engine, max_tokens=3, top_logprobs=2)
    assert (cut.finish_reason, cut.completion_tokens, len(cut.logprobs)) == ("length", 3, 3)
    assert b"".join(bytes(token["bytes"]) for token in cut.logprobs).decode() == cut.text
    assert all(token["logprob"] == token["top_logprobs"][0]["logprob"] for token in cut.logprobs)


async def test_a_stop_text_ends_the_answer_before_itself(engine: OpenAIHttpEngine) -> None:
    whole = await read(engine)
    stopped = await read(engine, stop=(" is",))
    assert (stopped.text, stopped.finish_reason) == (whole.text.split(" is")[0], "stop")


@pytest.mark.parametrize("sampling", [{}, {"reasoning_effort": "high"}])
async def test_what_its_parser_takes_for_reasoning_is_reasoning(
    server: str, sampling: dict[str, Any]
) -> None:
    async with engine_of(server, template={}) as engine:
        whole = await read(engine, **sampling)
        print(whole)
        assert whole.reasoning
        assert "think>" not in whole.reasoning + whole.text
        silent = await read(engine, reasoning_effort="none")
        print(silent)
        assert (silent.reasoning, "Paris" in silent.text) == ("", True)


async def test_a_bounded_thought_leaves_the_answer_its_own_tokens(server: str) -> None:
    async with engine_of(server, template={}, thinking_limit="thinking_token_budget") as engine:
        for budget in (0, 4, 12):
            whole = await read(engine, max_tokens=8, thinking_tokens=budget)
            print(budget, whole)
            assert whole.text.strip()
            assert whole.completion_tokens <= budget + 8 + 3


async def test_a_conversation_that_does_not_fit_is_refused_in_its_words(
    engine: OpenAIHttpEngine,
) -> None:
    for words in (CONTEXT_TOKENS, 40 * CONTEXT_TOKENS):  # vLLM counts the second in characters only
        with pytest.raises(
            ContextTooLong, match=f"maximum context length is {CONTEXT_TOKENS}"
        ) as failure:
            await read(engine, [{"role": "user", "content": "word " * words}])
        assert failure.value.param == "messages"


async def test_a_limit_with_no_room_is_clamped_and_one_beyond_the_context_refused(
    engine: OpenAIHttpEngine,
) -> None:
    assert (await read(engine, max_tokens=CONTEXT_TOKENS)).finish_reason == "stop"
    with pytest.raises(BadRequest, match="cannot be greater than max_model_len") as failure:
        await read(engine, max_tokens=CONTEXT_TOKENS + 1)
    assert not isinstance(failure.value, ContextTooLong)


async def running(url: str) -> float:
    """How many calls the server works on, as its metrics say."""
    lines = (await asked(url, "/metrics")).splitlines()
    (line,) = [line for line in lines if line.startswith("vllm:num_requests_running")]
    return float(line.rsplit(" ", 1)[1])


@pytest.mark.parametrize("streamed", [True, False])
async def test_closing_ends_the_work_at_the_server(server: str, streamed: bool) -> None:
    async with engine_of(server, extra_body={"ignore_eos": True}) as engine:
        sampling = Sampling(max_tokens=900, temperature=0)
        async with aclosing(engine.stream(QUESTION, sampling, streamed)) as deltas:
            await anext(deltas)
            async with asyncio.timeout(10):
                while await running(server) != 1:  # noqa: ASYNC110  # another process
                    await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            while await running(server):  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.1)


async def test_extra_body_reaches_the_server(server: str) -> None:
    async with engine_of(server, extra_body={"ignore_eos": True}) as engine:
        whole = await read(engine, max_tokens=40)
    assert (whole.finish_reason, whole.completion_tokens) == ("length", 40)


async def test_a_form_of_answer_is_kept(engine: OpenAIHttpEngine) -> None:
    properties = {"city": {"enum": ["Paris", "Rome"]}}
    schema = {"type": "object", "properties": properties, "required": ["city"]}
    extra = {"structure": {"json_schema": schema | {"additionalProperties": False}}}
    whole = await read(engine, extra=extra)
    assert json.loads(whole.text)["city"] in ("Paris", "Rome")


async def test_a_template_without_system_role_gets_its_text_with_the_user(server: str) -> None:
    chat: list[Message] = [{"role": "system", "content": "Answer in one sentence."}, *QUESTION]
    joined: list[Message] = [
        {"role": "user", "content": f"{chat[0]['content']}\n\n{QUESTION[0]['content']}"}
    ]
    async with engine_of(server, template=QUIET | {"strict": True}) as engine:
        whole = await read(engine, chat)
        assert whole == await read(engine, joined)
        assert engine._habits.form.system == "nowhere"


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"model": "painter"}, EngineError, "404.*painter.*does not exist"),
        ({"api_key_env": "OTHER_KEY"}, EngineError, "401.*Unauthorized"),
        ({"extra_body": {"cache_salt": ""}}, BadRequest, "cache_salt"),
    ],
)
async def test_its_refusals_keep_their_words(
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    monkeypatch.setenv("OTHER_KEY", "not-the-key")
    async with engine_of(server, **more) as engine:
        with pytest.raises(error, match=words) as failure:
            await read(engine)
        assert type(failure.value) is error
        print(failure.value)


async def test_a_mixture_over_vllm_llama_cpp_and_a_slimmoa(server: str) -> None:
    scripted = Scripted(recipe())
    await scripted.start()
    with upstream_servers.llama_server(1) as llama:
        async with listening(create_api(recipe(), scripted)) as slimmoa:
            about = {"engine": "openai_http", "model": "m"}
            short = {"max_tokens": 24, "temperature": 0}
            mixture = Recipe.model_validate(
                {
                    "name": "far",
                    "models": {
                        "vllm": far(server),
                        "thinker": far(server, template={}),
                        "llama": about | {"base_url": llama},
                        "moa": about | {"base_url": f"{slimmoa}/v1", "model": "mix"},
                    },
                    "layers": [
                        {
                            "proposers": [
                                {"model": "vllm", "samples": 2, "sampling": {"max_tokens": 24}},
                                {"model": "llama", "sampling": short},
                                {"model": "moa"},
                                {"model": "thinker", "sampling": short},  # it only thinks
                            ]
                        }
                    ],
                    "aggregator": {"model": "vllm", "sampling": short},
                }
            )
            served = Scripted(mixture)
            await served.start()
            async with asyncio.timeout(120):
                events = [event async for event in moa.answer(QUESTION, mixture, served, seed=1)]
            await served.stop()
    await scripted.stop()
    proposals = [(event.model, event.text) for event in events if isinstance(event, ProposalDone)]
    print(proposals)
    assert sorted(model for model, _ in proposals) == ["llama", "moa", "vllm", "vllm"]
    assert all(text.strip() for _, text in proposals)
    text = "".join(event.delta.text for event in events if isinstance(event, AnswerDelta))
    print(text)
    assert text.strip()
    last = events[-1]
    assert isinstance(last, AnswerDone)
    assert [(each.model, each.cause) for each in last.summary.missing] == [
        ("thinker", "only_reasoning")
    ]
    assert last.summary.answered.fallback is None
