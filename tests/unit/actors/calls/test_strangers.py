"""Attempts on a replica's sockets by those who do not belong there."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from actors.calls import server
from actors.calls.address import Address, prove
from actors.calls.connection import connect
from actors.calls.frames import (
    LENGTH,
    MOST_BYTES,
    MOST_STRANGER_BYTES,
    AskCount,
    Challenge,
    Frame,
    Proof,
    Welcome,
    from_caller,
    from_replica,
    pack,
)
from tests.unit.actors.calls.conftest import ASKED, NODE, Connect, Served

NONCE = b"n" * 32


@asynccontextmanager
async def stranger(
    address: Address,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare TCP connection, after the replica's challenge."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    yield reader, writer
    writer.close()


async def challenge(reader: asyncio.StreamReader) -> Challenge:
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    frame = from_replica.decode(await reader.readexactly(length))
    assert isinstance(frame, Challenge)
    return frame


async def is_refused(reader: asyncio.StreamReader) -> bool:
    """Whether the replica ends the connection without another byte."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


def proof(address: Address, nonce: bytes) -> Proof:
    return Proof(prove(address.secret, "caller", nonce), NONCE)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",  # its first bytes are a length of over a gigabyte
        LENGTH.pack(0xFFFF_FFFF),
        LENGTH.pack(MOST_STRANGER_BYTES + 1),
        LENGTH.pack(3) + b"\xc1\xc1\xc1",
        LENGTH.pack(0),
        pack(AskCount(1, ASKED)),
        pack(Proof(b"", NONCE)),
        pack(Proof(prove("00" * 32, "caller", NONCE), NONCE)),
        LENGTH.pack(5) + b"\x80\x04\x95\x05.",  # a pickle
        LENGTH.pack(1017) + b"\x97\x04\x01\x90\x81\xa1a" + b"\x91" * 1010,
    ],
    ids=[
        "http",
        "a frame of 4 GiB",
        "a frame too long for a stranger",
        "garbage",
        "an empty frame",
        "a call without proof",
        "an empty proof",
        "a wrong secret",
        "a pickle",
        "lists in lists",
    ],
)
async def test_whoever_does_not_know_the_secret_gets_nothing(
    served: Served, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    far = await served.far()
    async with stranger(far) as (reader, writer):
        await challenge(reader)
        writer.write(sent)
        assert await is_refused(reader)
    assert served.script.asked == []
    assert caplog.records == []  # a stranger cannot fill the log


async def test_a_proof_is_good_for_one_connection(served: Served) -> None:
    far = await served.far()
    async with stranger(far) as (reader, writer), stranger(far) as (again, writes_again):
        heard = proof(far, (await challenge(reader)).nonce)
        writer.write(pack(heard))
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        assert isinstance(from_replica.decode(await reader.readexactly(length)), Welcome)
        await challenge(again)
        writes_again.write(pack(heard))
        assert await is_refused(again)


async def test_a_frame_that_never_ends_costs_a_stranger_its_connection(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PROVE_S", 0.05)
    far = await served.far()
    async with stranger(far) as (reader, writer), stranger(far) as (silent, _):
        await challenge(reader)
        writer.write(LENGTH.pack(MOST_STRANGER_BYTES))
        assert await is_refused(reader)
        await challenge(silent)
        assert await is_refused(silent)


async def test_a_frame_of_4_gib_ends_the_connection_of_a_known_caller_too(served: Served) -> None:
    reader, writer = await asyncio.open_unix_connection(served.path)
    writer.write(LENGTH.pack(MOST_BYTES + 1))
    assert await is_refused(reader)
    writer.close()


async def test_another_user_cannot_enter_the_folder_and_is_refused_if_he_does(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = served.path.parent.stat()
    assert stat.S_IMODE(folder.st_mode) == 0o700
    assert folder.st_uid == os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: folder.st_uid + 1)
    reader, writer = await asyncio.open_unix_connection(served.path)
    assert await is_refused(reader)
    writer.close()


async def test_a_caller_does_not_talk_to_another_user(
    served: Served, connecting: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user has made the folder of a replica that is gone anew."""
    accepted = asyncio.Event()
    heard: list[bytes] = []

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            heard.append(await reader.read())
        writer.close()
        accepted.set()

    path = served.path.with_name("impostor")
    monkeypatch.setattr(os, "geteuid", lambda: served.path.stat().st_uid + 1)
    async with await asyncio.start_unix_server(impostor, path):
        with pytest.raises(ConnectionError):
            await connecting(Address(NODE, str(path)))
        await accepted.wait()
    assert heard in ([], [b""])


async def test_a_caller_does_not_talk_to_whoever_does_not_know_the_secret(served: Served) -> None:
    """Another program has taken the port of a replica that is gone."""
    heard: list[bytes] = []

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(frame: Frame) -> None:
            writer.write(pack(frame))

        send(Challenge(NONCE))
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        heard.append(await reader.readexactly(length))
        send(Welcome(prove("00" * 32, "replica", NONCE)))
        heard.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(impostor, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        address = Address("another node", "", "127.0.0.1", port, served.server.secret)
        with pytest.raises(ConnectionError):
            await connect(address, NODE, "m", lambda: None)
    assert heard[1:] in ([], [b""])


async def test_a_caller_is_not_fooled_by_its_own_proof(served: Served) -> None:
    """The impostor challenges the caller with the caller's nonce, and sends back what it gets."""

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def proof_for(nonce: bytes) -> Proof:
            writer.write(pack(Challenge(nonce)))
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            frame = from_caller.decode(await reader.readexactly(length))
            assert isinstance(frame, Proof)
            return frame

        own = await proof_for((await proof_for(NONCE)).nonce)
        writer.write(pack(Welcome(own.proof)))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(impostor, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        address = Address("another node", "", "127.0.0.1", port, served.server.secret)
        with pytest.raises(ConnectionError):
            await connect(address, NODE, "m", lambda: None)
