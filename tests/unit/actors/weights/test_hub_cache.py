"""The cache of the Hub's client is one store for all programs: theirs and ours."""

import errno
import hashlib
import os
import shutil
import threading
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from actors.weights.cache import cache_folder, cache_root
from actors.weights.files import cached, fetch, here
from actors.weights.folders import fetch_folder
from actors.weights.lookup import advised_here, find_here, find_weights, needs_fetch, weights_state
from actors.weights.named_models import find_model
from actors.weights.obtainable import require_obtainable
from configs.errors import WeightsError
from configs.schema import LlamaCppModel, Recipe
from configs.weights import HubFile, HubFolder, part_names
from tests.unit.fake_hub import FakeHub, FakeRepo, checkpoint, gguf_file

FILE = gguf_file()
SHA = hashlib.sha256(FILE).hexdigest()
PARTS = part_names("q4/w-00001-of-00002.gguf")


@pytest.fixture(autouse=True)
def repository(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeRepo:
    """A repository with a GGUF file, and one in two parts."""
    monkeypatch.setattr("actors.weights.hub._unreachable", {})
    files = {"w.gguf": FILE, PARTS[0]: FILE + b"1", PARTS[1]: FILE + b"2"}
    hub.repos["o/n"] = FakeRepo(files, revisions=("main", "v2"))
    return hub.repos["o/n"]


def go_offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def model(source: HubFile) -> LlamaCppModel:
    return LlamaCppModel(engine="llamacpp", weights=(source,))


def stored() -> dict[str, tuple[int, int]]:
    """Every file of the Hub's cache with its bytes and its time of change."""
    files = (f for f in Path(constants.HF_HUB_CACHE).rglob("*") if f.is_file() and not f.is_symlink())
    return {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in files}


@pytest.mark.parametrize("sha256", [None, SHA], ids=["unchecked", "checked"])
@pytest.mark.parametrize("revision", ["main", "commit"])
def test_what_another_program_has_fetched_is_used_offline_and_not_stored_twice(
    hub: FakeHub,
    repository: FakeRepo,
    monkeypatch: pytest.MonkeyPatch,
    sha256: str | None,
    revision: str,
) -> None:
    theirs = hf_hub_download("o/n", "w.gguf")
    go_offline(hub, monkeypatch)
    source = HubFile(
        hub="o/n",
        file="w.gguf",
        revision=repository.commit if revision == "commit" else "main",
        sha256=sha256,
    )
    before = stored()
    assert find_weights("m", model(source)) == find_here("m", model(source)) == Path(theirs)
    assert str(weights_state(model(source))).endswith("here")
    assert advised_here(model(source)) == {}
    assert needs_fetch(model(source)) == (sha256 is not None)  # it has to be hashed once
    assert fetch("m", [source]) == cached([source]) == here([source]) == Path(theirs)
    assert not needs_fetch(model(source))
    assert stored() == before
    assert [f.name for f in cache_folder().glob("*") if f.suffix != ".verified"] == []
    assert hub.requests == []


def test_what_is_fetched_here_is_found_by_other_programs(hub: FakeHub) -> None:
    ours = fetch("m", [HubFile(hub="o/n", file="w.gguf")])
    hub.requests.clear()
    assert hf_hub_download("o/n", "w.gguf", local_files_only=True) == str(ours)
    assert ours.resolve().name == SHA
    assert hub.requests == []


def test_the_same_file_of_another_revision_is_found_by_its_checksum(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_hub_download("o/n", "w.gguf")
    go_offline(hub, monkeypatch)
    source = HubFile(hub="o/n", file="w.gguf", revision="0" * 40, sha256=SHA)
    assert fetch("m", [source]).read_bytes() == FILE
    assert here([source.model_copy(update={"sha256": None})]) is None  # nobody knows whether it is


def test_another_file_of_the_same_name_is_not_taken_for_the_one_with_the_checksum(
    repository: FakeRepo,
) -> None:
    repository.files["w.gguf"] = FILE + b"older"
    hf_hub_download("o/n", "w.gguf")
    source = HubFile(hub="o/n", file="w.gguf", sha256=SHA)
    assert here([source]) is None
    repository.files["w.gguf"] = FILE
    assert fetch("m", [source]).read_bytes() == FILE


@pytest.mark.parametrize("named", PARTS)
def test_a_split_file_of_another_program_is_used_whole(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    first = hf_hub_download("o/n", PARTS[0])
    source = HubFile(hub="o/n", file=named)
    assert here([source]) is None  # one of two parts
    hf_hub_download("o/n", PARTS[1])
    go_offline(hub, monkeypatch)
    before = stored()
    assert fetch("m", [source]) == Path(first)
    assert stored() == before
    assert list(cache_folder().glob("*.parts")) == []


def test_a_half_written_file_is_never_taken_for_a_whole_one(hub: FakeHub) -> None:
    link = Path(hf_hub_download("o/n", "w.gguf"))
    blob = link.resolve()
    os.replace(blob, blob.with_name(f"{blob.name}.incomplete"))
    for source in (HubFile(hub="o/n", file="w.gguf"), HubFile(hub="o/n", file="w.gguf", sha256=SHA)):
        assert here([source]) is cached([source]) is None
    hub.sent.clear()
    assert fetch("m", [HubFile(hub="o/n", file="w.gguf")]).read_bytes() == FILE


def test_two_at_a_time_fetch_a_file_once(hub: FakeHub) -> None:
    found: list[Path] = []

    def run() -> None:
        found.append(fetch("m", [HubFile(hub="o/n", file="w.gguf")]))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {file.read_bytes() for file in found} == {FILE}
    assert hub.sent == {SHA: len(FILE)}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (
            errno.ENOSPC,
            r"/blobs is on a disk that is full \(.* free, 0\.0 MB still to come\): make room, or",
        ),
        (errno.EDQUOT, r"this user may not take more room \(quota\) \(.* free, .*\): make room"),
        (errno.EFBIG, r"/blobs is on a disk that takes no files of this size: set HF_HOME"),
    ],
)
def test_a_disk_that_is_full_says_so(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def write(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("actors.weights.download.http_get", write)
    source = HubFile(hub="o/n", file="w.gguf")
    with pytest.raises(WeightsError, match=rf"no weights for model 'm': o/n: .*{words}"):
        fetch("m", [source])
    assert here([source]) is None


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_says_so(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(WeightsError, match=r"(read-only|may not be written by this user): set HF_HOME"):
        fetch("m", [HubFile(hub="o/n", file="w.gguf")])


def test_too_little_room_is_found_before_the_download(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.weights.download.free_bytes", lambda _: 10)
    with pytest.raises(
        WeightsError, match=r"o/n: the download needs 0\.0 MB, and the disk of .*HF_HOME"
    ):
        fetch("m", [HubFile(hub="o/n", file="w.gguf")])
    assert hub.sent == {}


def test_files_that_are_here_unchecked_need_no_hub(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_hub_download("o/n", "w.gguf")
    go_offline(hub, monkeypatch)
    source = {"hub": "o/n", "file": "w.gguf", "sha256": SHA}
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "models": {"m": {"engine": "llamacpp", "weights": [source]}},
            "layers": [{"proposers": [{"model": "m"}]}],
            "aggregator": {"model": "m"},
        }
    )
    require_obtainable(recipe)
    assert hub.requests == []


@pytest.mark.parametrize("asked", ["o/n:Q4_K_M", "o/n", "o/n/w-Q4_K_M.gguf"])
def test_a_file_is_named_offline_if_it_is_here(
    hub: FakeHub, repository: FakeRepo, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    repository.files = {"w-Q4_K_M.gguf": FILE, "w-Q8_0.gguf": FILE + b"8"}
    theirs = hf_hub_download("o/n", "w-Q4_K_M.gguf")
    go_offline(hub, monkeypatch)
    found = find_model(asked)
    assert found.source == HubFile(
        hub="o/n", file="w-Q4_K_M.gguf", revision=repository.commit, sha256=SHA
    )
    assert here([found.source]) == Path(theirs)
    with pytest.raises(WeightsError, match=r"o/n has no Q8_0 \(it has Q4_K_M\)"):
        find_model("o/n:Q8_0")
    assert hub.requests == []


def test_a_folder_is_named_offline_if_it_is_here(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["o/v"] = FakeRepo(checkpoint())
    fetch_folder("m", [HubFolder(hub="o/v")])
    shutil.rmtree(cache_root())  # what the Hub said is forgotten
    go_offline(hub, monkeypatch)
    found = find_model("o/v")
    assert (found.is_gguf, found.checkpoint.weight_bytes) == (False, 2 * (4096 + 64))
    assert found.template == "{{ messages }}"
    assert hub.requests == []
