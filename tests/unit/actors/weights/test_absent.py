"""Paths that are no weights: why, and what to do."""

import os
from pathlib import Path

import pytest

from actors.weights.absent import UNFINISHED, why_no_file, why_no_folder
from actors.weights.files import fetch
from actors.weights.folders import fetch_folder
from actors.weights.lookup import find_weights, why_not_here
from configs.errors import WeightsError
from configs.schema import LlamaCppModel, VllmModel
from configs.weights import LocalFile, LocalFolder


def llamacpp(path: Path) -> LlamaCppModel:
    return LlamaCppModel(engine="llamacpp", weights=(LocalFile(path=str(path)),))


def test_a_folder_in_place_of_a_file_says_which_files_it_has(tmp_path: Path) -> None:
    assert (
        why_no_file(tmp_path)
        == "it is a folder, and llama.cpp takes a file, and this one has no GGUF file"
    )
    for name in ("b.gguf", "a.GGUF", "c.txt", "d.gguf", "e.gguf", "f.gguf"):
        (tmp_path / name).touch()
    assert why_no_file(tmp_path).endswith("; it has a.GGUF, b.gguf, d.gguf, e.gguf and 1 more")


@pytest.mark.parametrize("ending", UNFINISHED)
def test_a_download_that_is_not_finished_is_named(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"w.gguf{ending}").touch()
    assert why_no_file(tmp_path / "w.gguf") == (
        f"there is no such file, but a download that is not finished: w.gguf{ending}"
    )


def test_a_name_that_is_nearly_right_is_offered(tmp_path: Path) -> None:
    (tmp_path / "Qwen3-4B-Q4_K_M.gguf").touch()
    (tmp_path / "qwen3-4b").mkdir()
    assert why_no_file(tmp_path / "Qwen3-4B-Q4_K_S.gguf").endswith("did you mean Qwen3-4B-Q4_K_M.gguf?")
    assert why_no_folder(tmp_path / "qwen3-4").endswith("did you mean qwen3-4b?")
    assert why_no_file(tmp_path / "other.bin") == "there is no such file"
    assert why_no_file(tmp_path / "no" / "w.gguf") == "there is no such file"


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").symlink_to("../blobs/abc")
    (tmp_path / "w").symlink_to("gone")
    assert why_no_file(tmp_path / "w.gguf") == "it is a link to ../blobs/abc, and there is nothing"
    assert why_no_folder(tmp_path / "w") == "it is a link to gone, and there is nothing"


def test_variables_in_a_path_are_not_read() -> None:
    for why in (why_no_file(Path("/r/$HOME/w.gguf")), why_no_folder(Path("/r/${MODELS}/m"))):
        assert why == "there is nothing; variables such as $HOME are not read in a path, but ~ is"


def test_what_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    assert why_no_file(tmp_path / "w.gguf") == "this user may not read it"


def test_what_is_no_folder_of_a_model_is_named(tmp_path: Path) -> None:
    assert why_no_folder(tmp_path) == "there is no config.json"
    (tmp_path / "w.gguf").touch()
    assert why_no_folder(tmp_path) == "there is no config.json; w.gguf is for the engine llamacpp"
    assert why_no_folder(tmp_path / "w.gguf") == (
        "it is a file, and vLLM takes the folder of a model, with config.json; the engine llamacpp "
        "takes GGUF files"
    )
    cache = tmp_path / "models--Qwen--Qwen3-8B-AWQ"
    for name in ("snapshots", "blobs", "refs"):
        (cache / name).mkdir(parents=True)
    assert why_no_folder(cache).endswith("say `hub: Qwen/Qwen3-8B-AWQ` in place of the path")


def test_names_of_files_in_folders_that_are_not_allowed_are_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.gguf").touch()
    monkeypatch.setenv("SLIMMOA_WEIGHTS", "/elsewhere")
    for why in (why_no_file(tmp_path), why_no_file(tmp_path / "secre.gguf"), why_no_folder(tmp_path)):
        assert why.startswith("SLIMMOA_WEIGHTS names the folders of weights here")


def test_every_way_to_a_path_says_why(tmp_path: Path) -> None:
    (tmp_path / "w.gguf.part").touch()
    model = llamacpp(tmp_path / "w.gguf")
    unfinished = r"w\.gguf: there is no such file, but a download that is not finished: w\.gguf\.part"
    with pytest.raises(WeightsError, match=unfinished):
        fetch("m", model.weights)
    with pytest.raises(WeightsError, match=rf"how large model 'm' is cannot be told: .*{unfinished}"):
        find_weights("m", model)
    assert why_not_here(model).endswith("not finished: w.gguf.part")
    folder = VllmModel(engine="vllm", weights=(LocalFolder(path=str(tmp_path / "none")),))
    with pytest.raises(WeightsError, match="/none: there is no such folder"):
        fetch_folder("m", folder.weights)
    with pytest.raises(WeightsError, match="/none: there is no such folder"):
        find_weights("m", folder)
    assert why_not_here(folder).endswith("/none: there is no such folder")
