"""Folders of the Hub: what is fetched, that nothing is fetched twice, and that downloads go on."""

import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from contextlib import suppress
from pathlib import Path

import pytest
from huggingface_hub import constants

from actors.weights.download import DownloadProgress
from actors.weights.folders import fetch_folder, find_download, folder_here
from configs.errors import WeightsError
from configs.weights import HubFolder, LocalFolder
from tests.unit.fake_hub import FakeHub, FakeRepo, checkpoint, point_client_at, safetensors

SOURCE = HubFolder(hub="o/n")
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
ONE = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"
NEEDED = {"config.json", "tokenizer.json", "tokenizer_config.json", INDEX, *SHARDS}
DUPLICATES = (
    "consolidated.safetensors",
    "consolidated-00001-of-00002.safetensors",
    "original/model.safetensors",
    "original/consolidated.00.pth",
    "metal/model.safetensors",
    "onnx/model.onnx",
    "openvino/openvino_model.bin",
    "pytorch_model.bin",
    "model-q4.gguf",
    "tf_model.h5",
    "model.safetensors",
)
RIVAL = """
from huggingface_hub import constants
from actors.weights.folders import fetch_folder
from configs.weights import HubFolder
constants.DOWNLOAD_CHUNK_SIZE = 100
def report(progress):
    print(progress.done_bytes, flush=True)
print(fetch_folder("m", [HubFolder(hub="o/n")], report=report))
"""
BROKEN_AT = 1000
"""After so many bytes of the first file of weights the connection breaks."""


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def weights_sent(hub: FakeHub) -> int:
    return sum(hub.sent.values())


def weights_bytes(hub: FakeHub) -> int:
    return sum(len(hub.repos["o/n"].files[name]) for name in SHARDS)


def rival(hub: FakeHub, folder: Path) -> subprocess.Popen[str]:
    """Another process of the same user that fetches the folder."""
    return subprocess.Popen(
        [sys.executable, "-c", RIVAL], stdout=subprocess.PIPE, text=True, env=hub.environment(folder)
    )


# What is fetched


def test_a_folder_is_fetched_once_and_then_found_without_the_hub(hub: FakeHub) -> None:
    assert folder_here([SOURCE]) is None
    folder = fetch_folder("m", [SOURCE])
    assert names(folder) == NEEDED
    assert (folder / SHARDS[0]).read_bytes() == hub.repos["o/n"].files[SHARDS[0]]
    hub.requests.clear()
    assert fetch_folder("m", [SOURCE]) == folder_here([SOURCE]) == folder
    assert find_download("m", [SOURCE]) is None
    assert hub.requests == []


@pytest.mark.parametrize("extra", DUPLICATES)
def test_the_same_weights_in_another_form_are_left_at_the_hub(hub: FakeHub, extra: str) -> None:
    hub.repos["o/n"].files[extra] = safetensors({"again": 4096}, seed=9)
    download = find_download("m", [SOURCE])
    assert download is not None
    assert {*download.weights, *download.others} == NEEDED
    assert names(fetch_folder("m", [SOURCE])) == NEEDED
    assert hub.large("o/n", extra) not in hub.sent


def test_the_files_that_the_index_names_are_the_weights(hub: FakeHub) -> None:
    files = hub.repos["o/n"].files
    files["extra.safetensors"] = safetensors({"extra": 4096}, seed=9)
    assert "extra.safetensors" not in names(fetch_folder("m", [SOURCE]))


def test_without_an_index_one_file_is_the_weights(hub: FakeHub) -> None:
    hub.repos["o/n"] = FakeRepo(
        {"config.json": b"{}", "model.safetensors": safetensors({"w": 4096})}
        | {"model.fp16.safetensors": safetensors({"w": 2048})}
    )
    assert names(fetch_folder("m", [SOURCE])) == {"config.json", "model.safetensors"}


def test_code_is_fetched_only_for_those_who_trust_it(hub: FakeHub) -> None:
    hub.repos["o/n"].files["modeling_x.py"] = b"code"
    assert "modeling_x.py" not in names(fetch_folder("m", [SOURCE]))
    assert folder_here([SOURCE], code=True) is None
    assert "modeling_x.py" in names(fetch_folder("m", [SOURCE], code=True))
    assert weights_sent(hub) == weights_bytes(hub)


def test_for_random_weights_the_real_ones_are_not_fetched(hub: FakeHub) -> None:
    folder = fetch_folder("m", [SOURCE], weights=False)
    assert not {*SHARDS} & names(folder)
    assert folder_here([SOURCE], weights=False) == folder
    assert folder_here([SOURCE]) is None
    assert weights_sent(hub) == 0


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        (
            {"config.json": b"{}", "pytorch_model.bin": b"x" * 999},
            "only safetensors are loaded, and there are none: 'pytorch_model.bin' is a pickle",
        ),
        ({"config.json": b"{}", "q4.gguf": b"GGUF"}, "'q4.gguf' is for the engine llamacpp"),
        ({"model.safetensors": b"x"}, "there is no config.json"),
        (
            {"config.json": b"{}", "consolidated.safetensors": b"x"},
            "'consolidated.safetensors', which is in Mistral's own format",
        ),
        ({"config.json": b"{}"}, "there are no safetensors"),
        ({"config.json": b"{}", SHARDS[0]: b"x"}, "only 1 of the 2 files of weights are there"),
        (
            {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"a": "../b"}}'},
            r"names '../b', which is not beside it",
        ),
        ({"config.json": b"{}", "model.safetensors.index.json": b"[]"}, "index.json is broken"),
    ],
    ids=["pickles", "gguf", "no config", "mistral", "nothing", "a part", "out of it", "broken"],
)
def test_a_repository_that_no_engine_reads_is_refused_before_any_download(
    hub: FakeHub, files: dict[str, bytes], cause: str
) -> None:
    hub.repos["o/n"] = FakeRepo(files)
    with pytest.raises(WeightsError, match=cause) as failure:
        fetch_folder("m", [SOURCE])
    assert "\n" not in failure.value.message
    assert failure.value.message.startswith("no weights for model 'm': o/n: ")
    assert weights_sent(hub) == 0


def test_a_folder_that_is_here_goes_before_a_source_that_would_fetch(
    hub: FakeHub, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    local.mkdir()
    (local / "config.json").write_bytes(b"{}")
    (local / "model.safetensors").write_bytes(safetensors({"w": 64}))
    assert fetch_folder("m", [SOURCE, LocalFolder(path=str(local))]) == local
    assert hub.requests == []


@pytest.mark.parametrize("out", ["../../../../evil", "/tmp/evil", "..", "x" * 64])
def test_no_name_of_a_listing_leads_out_of_the_cache(hub: FakeHub, tmp_path: Path, out: str) -> None:
    body = safetensors({"w": 4096})
    names_ = ["config.json", "tokenizer.json", "model.safetensors", f"{out}.json", f"{out}.safetensors"]
    hub.repos["o/n"] = FakeRepo(dict.fromkeys(names_, body))
    lfs = {"sha256": out, "size": len(body), "pointerSize": 1}
    siblings = [{"rfilename": name, "size": len(body), "blobId": out, "lfs": lfs} for name in names_]
    hub.changes = {"siblings": siblings}
    with suppress(WeightsError):
        fetch_folder("m", [SOURCE])
    assert [path for path in tmp_path.rglob("*evil*") if "snapshots" not in path.parts] == []
    hub.changes = {"sha": out}
    hub.repos["o/other"] = FakeRepo(checkpoint())
    with pytest.raises(WeightsError, match="does not answer like the Hub: it names no commit"):
        fetch_folder("m", [HubFolder(hub="o/other")])


# Progress, and downloads that end early


def test_progress_counts_the_bytes_of_the_weights(hub: FakeHub) -> None:
    seen: list[DownloadProgress] = []
    fetch_folder("m", [SOURCE], report=seen.append)
    total = weights_bytes(hub)
    assert {progress.what for progress in seen} == {"o/n from the Hub"}
    assert {progress.total_bytes for progress in seen} == {total}
    assert seen[0].done_bytes == 0
    assert seen[-1].done_bytes == total
    assert [p.done_bytes for p in seen] == sorted(p.done_bytes for p in seen)


def one_shard(hub: FakeHub) -> str:
    """Have the repository hold one file of weights, whose downloads break off; return its SHA-256."""
    hub.repos["o/n"] = FakeRepo(checkpoint(shards=1))
    sha256 = hub.large("o/n", ONE)
    hub.break_after[sha256] = BROKEN_AT
    return sha256


def test_a_download_that_broke_off_goes_on_at_its_byte(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits a second before each try
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # less is not kept
    sha256 = one_shard(hub)
    with pytest.raises(WeightsError, match=r"o/n: the Hub .* cannot be reached: peer closed"):
        fetch_folder("m", [SOURCE])
    assert folder_here([SOURCE]) is None
    download = find_download("m", [SOURCE])
    assert download is not None
    files = hub.repos["o/n"].files
    small = sum(len(files[name]) for name in NEEDED - {*SHARDS, INDEX})
    assert download.missing_bytes == len(files[ONE]) - BROKEN_AT + small
    hub.break_after.clear()
    seen: list[DownloadProgress] = []
    folder = fetch_folder("m", [SOURCE], report=seen.append)
    assert names(folder) == NEEDED - {*SHARDS} | {ONE}
    assert (folder / ONE).read_bytes() == files[ONE]
    assert hub.sent == {sha256: len(files[ONE])}
    assert seen[-1].done_bytes == seen[-1].total_bytes == len(files[ONE])


def test_a_process_that_is_killed_in_a_download_leaves_it_to_the_next(
    hub: FakeHub, tmp_path: Path
) -> None:
    sha256 = one_shard(hub)
    with rival(hub, tmp_path) as first:
        assert first.stdout is not None
        assert any(int(line) == BROKEN_AT for line in first.stdout)
        first.send_signal(signal.SIGKILL)
    hub.break_after.clear()
    with rival(hub, tmp_path) as second:
        out, _ = second.communicate(timeout=60)
    assert ONE in names(Path(out.splitlines()[-1]))
    assert hub.sent == {sha256: len(hub.repos["o/n"].files[ONE])}


def test_ctrl_c_ends_a_download_from_a_server_that_has_fallen_silent(
    hub: FakeHub, tmp_path: Path
) -> None:
    one_shard(hub)
    hub.stalls = True
    with rival(hub, tmp_path) as process:
        assert process.stdout is not None
        assert any(int(line) == BROKEN_AT for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=8) != 0  # the client itself would wait 10 s, five times


def test_two_processes_fetch_a_folder_once(hub: FakeHub, tmp_path: Path) -> None:
    with rival(hub, tmp_path) as one, rival(hub, tmp_path) as two:
        folders = {process.communicate(timeout=60)[0].splitlines()[-1] for process in (one, two)}
    assert len(folders) == 1
    assert names(Path(folders.pop())) == NEEDED
    assert weights_sent(hub) == weights_bytes(hub)


def test_bytes_that_are_not_those_of_the_checksum_are_not_used(hub: FakeHub, tmp_path: Path) -> None:
    sha256 = hub.large("o/n", SHARDS[0])
    partial = tmp_path / f"hf/hub/models--o--n/blobs/{sha256}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"wrong")
    with pytest.raises(WeightsError, match=f"SHA-256 is .*, not {sha256}"):
        fetch_folder("m", [SOURCE])
    assert not partial.exists()
    assert names(fetch_folder("m", [SOURCE])) == NEEDED


def test_a_snapshot_that_other_programs_fetched_in_part_is_fetched_on(
    hub: FakeHub, tmp_path: Path
) -> None:
    folder = fetch_folder("m", [SOURCE])
    shutil.rmtree(tmp_path / "slimmoa")  # so nothing of ours knows what belongs to it
    blob = (folder / SHARDS[1]).resolve()
    (folder / SHARDS[1]).unlink()
    blob.unlink()
    assert folder_here([SOURCE]) is None
    hub.sent.clear()
    assert names(fetch_folder("m", [SOURCE])) == NEEDED
    assert [*hub.sent] == [hub.large("o/n", SHARDS[1])]


def test_a_tokenizer_that_is_missing_is_fetched(hub: FakeHub) -> None:
    folder = fetch_folder("m", [SOURCE])
    (folder / "tokenizer.json").unlink()
    assert folder_here([SOURCE]) is None
    assert names(fetch_folder("m", [SOURCE])) == NEEDED
    assert weights_sent(hub) == weights_bytes(hub)


def test_without_room_on_the_disk_nothing_is_begun(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(9000, 0, 8000))
    with pytest.raises(
        WeightsError, match=r"needs 0\.0 MB, and the disk of .* has 0\.0 MB free: .*HF_HOME"
    ):
        fetch_folder("m", [SOURCE])
    assert weights_sent(hub) == 0
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(9000, 0, 9000))
    fetch_folder("m", [SOURCE])


# Revisions


def test_a_revision_is_fetched_as_such(hub: FakeHub) -> None:
    hub.repos["o/n"].revisions = ("main", "gptq-8bit", "refs/pr/1")
    for revision in ("gptq-8bit", "refs/pr/1"):
        source = HubFolder(hub="o/n", revision=revision)
        assert names(fetch_folder("m", [source])) == NEEDED
        assert folder_here([source]) is not None
    assert folder_here([SOURCE]) is None  # of main this machine knows nothing yet
    assert weights_sent(hub) == weights_bytes(hub)


def test_a_new_version_of_a_repository_is_fetched_where_the_old_one_was_not_whole(
    hub: FakeHub,
) -> None:
    folder = fetch_folder("m", [SOURCE], weights=False)
    hub.repos["o/n"] = FakeRepo(checkpoint(shards=3))
    new = fetch_folder("m", [SOURCE])
    assert new != folder
    assert "model-00003-of-00003.safetensors" in names(new)
    assert folder_here([SOURCE]) == new


def test_a_hub_out_of_reach_is_asked_once_for_all_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_client_at("http://127.0.0.1:1", tmp_path, monkeypatch)
    monkeypatch.setattr("actors.weights.hub._unreachable", {})
    with pytest.raises(WeightsError, match="cannot be reached"):
        fetch_folder("m", [SOURCE])
    with pytest.raises(WeightsError, match="could not be reached a moment ago"):
        fetch_folder("m", [HubFolder(hub="o/other")])
    assert os.listdir(tmp_path) == []
