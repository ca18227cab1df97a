"""What servers of one machine say of themselves, and whom a benchmark finds."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cluster.ray_runtime import PortTakenError
from configs.load import load
from serve_app.local_servers import (
    FILE,
    PREFIX,
    Announcement,
    LocalServer,
    find_servers,
    own_url_failure,
    wait_for_models,
)

SERVER = LocalServer(load("scripted"), "slimmoa", "10.0.0.1:6379")


def test_a_server_is_found_from_ready_until_it_ends(tmp_path: Path) -> None:
    announcement = Announcement("127.0.0.1", 8000, tmp_path)
    assert find_servers(tmp_path) == [], "it only starts"
    announcement.ready(SERVER)
    assert find_servers(tmp_path) == [SERVER]
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o77 == 0
    announcement.remove()
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys
from pathlib import Path
from configs.load import load
from serve_app.local_servers import Announcement, LocalServer
Announcement("127.0.0.1", 8000, Path(sys.argv[1])).ready(LocalServer(load("scripted"), "a", "b:1"))
os.kill(os.getpid(), 9)
"""


def test_a_killed_server_is_not_found(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
    assert (next(tmp_path.iterdir()) / FILE).exists()
    assert find_servers(tmp_path) == []
    Announcement("127.0.0.1", 8000, tmp_path).remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("host", "port", "is_taken"),
    [
        ("127.0.0.1", 8000, True),
        ("localhost", 8000, True),
        ("0.0.0.0", 8000, True),
        ("127.0.0.2", 8000, False),
        ("127.0.0.1", 8001, False),
    ],
)
def test_a_port_on_which_another_server_starts_is_taken(
    tmp_path: Path, host: str, port: int, is_taken: bool
) -> None:
    first = Announcement("127.0.0.1", 8000, tmp_path)
    if is_taken:
        with pytest.raises(PortTakenError) as refused:
            Announcement(host, port, tmp_path)
        assert str(refused.value) == (
            f"cannot listen on {host}:{port}: another `slimmoa serve` has taken the port "
            f"(process {os.getpid()})"
        )
    else:
        Announcement(host, port, tmp_path).remove()
    first.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "said", ["", "[]", "{}", '{"recipe": {"name": 1}, "app": "a", "cluster": "b"}']
)
def test_what_cannot_be_understood_is_passed_over(tmp_path: Path, said: str) -> None:
    announcement = Announcement("127.0.0.1", 8000, tmp_path)
    (folder,) = tmp_path.glob(f"{PREFIX}*")
    (folder / FILE).write_text(said)
    assert find_servers(tmp_path) == []
    Announcement("127.0.0.1", 8000, tmp_path).remove()
    announcement.remove()


def test_somebody_elses_folder_and_a_link_are_no_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    announcement = Announcement("127.0.0.1", 8000, tmp_path / "x")
    announcement.ready(SERVER)
    (tmp_path / f"{PREFIX}link").symlink_to(next((tmp_path / "x").iterdir()))
    assert find_servers(tmp_path) == []
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert find_servers(tmp_path / "x") == []
    monkeypatch.undo()
    announcement.remove()


class _Handler(http.server.BaseHTTPRequestHandler):
    statuses: list[int]
    states: list[str]
    """The state of a model in each answer to `/readyz`; an answer of another shape for an empty one."""

    def do_GET(self) -> None:
        if self.path == "/readyz":
            state = self.states.pop(0)
            status, body = (
                200,
                json.dumps({"models": {"a": "ready", "b": state}} if state else "").encode(),
            )
        else:
            assert self.path == "/healthz"
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            body = json.dumps({"status": "ok"}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port whose server answers with the statuses of `_Handler.statuses`, one after the other."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # the way to an own port has no proxy
    with http.server.HTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_an_endpoint_is_asked_until_it_answers(port: int) -> None:
    _Handler.statuses = [503, 503, 200]
    for host in ("127.0.0.1", "0.0.0.0"):
        assert own_url_failure(host, port) is None
    _Handler.statuses = [404]
    assert own_url_failure("127.0.0.1", port, within_s=0) == "HTTP status 404"


def test_a_server_waits_until_its_ingress_has_heard_of_every_model(port: int) -> None:
    _Handler.states = ["no replica of model 'b' runs", "", "ready", "never asked for"]
    wait_for_models("0.0.0.0", port)
    assert _Handler.states == ["never asked for"]
    wait_for_models("127.0.0.1", port, within_s=0)  # a model may be away: nothing is raised
    assert _Handler.states == ["never asked for"]


def test_a_port_where_nothing_listens_does_not_answer() -> None:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        assert own_url_failure("127.0.0.1", sock.getsockname()[1], within_s=0) == "Connection refused"
