"""The replica's side of calls: takes calls at sockets and sends back what the replica answers.

`CallServer` listens. Each connection is a `_Served`, which runs each of its calls in a task. A call
ends early when its caller sends `Cancel`, or when the connection is lost.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Protocol, cast

from actors.calls import frames
from actors.calls.address import NONCE_BYTES, is_own_user, is_proof, prove, set_tcp_options
from actors.calls.frames import (
    MOST_BYTES,
    MOST_STRANGER_BYTES,
    Ask,
    AskAbout,
    AskCount,
    AskEnds,
    AskWarm,
    BadFrame,
    Cancel,
    Challenge,
    Failed,
    FrameCutter,
    Leaving,
    Part,
    Proof,
    Result,
    Taken,
    Welcome,
    pack,
)
from actors.calls.outgoing import Outgoing
from actors.calls.wire_errors import describe
from actors.engine import Delta, Message
from actors.origin import ORIGIN, REQUEST
from cluster.logs.line import current_request
from configs.errors import EngineUnavailable
from configs.schema import Sampling

SECRET_BYTES = 32
PROVE_S = 5.0
"""Seconds in which a caller over TCP has to prove that it knows the secret."""


class Callee(Protocol):
    """What a replica lets callers ask."""

    def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        streamed: bool,
        patience_s: float | None,
        adapter: str | None,
    ) -> AsyncGenerator[Delta]:
        """See `Replica.stream`."""

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        patience_s: float | None,
        adapter: str | None,
    ) -> Delta:
        """See `Replica.complete`."""

    async def count_tokens(
        self, messages: Sequence[Message], template: Mapping[str, Any], adapter: str | None
    ) -> int:
        """See `Replica.count_tokens`."""

    async def token_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Replica.token_ends`."""

    async def warm(
        self, messages: Sequence[Message], template: Mapping[str, Any], adapter: str | None
    ) -> int | None:
        """See `Replica.warm`."""

    async def about(self, what: str) -> Any:
        """See `Replica.about`."""


class CallServer:
    """Takes the calls of one replica.

    Args:
        replica: answers the calls.
    """

    def __init__(self, replica: Callee) -> None:
        self._replica = replica
        self._servers: list[asyncio.Server] = []
        self._connections: set[_Served] = set()
        self._changed = asyncio.Event()
        """Set when a connection was lost."""
        self._is_leaving = False
        self.secret = secrets.token_hex(SECRET_BYTES)
        """What callers over TCP have to know."""

    async def listen_unix(self, path: Path) -> None:
        """Take calls at a Unix socket. The folder of the socket decides who can reach the socket."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: _Served(self, secret=None), path)
        self._servers.append(server)

    async def listen_tcp(self, host: str) -> int:
        """Take calls at a free TCP port of one interface, and return the port.

        Args:
            host: address of the interface.
        """
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Served(self, secret=self.secret), host, 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def drain(self, limit_s: float) -> None:
        """Take no new connections, and wait until every caller has let go of this replica.

        Callers learn that the replica is leaving. A caller closes its connection once its calls here
        have ended and its answers need no further ones. After `limit_s` seconds, the calls that are
        left end with EngineUnavailable.
        """
        self._is_leaving = True
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.send(Leaving())
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._connections:
                    self._changed.clear()
                    await self._changed.wait()
        await asyncio.gather(*(connection.end() for connection in self._connections))

    def add(self, connection: "_Served") -> None:
        """Note a new connection."""
        self._connections.add(connection)
        if self._is_leaving:  # asyncio had accepted the connection before the socket was closed
            connection.send(Leaving())

    def remove(self, connection: "_Served") -> None:
        """Note that a connection is lost."""
        self._connections.discard(connection)
        self._changed.set()

    @property
    def replica(self) -> Callee:
        """Who answers the calls."""
        return self._replica


class _Served(asyncio.Protocol):
    """One connection of a caller.

    Args:
        server: the server that has accepted the connection.
        secret: what the caller has to know; None if the kernel says who the caller is.
    """

    def __init__(self, server: CallServer, secret: str | None) -> None:
        self._server = server
        self._secret = secret
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._cutter = FrameCutter(MOST_STRANGER_BYTES if secret else MOST_BYTES)
        self._is_known = secret is None
        self._expiry: asyncio.TimerHandle | None = None
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._outgoing: dict[int, Outgoing] = {}
        self._transport: asyncio.Transport
        self.is_writable = True
        """Whether the other process reads what is sent to it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base class
        if self._secret is None:
            if not is_own_user(transport.get_extra_info("socket")):
                self._transport.abort()
                return
        else:
            set_tcp_options(transport.get_extra_info("socket"))
            self._expiry = asyncio.get_running_loop().call_later(PROVE_S, self._transport.abort)
            self.send(Challenge(self._nonce))
        self._server.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        for call in self._calls.values():
            call.cancel()
        self._server.remove(self)

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        for outgoing in list(self._outgoing.values()):
            outgoing.flush()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._cutter.feed(data):
                self._received(frames.from_caller.decode(body))
        except (BadFrame, *frames.UNREADABLE):  # a stranger, or another version of this program
            self._transport.abort()

    def send(self, message: frames.Frame) -> None:
        """Send a frame; nothing is sent over a connection that is lost."""
        if not self._transport.is_closing():
            self._transport.write(pack(message))

    async def end(self) -> None:
        """End all calls, and close the connection once the callers have been told."""
        for call in self._calls.values():
            call.cancel("the replica stops")
        if self._calls:
            await asyncio.wait(list(self._calls.values()))
        self._transport.close()

    def _received(self, frame: frames.FromCaller) -> None:
        if not self._is_known:
            self._admit(frame)
            return
        match frame:
            case Taken():
                if (outgoing := self._outgoing.get(frame.call)) is not None:
                    outgoing.note_taken(frame.count)
            case Cancel():
                if (call := self._calls.get(frame.call)) is not None:
                    call.cancel()
            case Proof():
                raise BadFrame("a second proof")
            case _:
                if frame.call in self._calls:
                    raise BadFrame("the number of a call that has not ended")
                task = asyncio.get_running_loop().create_task(self._answer(frame))
                self._calls[frame.call] = task
                task.add_done_callback(lambda _: self._calls.pop(frame.call, None))

    def _admit(self, frame: frames.FromCaller) -> None:
        assert self._secret is not None
        if not isinstance(frame, Proof):
            raise BadFrame("no proof")
        if not is_proof(self._secret, "caller", self._nonce, frame.proof):
            raise BadFrame("a wrong proof")
        self._is_known = True
        self._cutter.most_bytes = MOST_BYTES
        if self._expiry is not None:
            self._expiry.cancel()
        self.send(Welcome(prove(self._secret, "replica", frame.nonce)))

    async def _answer(self, ask: Ask | AskCount | AskEnds | AskAbout | AskWarm) -> None:
        failed: Failed | None = None
        try:
            if isinstance(ask, Ask):
                ORIGIN.set(ask.origin)  # this task answers nothing but this call
                current_request.set(ask.origin.get(REQUEST))
                await self._write(ask)
            else:
                self.send(Result(ask.call, await self._look_up(ask)))
        except asyncio.CancelledError as cancelled:
            if cancelled.args:  # by `end`: the caller is still there
                failed = describe(ask.call, EngineUnavailable("the replica of the model stops"))
            else:
                raise
        except Exception as error:
            failed = describe(ask.call, error)
        if failed is not None:
            self.send(failed)

    async def _look_up(self, ask: AskCount | AskEnds | AskAbout | AskWarm) -> Any:
        match ask:
            case AskCount():
                return await self._server.replica.count_tokens(ask.messages, ask.template, ask.adapter)
            case AskEnds():
                return await self._server.replica.token_ends(ask.texts)
            case AskWarm():
                return await self._server.replica.warm(ask.messages, ask.template, ask.adapter)
            case AskAbout():
                return await self._server.replica.about(ask.what)

    async def _write(self, ask: Ask) -> None:
        replica, sampling = self._server.replica, Sampling.model_validate(ask.sampling)
        if ask.whole:
            whole = await replica.complete(ask.messages, sampling, ask.patience_s, ask.adapter)
            self.send(Part(ask.call, whole))
            return
        outgoing = self._outgoing[ask.call] = Outgoing(self, ask.call)
        try:
            stream = replica.stream(ask.messages, sampling, ask.streamed, ask.patience_s, ask.adapter)
            async with aclosing(stream) as deltas:
                async for delta in deltas:
                    outgoing.add(delta)
        except BaseException:
            outgoing.flush(at_once=True)
            raise
        finally:
            del self._outgoing[ask.call]
