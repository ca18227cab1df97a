"""Which cluster an address means, and how fast a wrong one is refused."""

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import ray_address
from cluster.ray_address import NoCluster, ask_cluster, find_address


@pytest.fixture(autouse=True)
def ray_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Ray's files in which no cluster has been started."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray"


def refused(address: str) -> str:
    with pytest.raises(NoCluster) as error:
        find_address(address, "--address")
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:6379", "127.0.0.1", 6379),
        ("head:1", "head", 1),
        ("[::1]:6379", "::1", 6379),
    ],
)
def test_an_address_is_host_and_port(address: str, host: str, port: int) -> None:
    found = find_address(address, "--address")
    assert (found.host, found.port, str(found)) == (host, port, address)


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":6379", "6379", "head:http", "head:0", "head:65536", "local"]
)
def test_what_is_no_address_is_errorwith_the_form(address: str) -> None:
    assert refused(address) == (
        f"--address: {address!r} is no address of a Ray cluster; it is HOST:PORT of the head, such as "
        "127.0.0.1:6379, or auto"
    )


@pytest.mark.parametrize("address", ["http://head:8265", "ray://head:10001"])
def test_the_addresses_of_rays_other_ports_are_refused(address: str) -> None:
    assert f"--address: {address!r} has a scheme, and a cluster is joined at HOST:PORT" in refused(
        address
    )


def test_auto_is_the_named_cluster_or_that_of_ray_start_and_no_other(
    ray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--address: auto finds no Ray cluster: RAY_ADDRESS is not set" in refused("auto")
    (ray_folder / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    assert str(find_address("auto", "--address")) == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert str(find_address("auto", "--address")) == "10.0.0.2:6379"
    assert find_address("auto", "--address").named_by == "RAY_ADDRESS"
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    assert refused("auto").startswith("RAY_ADDRESS: 'nonsense' is no address")


def test_a_port_on_which_nothing_listens_is_errorat_once() -> None:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))  # bound, and not listening
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(NoCluster) as error:
            ask_cluster(find_address(address, "--address"))
    assert str(error.value) == f"--address: no Ray cluster answers at {address}: Connection refused"
    assert time.monotonic() - began < 5


def test_a_host_that_does_not_exist_is_refused() -> None:
    with pytest.raises(
        NoCluster, match=r"^--address: no Ray cluster answers at no-such-host\.invalid:1: "
    ):
        ask_cluster(find_address("no-such-host.invalid:1", "--address"))


class RpcError(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self._code = code

    def code(self) -> str:
        return self._code


@dataclass
class Head:
    """A pretended cluster, as its head answers."""

    token: str | None = None
    version: str = "2.60.0"
    nodes: tuple[str, ...] = ("aa",)
    hangs: bool = False
    asked: list[Any] = field(default_factory=list)

    def answer(self, request: str, *, timeout: float, metadata: Any) -> SimpleNamespace:
        self.asked.append((request, metadata))
        if self.hangs:
            raise RpcError(f"no answer within {timeout} s")
        if self.token is not None and metadata != (("authorization", f"Bearer {self.token}"),):
            raise RpcError("unauthenticated")
        nodes = [SimpleNamespace(node_id=bytes.fromhex(node)) for node in self.nodes]
        return SimpleNamespace(ray_version=self.version, node_info_list=nodes)


@dataclass
class Machine:
    """This machine: its user's token and the nodes that run on it."""

    token: str | None = None
    nodes: tuple[str, ...] = ("aa",)
    settings: list[str] = field(default_factory=list)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[[Head, Machine], None]:
    """Asks a pretended cluster, from a pretended machine, whether this process can join."""

    def run(head: Head, machine: Machine) -> None:
        stub = SimpleNamespace(CheckAlive=head.answer, GetAllNodeInfo=head.answer)
        loader = SimpleNamespace(
            has_token=lambda ignore_auth_mode: ignore_auth_mode and machine.token is not None,
            get_raw_token=lambda ignore_auth_mode: ignore_auth_mode and machine.token,
        )
        fakes: dict[str, Any] = {
            "grpc": SimpleNamespace(
                RpcError=RpcError,
                StatusCode=SimpleNamespace(UNAUTHENTICATED="unauthenticated"),
                insecure_channel=lambda *_, **__: SimpleNamespace(close=lambda: None),
            ),
            "ray": SimpleNamespace(__version__="2.60.0"),
            "ray.core.generated": SimpleNamespace(),
            "ray.core.generated.gcs_service_pb2_grpc": SimpleNamespace(
                NodeInfoGcsServiceStub=lambda _: stub
            ),
            "ray.core.generated.gcs_service_pb2": SimpleNamespace(
                CheckAliveRequest=lambda: "alive?", GetAllNodeInfoRequest=lambda: "nodes?"
            ),
            "ray._raylet": SimpleNamespace(
                AuthenticationTokenLoader=SimpleNamespace(instance=lambda: loader),
                Config=SimpleNamespace(initialize=machine.settings.append),
            ),
            "ray._private.services": SimpleNamespace(find_node_ids=lambda: set(machine.nodes)),
        }
        fakes["ray.core.generated"].gcs_service_pb2_grpc = fakes[
            "ray.core.generated.gcs_service_pb2_grpc"
        ]
        for name, module in fakes.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(ray_address, "reach", lambda *_: "10.0.0.1:6379")
        monkeypatch.setenv("RAY_AUTH_MODE", "")  # so that it is put back, whatever the function sets
        monkeypatch.delenv("RAY_AUTH_MODE")
        ask_cluster(find_address("head:6379", "--address"))

    return run


def test_the_users_token_is_shown_only_where_it_is_wanted(
    ask: Callable[[Head, Machine], None],
) -> None:
    open_head, machine = Head(), Machine("secret")
    ask(open_head, machine)
    assert {metadata for _, metadata in open_head.asked} == {()}
    assert machine.settings == []
    assert "RAY_AUTH_MODE" not in os.environ
    ask(Head("secret"), machine)
    assert machine.settings == [""], "Ray reads the variable anew"
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize(
    ("head", "machine", "cause"),
    [
        (Head("secret"), Machine(), "wants a token, and this user has none; RAY_AUTH_TOKEN_PATH names"),
        (Head("secret"), Machine("mine"), "wants another token than this user's; RAY_AUTH_TOKEN_PATH"),
        (Head(version="2.59.1"), Machine(), "runs Ray 2.59.1, and this is Ray 2.60.0"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_errorwith_the_cause(
    ask: Callable[[Head, Machine], None], head: Head, machine: Machine, cause: str
) -> None:
    with pytest.raises(NoCluster) as error:
        ask(head, machine)
    assert str(error.value).startswith(f"--address: the cluster at head:6379 {cause}")


def test_a_machine_that_is_no_node_and_a_port_of_something_else_are_refused(
    ask: Callable[[Head, Machine], None],
) -> None:
    with pytest.raises(NoCluster, match="this machine is no node of the cluster at head:6379; `ray"):
        ask(Head(nodes=("bb",)), Machine())
    with pytest.raises(NoCluster, match=r"^--address: no Ray cluster answers at head:6379$"):
        ask(Head(hangs=True), Machine())
