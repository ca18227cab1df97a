"""Real sockets between SlimMoA and its upstreams: fakes of twelve families, and SlimMoA itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from actors.engine import Delta, Message, merge
from actors.engines.openai_http import OpenAIHttpEngine
from configs.errors import BadRequest, ContextTooLong, Overloaded, RequestError
from configs.schema import OpenAIHttpModel, Recipe, Sampling
from serve_app.http.api import create_api
from serve_app.mixture import moa
from serve_app.mixture.events import AnswerDelta, AnswerDone, ProposalDone
from tests.unit.actors.engines.families import FAMILIES, WORDS, reply_of
from tests.unit.serve_app.conftest import Puppets, Scripted, listening, recipe

CHAT: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hello"},
    {"role": "user", "content": "again"},
]


@pytest.fixture
async def families() -> AsyncIterator[str]:
    """The URL of a server that has each family under its name."""
    app = web.Application()
    for name in FAMILIES:
        app.router.add_post(f"/{name}/v1/chat/completions", reply_of(name))
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


def settings(url: str, **more: Any) -> dict[str, Any]:
    return {"engine": "openai_http", "base_url": url, "model": "m", "backoff_s": 0.001} | more


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Awaitable[OpenAIHttpEngine]]]:
    """A function that connects an engine to a server, given its URL and settings of the model."""
    async with AsyncExitStack() as stack:

        async def engine(url: str, **more: Any) -> OpenAIHttpEngine:
            engine = OpenAIHttpEngine("far", OpenAIHttpModel.model_validate(settings(url, **more)))
            await engine.start()
            stack.push_async_callback(engine.stop)
            return engine

        yield engine


Connect = Callable[..., Awaitable[OpenAIHttpEngine]]


async def read(engine: OpenAIHttpEngine, chat: list[Message] = CHAT, **sampling: Any) -> Delta:
    return merge([delta async for delta in engine.stream(chat, Sampling(**sampling))])


@pytest.mark.parametrize("family", FAMILIES)
async def test_every_family_gives_its_whole_answer(
    families: str, connect: Connect, family: str
) -> None:
    engine = await connect(f"{families}/{family}/v1")
    for _ in range(2):  # the second time with what was learned
        whole = await read(engine, max_tokens=9, seed=1)
        assert (whole.text, whole.finish_reason) == ("".join(WORDS), "stop")
        assert whole.reasoning == ("hm" if family in ("mistral", "openrouter") else "")
        assert whole.prompt_tokens > 0
        assert whole.completion_tokens > 0


async def test_slimmoa_is_an_upstream_of_slimmoa(scripted: Scripted, connect: Connect) -> None:
    async with listening(create_api(recipe(), scripted)) as url:
        engine = await connect(f"{url}/v1", model="mix")
        whole = await read(engine, max_tokens=9)
        assert len(whole.text.split()) == 6
        assert whole.finish_reason == "stop"
        assert whole.prompt_tokens > 0
        with pytest.raises(ContextTooLong) as failure:
            await read(engine, [{"role": "user", "content": "word " * 9000}])
        assert failure.value.param == "messages"
        await engine.stop()


@pytest.mark.parametrize("error", [Overloaded("all is busy"), BadRequest("no such thing")], ids=str)
async def test_errors_of_a_slimmoa_keep_their_class_and_words(
    puppets: Puppets, connect: Connect, error: RequestError
) -> None:
    async with listening(create_api(recipe(), puppets)) as url:
        engine = await connect(f"{url}/v1", model="one", retries=0)
        reading = asyncio.ensure_future(read(engine))
        (await puppets.call("one")).fail(error)
        with pytest.raises(type(error), match=error.message):
            await reading
        await engine.stop()


async def test_a_mixture_over_three_servers_and_a_slimmoa(families: str, scripted: Scripted) -> None:
    async with listening(create_api(recipe(), scripted)) as url:
        names = {"gemini": families, "mistral": families, "llamacpp": families}
        models = {name: settings(f"{base}/{name}/v1") for name, base in names.items()}
        models["moa"] = settings(f"{url}/v1", model="mix")
        mixture = Recipe.model_validate(
            {
                "name": "far",
                "models": models,
                "layers": [{"proposers": [{"model": name} for name in ("gemini", "mistral", "moa")]}],
                "aggregator": {"model": "llamacpp"},
            }
        )
        served = Scripted(mixture)
        await served.start()
        events = [event async for event in moa.answer(CHAT, mixture, served)]
        proposals = {event.model: event.text for event in events if isinstance(event, ProposalDone)}
        assert set(proposals) == {"gemini", "mistral", "moa"}
        assert proposals["gemini"] == proposals["mistral"] == "".join(WORDS)
        assert len(proposals["moa"].split()) == 6
        text = "".join(event.delta.text for event in events if isinstance(event, AnswerDelta))
        assert text == "".join(WORDS)
        last = events[-1]
        assert isinstance(last, AnswerDone)
        assert not last.summary.degraded
        await served.stop()
