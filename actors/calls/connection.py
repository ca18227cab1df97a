"""The caller's side of a connection to one replica, over which many calls go at the same time."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, cast

from actors.calls import frames
from actors.calls.address import NONCE_BYTES, Address, is_own_user, is_proof, prove, set_tcp_options
from actors.calls.frames import (
    MOST_BYTES,
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
    Welcome,
    pack,
)
from actors.calls.incoming import Answer, Incoming
from actors.calls.wire_errors import rebuild
from actors.engine import NONE, Delta, Message
from configs.errors import EngineUnavailable
from configs.schema import Sampling

CONNECT_S = 5.0
"""Seconds in which a connection has to be made."""


class Connection(asyncio.Protocol):
    """A connection to one replica. `connect` makes it.

    Args:
        model: name of the replica's model, for errors.
        secret: what the replica has to know, over TCP; None over a Unix socket.
        on_change: called when the connection is lost, or the replica is about to leave.
    """

    def __init__(self, model: str, secret: str | None, on_change: Callable[[], None]) -> None:
        self._model = model
        self._secret = secret
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._on_change = on_change
        self._cutter = FrameCutter(MOST_BYTES)
        self._calls: dict[int, Incoming] = {}
        self._last_call = 0
        self._transport: asyncio.Transport
        self._admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_lost = False
        """Whether the connection has ended, for whatever reason."""
        self.is_leaving = False
        """Whether the replica has said that it is about to stop."""

    @property
    def in_flight(self) -> int:
        """Number of calls that have not ended."""
        return len(self._calls)

    async def admitted(self) -> None:
        """Wait until the replica takes calls.

        Raises:
            ConnectionError: the other side is not the replica, or has closed the connection.
        """
        await self._admitted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has another base class
        if self._secret is None:
            # Another user may have made the folder of a replica that is gone anew.
            if is_own_user(transport.get_extra_info("socket")):
                self._admitted.set_result(None)
            else:
                self._transport.abort()
        else:
            set_tcp_options(transport.get_extra_info("socket"))

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_lost = True
        if not self._admitted.done():
            self._admitted.set_exception(ConnectionError("the replica has closed the connection"))
            self._admitted.exception()  # whoever waits for it has perhaps given up
        for call in list(self._calls.values()):
            call.wake()
        self._on_change()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._cutter.feed(data):
                self._received(frames.from_replica.decode(body))
        except (BadFrame, *frames.UNREADABLE):
            self._transport.abort()

    def close(self) -> None:
        """End the connection, and with it all calls."""
        if not self.is_lost:
            self._transport.abort()

    async def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        streamed: bool = True,
        patience_s: float | None = None,
        adapter: str | None = None,
        origin: Mapping[str, str] = NONE,
    ) -> AsyncGenerator[Delta]:
        """Ask for an answer, and yield its deltas. Closing the generator cancels the call.

        Args:
            adapter: the adapter that answers; None for the replica's model itself.
            origin: where the call comes from; see `actors/origin.py`.

        Raises:
            RequestError: the replica's error, or EngineUnavailable if the replica is lost.
        """
        with Incoming(self) as call:
            fields = sampling.model_dump(mode="json", exclude_defaults=True)
            asked, whole, where = list(messages), False, dict(origin)
            call.send(Ask(call.number, asked, fields, whole, streamed, patience_s, adapter, where))
            last = False
            while not last:
                delta = _delta(await call.take())
                last = delta.last
                if last:
                    call.has_ended = True
                yield delta

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        patience_s: float | None,
        adapter: str | None = None,
        origin: Mapping[str, str] = NONE,
    ) -> Delta:
        """Ask for an answer in one delta; see `stream`."""
        with Incoming(self) as call:
            fields = sampling.model_dump(mode="json", exclude_defaults=True)
            asked, whole, streamed, where = list(messages), True, False, dict(origin)
            call.send(Ask(call.number, asked, fields, whole, streamed, patience_s, adapter, where))
            frame = await call.take()
            call.has_ended = True
            return _delta(frame)

    async def count_tokens(
        self,
        messages: Sequence[Message],
        template: Mapping[str, Any] = NONE,
        adapter: str | None = None,
    ) -> int:
        """See `Replica.count_tokens`."""
        count: int = await self._look_up(
            lambda number: AskCount(number, list(messages), dict(template), adapter)
        )
        return count

    async def token_ends(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Replica.token_ends`."""
        ends: list[list[int]] = await self._look_up(lambda number: AskEnds(number, list(texts)))
        return ends

    async def warm(
        self,
        messages: Sequence[Message],
        template: Mapping[str, Any] = NONE,
        adapter: str | None = None,
    ) -> int | None:
        """See `Replica.warm`. If the caller cancels this coroutine, the warm-up ends."""
        read: int | None = await self._look_up(
            lambda number: AskWarm(number, list(messages), dict(template), adapter)
        )
        return read

    async def about(self, what: str) -> Any:
        """See `Replica.about`."""
        return await self._look_up(lambda number: AskAbout(number, what))  # type: ignore[arg-type]

    async def _look_up(self, ask: Callable[[int], frames.Frame]) -> Any:
        with Incoming(self) as call:
            call.send(ask(call.number))
            frame = await call.take()
            call.has_ended = True
            if not isinstance(frame, Result):
                raise EngineUnavailable("the replica answered another question", model=self._model)
            return frame.value

    def open_call(self, call: Incoming) -> int:
        """Note a new call, and return its number."""
        self._last_call += 1
        self._calls[self._last_call] = call
        return self._last_call

    def close_call(self, number: int, *, has_ended: bool) -> None:
        """Forget a call; if it has not ended, the replica is told to cancel it."""
        del self._calls[number]
        if not has_ended:
            self.send(Cancel(number))
        if self.is_leaving:
            self._on_change()

    def send(self, message: frames.Frame) -> None:
        """Send a frame; nothing is sent over a connection that is lost."""
        if not self._transport.is_closing():
            self._transport.write(pack(message))

    def lost_error(self) -> EngineUnavailable:
        """The error of a call whose connection is lost."""
        return EngineUnavailable(f"the replica of model {self._model!r} is gone", model=self._model)

    def rebuild(self, failed: Failed) -> Exception:
        """The error that a frame describes."""
        return rebuild(failed, self._model)

    def _received(self, frame: frames.FromReplica) -> None:
        match frame:
            case Part() | Result() | Failed():
                if (call := self._calls.get(frame.call)) is not None:
                    call.put(frame)
            case Leaving():
                self.is_leaving = True
                self._on_change()
            case Challenge() | Welcome():
                self._shake_hands(frame)

    def _shake_hands(self, frame: Challenge | Welcome) -> None:
        if self._secret is None or self._admitted.done():
            raise BadFrame("a handshake that nobody asked for")
        if isinstance(frame, Challenge):
            self.send(Proof(prove(self._secret, "caller", frame.nonce), self._nonce))
        elif is_proof(self._secret, "replica", self._nonce, frame.proof):
            self._admitted.set_result(None)
        else:
            raise BadFrame("a wrong proof")


def _delta(frame: Answer) -> Delta:
    if isinstance(frame, Part):
        return frame.delta
    raise EngineUnavailable("the replica answered another question")


async def connect(address: Address, node: str, model: str, on_change: Callable[[], None]) -> Connection:
    """Connect to a replica: by its Unix socket on the same node, by TCP from any other node.

    Args:
        address: where the replica takes calls.
        node: Ray's ID of the caller's own node.
        model: name of the replica's model, for errors.
        on_change: see `Connection`.

    Raises:
        OSError: nobody listens there, it is not the replica, or it took longer than `CONNECT_S`.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_S):
        if address.node == node:
            _, connection = await loop.create_unix_connection(
                lambda: Connection(model, None, on_change), address.path
            )
        elif address.host is None:
            raise ConnectionError("the replica takes calls of its own node only")
        else:
            _, connection = await loop.create_connection(
                lambda: Connection(model, address.secret, on_change), address.host, address.port
            )
        try:
            await connection.admitted()
        except BaseException:
            connection.close()
            raise
        return connection
