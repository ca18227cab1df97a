"""Calls to the models of a recipe, whose replicas come and go."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from actors.calls.address import Address
from actors.calls.server import CallServer
from actors.engine import NONE, Delta, Message, collect_answer
from actors.private_folder import PrivateFolder
from actors.replica import Replica
from configs.errors import EngineError, NoReplica, UnknownModel
from configs.schema import OpenAIHttpModel, Sampling, ScriptedModel
from serve_app import replica_models
from serve_app.mixture.models import on_behalf
from serve_app.replica_models import Notice, ReplicaModels

NODE = "a node"
MODEL = ScriptedModel(engine="scripted", tokens=3, first_token_s=0, token_s=0)
HELLO = [Message(role="user", content="hello there")]


class Notices:
    """What Serve would say about replicas, said by the test."""

    def __init__(self) -> None:
        self.notice: Notice | None = None
        self.watched = asyncio.Event()
        self.ended = asyncio.Event()

    async def watch(self, notice: Notice) -> None:
        self.notice = notice
        self.watched.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def say(self, model: str, *paths: Path) -> None:
        await self.watched.wait()
        assert self.notice is not None
        self.notice(model, {str(path): Address(NODE, str(path)) for path in paths})


@pytest.fixture
async def path() -> AsyncIterator[Path]:
    """The socket of a real replica of a scripted engine."""
    folder, replica = PrivateFolder(), Replica("m", MODEL, queue=4)
    await replica.start()
    server = CallServer(replica)
    await server.listen_unix(folder.path / "calls")
    yield folder.path / "calls"
    await server.drain(0)
    await replica.stop()
    folder.remove()


@pytest.fixture
def notices() -> Notices:
    return Notices()


@pytest.fixture
async def models(notices: Notices) -> AsyncIterator[ReplicaModels]:
    opened = ReplicaModels(["m", "away"], NODE, notices.watch)
    yield opened
    await opened.close()


async def test_every_kind_of_call_reaches_the_replica(
    models: ReplicaModels, notices: Notices, path: Path
) -> None:
    models.start()
    await notices.say("m", path)
    await notices.say("away")
    sampling = Sampling(seed=1)
    streamed = await collect_answer(models.stream("m", HELLO, sampling))
    whole = await models.complete("m", HELLO, sampling)
    assert whole.text == streamed.text != ""
    assert (whole.completion_tokens, whole.last) == (3, True)
    assert await models.count_tokens("m", HELLO) == 3
    assert await models.token_ends("m", ["ab cd"]) == [[2, 5]]
    stats, settings = await models.stats("m"), await models.settings("m")
    assert (stats.finished, stats.in_flight, stats.completion_tokens) == (2, 0, 6)
    assert (settings.model, settings.queue) == (MODEL, 4)
    assert await models.is_alive("m")
    assert models.counts == {"m": 1, "away": 0}
    assert await models.all_stats("m") == [stats]
    assert await models.all_stats("away") == []


async def test_a_model_without_replicas_fails_at_once(models: ReplicaModels, notices: Notices) -> None:
    models.start()
    await notices.say("m")
    await notices.say("away")
    with pytest.raises(NoReplica, match="'away'"):
        await models.count_tokens("away", [])
    assert not await models.is_alive("away")


async def test_a_call_waits_for_the_first_notice(
    models: ReplicaModels, notices: Notices, path: Path
) -> None:
    counting = asyncio.create_task(models.token_ends("m", ["ab"]))
    await notices.say("away")
    assert not counting.done()
    await notices.say("m", path)
    assert await counting == [[2]]


async def test_a_call_does_not_wait_for_ever_for_a_notice(
    models: ReplicaModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_models, "FIRST_NOTICE_S", 0.01)
    with pytest.raises(NoReplica):
        await models.token_ends("m", ["ab"])


async def test_a_model_that_still_starts_holds_no_other_model_up(
    models: ReplicaModels, notices: Notices, path: Path
) -> None:
    """Serve says nothing of a model before its first replica runs, which may take minutes."""
    models.start()
    await notices.say("m", path)
    assert await models.is_alive("m")


async def test_a_model_without_a_notice_is_missing_at_once_later_on(
    models: ReplicaModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_models, "FIRST_NOTICE_S", 0.01)
    with pytest.raises(NoReplica):
        await models.stats("away")
    loop = asyncio.get_running_loop()
    began, armed = loop.time(), list[float]()
    call_at = loop.call_at

    def note(when: float, *rest: Any, **more: Any) -> asyncio.TimerHandle:
        armed.append(when)
        return call_at(when, *rest, **more)

    monkeypatch.setattr(loop, "call_at", note)
    with pytest.raises(NoReplica):
        await models.stats("away")
    assert [when for when in armed if when > began] == []


async def test_a_watch_that_fails_begins_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replica_models, "WATCH_AGAIN_S", 0)
    watches = 0

    async def watch(notice: Notice) -> None:
        nonlocal watches
        watches += 1
        if watches == 1:
            raise KeyError("what nobody expects")
        notice("m", {"one": Address(NODE, str(path))})
        await asyncio.Event().wait()

    models = ReplicaModels(["m"], NODE, watch)
    assert (await models.stats("m")).started == 0
    assert "KeyError" in caplog.text
    await models.close()


async def test_closing_ends_the_watch_and_the_calls(
    models: ReplicaModels, notices: Notices, path: Path
) -> None:
    models.start()
    await notices.say("m", path)
    await notices.say("away")
    await models.stats("m")
    await models.close()
    assert notices.ended.is_set()
    with pytest.raises((EngineError, NoReplica)):
        await models.stats("m")


def test_another_event_loop_gets_connections_of_its_own(notices: Notices) -> None:
    """Benchmark jobs run several event loops, one after the other."""

    async def ask(models: ReplicaModels) -> None:
        folder, replica = PrivateFolder(), Replica("m", MODEL, queue=4)
        await replica.start()
        server = CallServer(replica)
        await server.listen_unix(folder.path / "calls")
        models.start()
        await notices.say("m", folder.path / "calls")
        assert (await models.stats("m")).started == 0
        await models.close()
        await server.drain(0)
        await replica.stop()
        folder.remove()

    models = ReplicaModels(["m"], NODE, notices.watch)
    for _ in range(2):
        notices.watched, notices.ended = asyncio.Event(), asyncio.Event()
        asyncio.run(ask(models))


class Engine:
    """The engine of a model with an adapter, which tells who answers."""

    def __init__(self, name: str, adapters: tuple[str, ...] = ()) -> None:
        self.name = name
        self.adapters = adapters

    def with_adapter(self, name: str) -> "Engine":
        if name not in self.adapters:
            raise UnknownModel(f"no adapter {name!r}")
        return Engine(name)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def check_health(self) -> None: ...

    async def stream(self, _messages: Any, _sampling: Any, _streamed: Any = True) -> Any:
        yield Delta(self.name, finish_reason="stop", completion_tokens=1)

    async def token_ends(self, _prompt: Any, _template: Any = NONE) -> list[int]:
        return [1] * len(self.name)


async def test_calls_to_an_adapter_reach_it_at_the_replica_of_its_model(
    notices: Notices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.engines.create", lambda *_: Engine("m", ("poet",)))
    folder, replica = PrivateFolder(), Replica("m", MODEL, queue=4)
    await replica.start()
    server = CallServer(replica)
    await server.listen_unix(folder.path / "calls")
    adapters = {"poet": "m", "painter": "m"}
    models = ReplicaModels(["m"], NODE, notices.watch, adapters=adapters)
    models.start()
    await notices.say("m", folder.path / "calls")
    said = {name: (await models.complete(name, HELLO, Sampling())).text for name in ("m", "poet")}
    assert said == {"m": "m", "poet": "poet"}
    assert (await collect_answer(models.stream("poet", HELLO, Sampling()))).text == "poet"
    assert [await models.count_tokens(name, HELLO) for name in ("m", "poet")] == [1, 4]
    assert await models.is_alive("poet")
    assert models.counts == {"m": 1}
    with pytest.raises(UnknownModel, match="painter"):
        await models.complete("painter", HELLO, Sampling())
    with pytest.raises(UnknownModel, match="painter"):
        await models.count_tokens("painter", HELLO)
    await models.close()
    await server.drain(0)
    await replica.stop()
    folder.remove()


class Upstream:
    """An OpenAI-compatible server that keeps the headers of its requests."""

    def __init__(self) -> None:
        self.headers: list[Mapping[str, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers)
        choice = {"message": {"content": "hi"}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})


async def test_a_server_gets_the_headers_of_the_trace_and_nothing_else_of_the_origin(
    notices: Notices,
) -> None:
    upstream, app = Upstream(), web.Application()
    app.router.add_post("/v1/chat/completions", upstream.answer)
    async with TestServer(app) as server:
        far = OpenAIHttpModel(engine="openai_http", base_url=str(server.make_url("/v1")), model="far")
        folder, replica = PrivateFolder(), Replica("m", far, queue=4)
        await replica.start()
        calls = CallServer(replica)
        await calls.listen_unix(folder.path / "calls")
        models = ReplicaModels(["m"], NODE, notices.watch)
        models.start()
        await notices.say("m", folder.path / "calls")
        trace = {"traceparent": "00-1-2-01", "tracestate": "a=b"}
        for asking in (on_behalf(models, trace | {"request": "7"}), on_behalf(models, {})):
            await asking.complete("m", HELLO, Sampling())
            await collect_answer(asking.stream("m", HELLO, Sampling()))
        narrower = models.on_behalf({"tracestate": "c=d", "request": "7"}).on_behalf(trace)
        await narrower.complete("m", HELLO, Sampling())
        sent = [{n: h[n] for n in (*trace, "request") if n in h} for h in upstream.headers]
        assert sent == [trace, trace, {}, {}, trace]
        await models.close()
        await calls.drain(0)
        await replica.stop()
        folder.remove()


async def test_an_engine_without_adapters_has_none() -> None:
    replica = Replica("m", MODEL, queue=4)
    with pytest.raises(UnknownModel, match="model 'm' has no adapter 'poet'"):
        await replica.complete(HELLO, Sampling(), None, "poet")
