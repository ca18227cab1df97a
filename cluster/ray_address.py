"""Which Ray cluster an address means, and whether this process can join the cluster.

Ray itself tries a wrong address for minutes, with a warning every few seconds. So the cluster is asked
first, in one short call. In this module Ray is imported inside functions only: see `ray_runtime`.
"""

import os
import socket
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from configs.errors import UserError

VARIABLE = "RAY_ADDRESS"
"""The environment variable that names a cluster, as Ray itself and Ray jobs use it."""
ANSWER_S = 5.0
"""Longest time, in seconds, in which a cluster has to answer."""
GCS_PORT = 6379
"""The port on which `ray start --head` listens by default."""


class NoCluster(UserError, ConnectionError):
    """No Ray cluster can be joined at an address; the message names the address and the cause."""


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """Where the head of a Ray cluster listens for nodes and drivers."""

    host: str
    port: int
    named_by: str
    """Who named the cluster, as messages say it: an option, a variable or a file."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def find_address(address: str, named_by: str) -> ClusterAddress:
    """The address that a user means.

    `auto` means the cluster that $RAY_ADDRESS names, or else the one that `ray start` has started on
    this machine. The private Ray of another program is never meant: it ends with that program.

    Args:
        address: HOST:PORT, or `auto`.
        named_by: who gave the address, as messages say it.

    Raises:
        NoCluster: the address cannot be one, or `auto` finds none.
    """
    if address == "auto":
        if named := os.environ.get(VARIABLE, ""):
            return find_address(named, VARIABLE) if named != "auto" else _of_ray_start(named_by)
        return _of_ray_start(named_by)
    if "://" in address:
        raise NoCluster(
            f"{named_by}: {address!r} has a scheme, and a cluster is joined at HOST:PORT of its head "
            f"(HEAD:{GCS_PORT} after `ray start --head`), without http:// or ray://"
        )
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise NoCluster(
            f"{named_by}: {address!r} is no address of a Ray cluster; it is HOST:PORT of the head, "
            f"such as 127.0.0.1:{GCS_PORT}, or auto"
        )
    return ClusterAddress(host, int(port), named_by)


def _of_ray_start(named_by: str) -> ClusterAddress:
    """The address of the cluster that `ray start` has started on this machine last."""
    file = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    with suppress(OSError):
        if said := file.read_text("utf-8").strip():
            return find_address(said, f"{named_by} auto ({file})")
    raise NoCluster(
        f"{named_by}: auto finds no Ray cluster: {VARIABLE} is not set, and `ray start` has started "
        "none here; give HOST:PORT of its head, or leave the option out, and a Ray is started for this "
        "command alone"
    )


def ask_cluster(address: ClusterAddress, within_s: float = ANSWER_S, *, as_driver: bool = True) -> None:
    """Make sure that this process can join a cluster, and use the user's token if it is wanted.

    1. Its head has to accept a connection.
    2. A Ray cluster has to answer there, with this user's token or without one.
    3. The cluster has to run the same release of Ray.
    4. This machine has to be a node of the cluster, because a driver talks with its node's processes.

    Args:
        address: where the head listens.
        within_s: longest time of each step, in seconds.
        as_driver: whether this process is to be a driver. Without that, (4) is left out.

    Raises:
        NoCluster: this process cannot join.
    """
    target = reach(address, within_s)  # 1
    import grpc
    import ray
    from ray.core.generated import gcs_service_pb2_grpc

    messages: Any = import_module(
        "ray.core.generated.gcs_service_pb2"
    )  # its classes are made at import

    token = _token()
    for metadata in [(), *([(("authorization", f"Bearer {token}"),)] if token else [])]:
        with closing(_channel(target)) as channel:
            stub: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
            try:
                options = {"timeout": within_s, "metadata": metadata}
                alive = stub.CheckAlive(messages.CheckAliveRequest(), **options)
                nodes = stub.GetAllNodeInfo(messages.GetAllNodeInfoRequest(), **options)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    continue
                raise NoCluster(f"{address.named_by}: no Ray cluster answers at {address}") from error
        if metadata:
            _use_token()
        if alive.ray_version != ray.__version__:  # 3
            raise NoCluster(
                f"{address.named_by}: the cluster at {address} runs Ray {alive.ray_version}, and this "
                f"is Ray {ray.__version__}"
            )
        if as_driver:
            _require_node(address, (node.node_id.hex() for node in nodes.node_info_list))  # 4
        return
    what = "another token than this user's" if token else "a token, and this user has none"
    raise NoCluster(
        f"{address.named_by}: the cluster at {address} wants {what}; RAY_AUTH_TOKEN_PATH names a file "
        "with its token"
    )


def _channel(target: str) -> Any:
    """A gRPC channel to a head, with TLS where Ray's own variables ask for it."""
    import grpc

    options = [("grpc.enable_http_proxy", 0)]
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(target, options=options)
    from ray._common.tls_utils import load_certs_from_env

    chain, key, root = load_certs_from_env()  # type: ignore[no-untyped-call]
    credentials = grpc.ssl_channel_credentials(root, key, chain)
    return grpc.secure_channel(target, credentials, options=options)


def reach(address: ClusterAddress, within_s: float = ANSWER_S) -> str:
    """Connect to a head; return its address by number, in the form that gRPC takes.

    Raises:
        NoCluster: nothing accepts a connection there.
    """
    try:
        with socket.create_connection((address.host, address.port), within_s) as sock:
            host, port = sock.getpeername()[:2]
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NoCluster(f"{address.named_by}: no Ray cluster answers at {address}: {cause}") from error
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _require_node(address: ClusterAddress, nodes: Iterable[str]) -> None:
    """Raise NoCluster if none of these nodes runs on this machine."""
    from ray._private.services import find_node_ids

    if not set(nodes) & find_node_ids():  # type: ignore[no-untyped-call]
        raise NoCluster(
            f"{address.named_by}: this machine is no node of the cluster at {address}; `ray start "
            f"--address={address}` makes it one"
        )


def _token() -> str | None:
    """Ray's token of this user; None without one."""
    raylet: Any = import_module("ray._raylet")
    loader = raylet.AuthenticationTokenLoader.instance()
    if not loader.has_token(ignore_auth_mode=True):
        return None
    return str(loader.get_raw_token(ignore_auth_mode=True))


def _use_token() -> None:
    """Have this process and its children show Ray's token, as Ray itself does for a cluster that it
    finds: Ray never does so for an address that was named."""
    raylet: Any = import_module("ray._raylet")
    os.environ["RAY_AUTH_MODE"] = "token"
    raylet.Config.initialize("")
