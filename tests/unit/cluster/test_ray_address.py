"""Which cluster an address means, and how fast a wrong one is refused."""

import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

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
def test_what_is_no_address_is_refused_with_the_form(address: str) -> None:
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


def test_a_port_on_which_nothing_listens_is_refused_at_once() -> None:
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
