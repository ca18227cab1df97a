"""Where a replica takes calls: a Unix socket for callers on its node, and a TCP port for all others."""

import hashlib
import hmac
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Address":
        """The address that `to_dict` has turned into plain data."""
        return cls(**fields)


def set_tcp_options(tcp: socket.socket) -> None:
    """Have a TCP socket send small frames at once, and notice that the other machine is gone."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in TCP_OPTIONS.items():
        if (option := getattr(socket, name, None)) is not None:
            tcp.setsockopt(socket.IPPROTO_TCP, option, value)


def prove(secret: str, nonce: bytes) -> bytes:
    """The proof that somebody knows the secret: an HMAC-SHA-256 (RFC 2104) of the other side's nonce.

    The secret itself never crosses the network.
    """
    return hmac.digest(bytes.fromhex(secret), nonce, hashlib.sha256)


def is_proof(secret: str, nonce: bytes, proof: bytes) -> bool:
    """Whether a proof is right. The time of the comparison says nothing about the right proof."""
    return hmac.compare_digest(prove(secret, nonce), proof)
