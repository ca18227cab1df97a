"""A replica that the test writes, and callers of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from actors.calls.address import Address
from actors.calls.connection import Connection, connect
from actors.calls.server import CallServer
from actors.engine import NONE, Delta, Message, collect_answer
from actors.origin import ORIGIN
from actors.private_folder import PrivateFolder
from configs.schema import Sampling

ASKED = [Message(role="user", content="hello")]
SAMPLING = Sampling(max_tokens=7, stop=("END",))
NODE = "a node"


class Script:
    """A replica whose answers are what the test puts into `steps`: deltas, and errors that are raised.

    At the end of the steps an answer waits until it is cancelled.
    """

    def __init__(self) -> None:
        self.steps: asyncio.Queue[Delta | Exception] = asyncio.Queue()
        self.asked: list[tuple[Sequence[Message], Sampling, bool, float | None]] = []
        self.templates: list[dict[str, Any]] = []
        self.adapters: list[str | None] = []
        self.origins: list[Mapping[str, str]] = []
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.may_warm = asyncio.Event()

    async def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        streamed: bool,
        patience_s: float | None,
        adapter: str | None = None,
    ) -> AsyncGenerator[Delta]:
        self.asked.append((messages, sampling, streamed, patience_s))
        self.adapters.append(adapter)
        self.origins.append(ORIGIN.get())
        self.began.set()
        try:
            last = False
            while not last:
                step = await self.steps.get()
                if isinstance(step, Exception):
                    raise step
                last = step.last
                yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        patience_s: float | None,
        adapter: str | None = None,
    ) -> Delta:
        return await collect_answer(self.stream(messages, sampling, False, patience_s, adapter))

    async def count_tokens(
        self,
        messages: Sequence[Message],
        template: Mapping[str, Any] = NONE,
        adapter: str | None = None,
    ) -> int:
        self.templates.append(dict(template))
        self.adapters.append(adapter)
        return sum(len(message["content"]) for message in messages)

    async def token_ends(self, texts: Sequence[str]) -> list[list[int]]:
        return [[len(text)] for text in texts]

    async def warm(
        self, messages: Sequence[Message], template: Mapping[str, Any], adapter: str | None
    ) -> int | None:
        """Read the messages as soon as `may_warm` is set."""
        self.templates.append(dict(template))
        self.adapters.append(adapter)
        self.began.set()
        try:
            await self.may_warm.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return sum(len(message["content"]) for message in messages)

    async def about(self, what: str) -> Any:
        return {"said": what}

    def write(self, *texts: str) -> None:
        """Have the answer grow by a delta for each text."""
        for text in texts:
            self.steps.put_nowait(Delta(text))

    def end(self) -> None:
        """Have the answer end."""
        self.steps.put_nowait(Delta(finish_reason="stop", completion_tokens=2, engine_s=0.5, last=True))


class Served:
    """A script behind a server, and ways to reach it."""

    def __init__(self, script: Script, server: CallServer, folder: Path) -> None:
        self.script = script
        self.server = server
        self.path = folder / "calls"

    @property
    def near(self) -> Address:
        """Its address for callers on the same node."""
        return Address(NODE, str(self.path))

    async def far(self) -> Address:
        """Its address for callers on other nodes."""
        port = await self.server.listen_tcp("127.0.0.1")
        return Address("another node", "", "127.0.0.1", port, self.server.secret)


async def until(condition: Callable[[], object]) -> None:
    """Run the event loop until a condition holds; the test's timeout bounds it."""
    while not condition():  # noqa: ASYNC110  # bytes pass the kernel, which has no event to wait for
        await asyncio.sleep(0)


Connect = Callable[[Address], Awaitable[Connection]]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    folder, script = PrivateFolder(), Script()
    server = CallServer(script)
    replica = Served(script, server, folder.path)
    await server.listen_unix(replica.path)
    yield replica
    await server.drain(0)
    folder.remove()


@pytest.fixture
async def connecting() -> AsyncIterator[Connect]:
    """Connects to a replica; the connection is closed at the end of the test."""
    async with AsyncExitStack() as stack:

        async def to(address: Address) -> Connection:
            connection = await connect(address, NODE, "m", lambda: None)
            stack.callback(connection.close)
            return connection

        yield to


@pytest.fixture(params=["unix", "tcp"])
async def connection(request: Any, served: Served, connecting: Connect) -> Connection:
    """A connection of either kind."""
    return await connecting(served.near if request.param == "unix" else await served.far())
