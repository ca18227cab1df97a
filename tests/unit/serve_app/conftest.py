"""Models for the API's tests, and ways to reach the API without Ray."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI
from starlette.types import ASGIApp, Send

from actors.engine import NONE, Delta, Message, collect_answer
from actors.replica import Replica, ReplicaStats
from configs.schema import Recipe, Sampling
from serve_app.http.api import create_api
from serve_app.http.listener import Listener

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]
SCOPE = {
    "type": "http",
    "asgi": {"spec_version": "2.3"},
    "method": "POST",
    "path": CHAT,
    "query_string": b"",
    "headers": [(b"content-type", b"application/json")],
    "server": ("127.0.0.1", 8000),
    "client": ("127.0.0.1", 50_000),
}
MIXTURE: dict[str, Any] = {"model": "mix", "messages": HELLO}


def recipe(**limits: Any) -> Recipe:
    """Two proposers and an aggregator, all scripted and without latency."""
    scripted = {"engine": "scripted", "first_token_s": 0, "token_s": 0, "tokens": 6}
    return Recipe.model_validate(
        {
            "name": "mix",
            "models": {"one": scripted, "two": scripted, "writer": scripted},
            "layers": [{"proposers": [{"model": "one"}, {"model": "two"}]}],
            "aggregator": {"model": "writer"},
            "limits": limits,
            "show_proposals": False,  # the chunks of most tests are those of the answer alone
        }
    )


class Scripted:
    """The recipe's models as real replicas of scripted engines, in this process."""

    def __init__(self, mixture: Recipe) -> None:
        self._replicas = {
            name: Replica(name, model, mixture.queue_limit(name))
            for name, model in mixture.models.items()
        }
        self.asked: list[tuple[str, Sequence[Message], Sampling]] = []
        """The model, messages and sampling of each call, in order."""

    async def start(self) -> None:
        await asyncio.gather(*(replica.start() for replica in self._replicas.values()))

    async def stop(self) -> None:
        await asyncio.gather(*(replica.stop() for replica in self._replicas.values()))

    def stream(
        self, model: str, messages: Sequence[Message], sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        self.asked.append((model, messages, sampling))
        return self._replicas[model].stream(messages, sampling)

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await collect_answer(self.stream(model, messages, sampling))

    async def count_tokens(
        self, model: str, messages: Sequence[Message], template: Mapping[str, Any] = NONE
    ) -> int:
        return await self._replicas[model].count_tokens(messages, template)

    async def token_ends(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        return await self._replicas[model].token_ends(texts)

    async def is_alive(self, _model: str) -> bool:
        return True

    async def stats(self, model: str) -> ReplicaStats:
        return await self._replicas[model].stats()


class Call:
    """One call of a model, whose answer the test writes."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        """Set once nothing works on the call any more."""
        self._answer: asyncio.Queue[Delta | Exception | None] = asyncio.Queue()

    def say(self, text: str) -> None:
        self._answer.put_nowait(Delta(text=text))

    def think(self, reasoning: str) -> None:
        self._answer.put_nowait(Delta(reasoning=reasoning))

    def end(self, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        counts = Delta("", "", "stop", prompt_tokens, completion_tokens)
        self._answer.put_nowait(counts)
        self._answer.put_nowait(None)

    def fail(self, error: Exception) -> None:
        self._answer.put_nowait(error)

    async def deltas(self) -> AsyncIterator[Delta]:
        try:
            while (said := await self._answer.get()) is not None:
                if isinstance(said, Exception):
                    raise said
                yield said
        finally:
            for _ in range(5):  # an engine lets go of a call only some steps later
                await asyncio.sleep(0)
            self.closed.set()


class Puppets:
    """Models whose calls all wait for the test."""

    def __init__(self) -> None:
        self._calls: defaultdict[str, asyncio.Queue[Call]] = defaultdict(asyncio.Queue)
        self.down: dict[str, Exception] = {}
        """The error that a probe of a model gets, by the model's name."""

    async def call(self, model: str) -> Call:
        """Wait for the model's next call."""
        return await self._calls[model].get()

    async def answer(self, model: str) -> None:
        """Have the model's next call answer with two words."""
        call = await self.call(model)
        call.say(f"by {model}")
        call.end(prompt_tokens=10, completion_tokens=2)

    def stream(
        self, model: str, _messages: Sequence[Message], _sampling: Sampling, _streamed: bool = True
    ) -> AsyncIterator[Delta]:
        call = Call()
        self._calls[model].put_nowait(call)
        return call.deltas()

    async def complete(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Delta:
        return await collect_answer(self.stream(model, messages, sampling))

    async def count_tokens(
        self, _model: str, messages: Sequence[Message], _template: Mapping[str, Any] = NONE
    ) -> int:
        return sum(len(message["content"].split()) for message in messages)

    async def token_ends(self, _model: str, texts: Sequence[str]) -> list[list[int]]:
        return [[n + 1 for n in range(len(text))] for text in texts]

    async def is_alive(self, _model: str) -> bool:
        return False

    async def stats(self, model: str) -> ReplicaStats:
        if error := self.down.get(model):
            raise error
        return ReplicaStats(0, 0, 0, 0, 0, 0, 0)


class Exchange:
    """A request to an ASGI app, and the parts of its response as they come.

    httpx would return only the whole response.
    """

    def __init__(
        self, api: FastAPI, body: dict[str, Any], send: Send | None = None, **scope: Any
    ) -> None:
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._received: asyncio.Queue[Any] = asyncio.Queue()
        self._received.put_nowait({"type": "http.request", "body": json.dumps(body).encode()})
        self.app = asyncio.create_task(api(SCOPE | scope, self._received.get, send or self._sent.put))

    async def start(self) -> dict[str, Any]:
        """Wait for the message with status and headers."""
        message: dict[str, Any] = await self._sent.get()
        assert message["type"] == "http.response.start"
        return message

    async def body(self) -> bytes:
        """Wait for the next part of the body."""
        message: dict[str, bytes] = await self._sent.get()
        return message["body"]

    async def events(self) -> list[Any]:
        """Wait for the next part of the body and read its events: chunks, `keep-alive`, `[DONE]`.

        A sign of life, which is a comment and a chunk without text, is read as `keep-alive`."""
        parts = (await self.body()).decode().removesuffix("\n\n").split("\n\n")
        return [_read(part) for part in parts]

    async def whole(self) -> Any:
        """Wait for an answer in one piece."""
        return json.loads(await self.body())

    async def rest(self) -> list[Any]:
        """Read all events until the end of the stream, and wait for the end of the request."""
        seen: list[Any] = []
        while not seen or seen[-1] != "[DONE]":
            seen += await self.events()
        await self.app
        return seen

    def leave(self) -> None:
        """Close the connection as a client that leaves."""
        self._received.put_nowait({"type": "http.disconnect"})


def _read(part: str) -> Any:
    comment, _, behind = part.rpartition("\n")
    data = behind.removeprefix("data: ")
    if data == "[DONE]":
        return data
    chunk = json.loads(data)
    if not comment:
        return chunk
    assert comment == ": keep-alive"
    assert chunk["choices"][0]["delta"] == {"content": ""}
    return "keep-alive"


@pytest.fixture
def puppets() -> Puppets:
    return Puppets()


@pytest.fixture
def ask(puppets: Puppets) -> Callable[..., Exchange]:
    """Opens an exchange with puppets, given the recipe's `limits` and the fields of the request."""

    def opened(
        limits: dict[str, Any] | None = None,
        send: Send | None = None,
        path: str = CHAT,
        **fields: Any,
    ) -> Exchange:
        body = MIXTURE if path == CHAT else {"model": "mix", "input": "hello"}
        return Exchange(create_api(recipe(**(limits or {})), puppets), body | fields, send, path=path)

    return opened


@pytest.fixture
async def scripted() -> Scripted:
    models = Scripted(recipe())
    await models.start()
    return models


@pytest.fixture
async def http(scripted: Scripted) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API over scripted models, for answers in one piece."""
    shown = recipe(max_body_bytes=200_000).model_copy(update={"show_proposals": True})
    api = create_api(shown, scripted)
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@asynccontextmanager
async def listening(api: ASGIApp, **settings: float) -> AsyncIterator[str]:
    """Serve the API on a free port of this machine, and give its URL."""
    listener = Listener(api, "127.0.0.1", 0, **settings)
    await listener.start()
    yield f"http://127.0.0.1:{listener.port}"
    await listener.stop(0)


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Any]]:
    """Serves an API on a free port of this machine, and gives OpenAI's client of it."""
    async with AsyncExitStack() as stack:

        async def client(api: FastAPI) -> AsyncOpenAI:
            url = await stack.enter_async_context(listening(api))
            openai = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            return await stack.enter_async_context(openai)

        yield client


@pytest.fixture
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what runs in threads run at once: the virtual clock knows nothing of threads."""

    async def run(work: Callable[..., Any], *arguments: Any) -> Any:
        return work(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", run)
