"""Fixtures that start a local server and connect the HTTP engine to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from actors.engines.openai_http import OpenAIHttpEngine
from tests.unit.actors.engines.http_servers import Connect, Reply, Server, model


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Server], Awaitable[str]]]:
    """A function that starts a server on a free port and returns its URL without a path."""
    async with AsyncExitStack() as stack:

        async def start(server: Server) -> str:
            app = web.Application()
            app.router.add_post("/v1/chat/completions", server.answer)
            listening = TestServer(app)
            await listening.start_server(shutdown_timeout=0.1)
            stack.push_async_callback(listening.close)
            return str(listening.make_url("/")).rstrip("/")

        yield start


@pytest.fixture
async def connect(serve: Callable[[Server], Awaitable[str]]) -> AsyncIterator[Connect]:
    """A function that starts a server with the given replies and an engine connected to it."""
    async with AsyncExitStack() as stack:

        async def make(*replies: Reply, **settings: object) -> tuple[OpenAIHttpEngine, Server]:
            server = Server(*replies)
            url = await serve(server)
            engine = OpenAIHttpEngine("far", model(**{"base_url": f"{url}/v1"} | settings))
            await engine.start()
            stack.push_async_callback(engine.stop)
            return engine, server

        yield make
