"""Where a replica takes calls: a Unix socket for callers on its node, and a TCP port for all others."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

NONCE_BYTES = 32
SECRET_BYTES = 32


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


def prove(secret: str, nonce: bytes) -> bytes:
    """The proof that somebody knows the secret: an HMAC-SHA-256 (RFC 2104) of the other side's nonce.

    The secret itself never crosses the network.
    """
    return hmac.digest(bytes.fromhex(secret), nonce, hashlib.sha256)


def is_proof(secret: str, nonce: bytes, proof: bytes) -> bool:
    """Whether a proof is right. The time of the comparison says nothing about the right proof."""
    return hmac.compare_digest(prove(secret, nonce), proof)
