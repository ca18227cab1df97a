"""llama.cpp's own HTTP server as an upstream, and a mixture over that server, SlimMoA and a fake."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from actors.engine import Delta, Message, merge
from actors.engines.openai_http import OpenAIHttpEngine
from configs.errors import ContextTooLong
from configs.schema import OpenAIHttpModel, Recipe, Sampling
from serve_app.http.api import create_api
from serve_app.mixture import moa
from serve_app.mixture.events import AnswerDelta, AnswerDone, ProposalDone
from tests.e2e import upstream_servers
from tests.unit.actors.engines.families import WORDS, reply_of
from tests.unit.serve_app.conftest import Scripted, listening, recipe

pytestmark = pytest.mark.weights

QUESTION: list[Message] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    """The base URL of a server of llama.cpp."""
    with upstream_servers.llama_server(2) as url:
        yield url


def far(url: str, **more: Any) -> dict[str, Any]:
    return {"engine": "openai_http", "base_url": url, "model": "m", "backoff_s": 0.01} | more


@pytest.fixture
async def engine(llama: str) -> AsyncIterator[OpenAIHttpEngine]:
    engine = OpenAIHttpEngine("far", OpenAIHttpModel.model_validate(far(llama)))
    await engine.start()
    yield engine
    await engine.stop()


async def read(engine: OpenAIHttpEngine, chat: list[Message], **sampling: Any) -> Delta:
    settings = Sampling(**{"temperature": 0, "max_tokens": 12, "seed": 1} | sampling)
    return merge([delta async for delta in engine.stream(chat, settings)])


async def test_llama_cpps_own_server_is_read_with_its_counts(engine: OpenAIHttpEngine) -> None:
    whole = await read(engine, QUESTION)
    assert whole.text
    assert whole.finish_reason in ("stop", "length")
    assert whole.prompt_tokens > 8
    assert 0 < whole.completion_tokens <= 12
    cut = await read(engine, QUESTION, max_tokens=3, top_logprobs=2)
    assert (cut.finish_reason, cut.completion_tokens, len(cut.logprobs)) == ("length", 3, 3)
    assert all(token["logprob"] <= 0 for token in cut.logprobs)


async def test_llama_cpps_own_errors_keep_their_class_and_words(engine: OpenAIHttpEngine) -> None:
    with pytest.raises(ContextTooLong, match="context size") as failure:
        await read(engine, [{"role": "user", "content": "word " * 4000}])
    assert failure.value.param == "messages"


async def test_a_mixture_over_llama_cpp_a_slimmoa_and_a_fake(llama: str) -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", reply_of("mistral"))
    scripted = Scripted(recipe())
    await scripted.start()
    async with TestServer(app) as fake, listening(create_api(recipe(), scripted)) as moa_url:
        mixture = Recipe.model_validate(
            {
                "name": "far",
                "models": {
                    "llama": far(llama),
                    "moa": far(f"{moa_url}/v1", model="mix"),
                    "fake": far(str(fake.make_url("/v1"))),
                },
                "layers": [{"proposers": [{"model": name} for name in ("llama", "moa", "fake")]}],
                "aggregator": {"model": "llama", "sampling": {"max_tokens": 16}},
            }
        )
        served = Scripted(mixture)
        await served.start()
        async with asyncio.timeout(60):
            events = [event async for event in moa.answer(QUESTION, mixture, served)]
        proposals = {event.model: event.text for event in events if isinstance(event, ProposalDone)}
        assert set(proposals) == {"llama", "moa", "fake"}
        assert proposals["fake"] == "".join(WORDS)
        assert any(event.delta.text for event in events if isinstance(event, AnswerDelta))
        last = events[-1]
        assert isinstance(last, AnswerDone)
        assert not last.summary.degraded
        await served.stop()
