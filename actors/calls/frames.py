"""The messages between a caller and a replica, and the frames that carry them in a stream of bytes.

A frame is its length, 4 bytes with the highest first, and a message in MessagePack. msgspec reads and
writes the messages. So the bytes of a stranger can only become these messages, and nothing is pickled.
Of the ways that were measured, msgspec's MessagePack is the fastest: docs/results.md, "Direct calls".
"""

import struct
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from actors.engine import Delta, Message

MOST_BYTES = 64 << 20
"""Longest frame between a caller and a replica that know each other, in bytes."""
MOST_STRANGER_BYTES = 1 << 10
"""Longest frame of a caller that has not proved yet that it knows the secret, in bytes."""
LENGTH = struct.Struct(">I")


class BadFrame(Exception):
    """The other side sent bytes that are no frame of this protocol. The connection has to be closed."""


class Frame(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of all messages."""


class Challenge(Frame, tag=1):
    """The replica's first frame over TCP."""

    nonce: bytes
    """Random bytes, from which the caller makes its proof."""


class Proof(Frame, tag=2):
    """The caller's first frame over TCP."""

    proof: bytes
    """The caller's proof for the replica's nonce; see `address.prove`."""
    nonce: bytes
    """Random bytes, from which the replica makes its own proof."""


class Welcome(Frame, tag=3):
    """The replica admits the caller, and proves that it knows the secret too."""

    proof: bytes
    """The replica's proof for the caller's nonce; see `address.prove`."""


class Ask(Frame, tag=4):
    """The caller wants a model's answer."""

    call: int
    """The number of the call. The caller gives each call of a connection a number of its own."""
    messages: list[Message]
    sampling: dict[str, Any]
    """The fields of `Sampling` that differ from their defaults."""
    whole: bool
    """Whether the answer comes in one delta."""
    streamed: bool
    """See `Replica.stream`."""
    patience_s: float | None
    """See `Replica.complete`."""
    adapter: str | None = None
    """The adapter that answers; None for the model itself."""
    origin: dict[str, str] = {}
    """Where the call comes from; see `actors/origin.py`."""


class AskCount(Frame, tag=5):
    """The caller wants the number of tokens of a conversation."""

    call: int
    messages: list[Message]
    template: dict[str, Any] = {}
    """See `Replica.count_tokens`."""
    adapter: str | None = None
    """The adapter in whose chat template the tokens are counted; None for the model itself."""


class AskEnds(Frame, tag=6):
    """The caller wants the positions where the tokens of each text end."""

    call: int
    texts: list[str]


class AskAbout(Frame, tag=7):
    """The caller wants to know something about the replica itself."""

    call: int
    what: Literal["stats", "settings"]


class Taken(Frame, tag=8):
    """The reader of a call has taken deltas."""

    call: int
    count: int
    """How many deltas it has taken since the last such frame."""


class Cancel(Frame, tag=9):
    """The caller no longer wants a call."""

    call: int


class Part(Frame, tag=10):
    """A piece of an answer."""

    call: int
    delta: Delta


class Result(Frame, tag=11):
    """The result of a call that is no answer."""

    call: int
    value: Any


class Failed(Frame, tag=12):
    """A call failed."""

    call: int
    name: str
    """The class of the error, by its name in `configs.errors`."""
    message: str
    details: dict[str, Any]
    """The error's other attributes."""


class Leaving(Frame, tag=13):
    """The replica is about to stop. A caller that has another replica calls this one no more."""


class AskWarm(Frame, tag=14):
    """The caller will soon ask for an answer to a conversation that begins with these messages."""

    call: int
    messages: list[Message]
    template: dict[str, Any] = {}
    """See `Replica.warm`."""
    adapter: str | None = None
    """The adapter that will answer; None for the model itself."""


FromCaller = Proof | Ask | AskCount | AskEnds | AskAbout | AskWarm | Taken | Cancel
FromReplica = Challenge | Welcome | Part | Result | Failed | Leaving

_encoder = msgspec.msgpack.Encoder()
from_caller: msgspec.msgpack.Decoder[FromCaller] = msgspec.msgpack.Decoder(FromCaller)
"""Reads the messages of callers."""
from_replica: msgspec.msgpack.Decoder[FromReplica] = msgspec.msgpack.Decoder(FromReplica)
"""Reads the messages of replicas."""
UNREADABLE = (msgspec.MsgspecError, RecursionError)
"""What the two readers raise for bytes that are no message. RecursionError is for lists in lists."""


def pack(message: Frame) -> bytes:
    """The bytes of a message, as a frame.

    Raises:
        ValueError: the frame would be longer than `MOST_BYTES`, or a text has a lone surrogate.
    """
    body = _encoder.encode(message)
    if len(body) > MOST_BYTES:
        raise ValueError(f"a message of {len(body):,} bytes; {MOST_BYTES:,} are allowed")
    return LENGTH.pack(len(body)) + body


class FrameCutter:
    """Cuts the bytes of one direction of a connection into frames."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        """Longest frame that is taken, in bytes."""
        self._rest = bytearray()

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Yield the message of each frame that `received` completes.

        Raises:
            BadFrame: a frame says that it is longer than `most_bytes`.
        """
        if self._rest:
            self._rest += received
            received = bytes(self._rest) if self._is_complete() else b""
            if not received:
                return
            self._rest.clear()
        start, there = 0, len(received)
        while there - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(received, start)
            if length > self.most_bytes:
                raise BadFrame(f"a frame of {length:,} bytes; {self.most_bytes:,} are allowed")
            end = start + LENGTH.size + length
            if end > there:
                break
            yield received[start + LENGTH.size : end]
            start = end
        self._rest += received[start:]

    def _is_complete(self) -> bool:
        """Whether the rest holds the whole frame that it begins with, or a length that is too large."""
        if len(self._rest) < LENGTH.size:
            return False
        (length,) = LENGTH.unpack_from(self._rest)
        return bool(length > self.most_bytes or len(self._rest) >= LENGTH.size + length)
