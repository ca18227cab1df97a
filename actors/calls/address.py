"""Where a replica takes calls: a Unix socket for callers on its node, and a TCP port for all others."""

import dataclasses
import hashlib
import hmac
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

NONCE_BYTES = 32
SILENT_S = 3
"""Seconds after which a machine that acknowledges nothing counts as gone. It is the time in which Ray
finds a lost node."""
TCP_OPTIONS = {
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 1,
    "TCP_KEEPINTVL": 1,
    "TCP_KEEPCNT": SILENT_S - 1,
    "TCP_USER_TIMEOUT": SILENT_S * 1000,
}
"""Options of every TCP socket, as far as the system has them: send at once, and ask a silent machine
each second whether it is there. A machine that loses its power closes no connection."""

PEER = struct.Struct("3i")
"""The kernel's record of the process at the other end of a Unix socket: its PID, user and group."""
Side = Literal["caller", "replica"]
"""The two sides of a connection."""


@dataclass(frozen=True, slots=True)
class Address:
    """How callers reach one replica. It travels over Ray, so only those who may use Ray know it."""

    node: str
    """Ray's ID of the replica's node."""
    path: str
    """Path of the Unix socket, for callers on the same node."""
    host: str | None = None
    """Address of the node's interface for TCP; None if the cluster has no other node."""
    port: int = 0
    """The TCP port."""
    secret: str = ""
    """What a caller over TCP has to know: hexadecimal digits."""

    def to_dict(self) -> dict[str, Any]:
        """The address as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Address":
        """The address that `to_dict` has turned into plain data.

        Fields that this version does not know are left out: a replica of a later version may tell more.

        Raises:
            TypeError: node or path is missing.
        """
        known = {each.name for each in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in known})


def set_tcp_options(tcp: socket.socket) -> None:
    """Have a TCP socket send small frames at once, and notice that the other machine is gone."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in TCP_OPTIONS.items():
        if (option := getattr(socket, name, None)) is not None:
            tcp.setsockopt(socket.IPPROTO_TCP, option, value)


def is_own_user(unix: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket belongs to this user, as the kernel says.

    Where the kernel does not say, the folder of the socket is the only protection.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    peer = unix.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    _, user, _ = PEER.unpack(peer)
    return bool(user == os.geteuid())


def prove(secret: str, side: Side, nonce: bytes) -> bytes:
    """The proof that one side of a connection knows the secret, which never crosses the network.

    The proof is an HMAC-SHA-256 (RFC 2104) of the side's name and the other side's nonce. With the
    name, a proof of the caller is none of the replica. Without it, a program that does not know the
    secret could challenge the caller with the caller's own nonce, and send the answer back as its own.

    Args:
        secret: the replica's secret: hexadecimal digits.
        side: the side that proves.
        nonce: random bytes of the other side.
    """
    return hmac.digest(bytes.fromhex(secret), side.encode() + nonce, hashlib.sha256)


def is_proof(secret: str, side: Side, nonce: bytes, proof: bytes) -> bool:
    """Whether a proof of one side is right; see `prove`. The time of the comparison says nothing about
    the right proof."""
    return hmac.compare_digest(prove(secret, side, nonce), proof)
