"""Which file or folder has a model's weights, and what is fetched for a plan."""

from pathlib import Path
from typing import Any

import pytest

from actors.weights import lookup
from actors.weights.lookup import fetch_weights, find_weights
from configs.schema import LlamaCppModel, ScriptedModel, VllmModel


def llamacpp(path: Path) -> LlamaCppModel:
    return LlamaCppModel.model_validate({"engine": "llamacpp", "weights": [{"path": str(path)}]})


def vllm(*sources: dict[str, Any]) -> VllmModel:
    return VllmModel.model_validate({"engine": "vllm", "weights": list(sources)})


def test_a_file_is_found_if_it_is_here(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    assert find_weights("a", llamacpp(file)) is None
    file.write_bytes(b"GGUF")
    assert find_weights("a", llamacpp(file)) == file


def test_a_missing_file_is_fetched_and_a_folder_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[str] = []

    def fetch(name: str, _sources: Any) -> Path:
        fetched.append(name)
        return tmp_path

    monkeypatch.setattr(lookup, "fetch", fetch)
    assert fetch_weights("file", llamacpp(tmp_path / "model.gguf")) == tmp_path
    assert fetch_weights("folder", vllm({"hub": "an/owner"})) is None
    assert fetched == ["file"]


def test_a_local_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    sources = {"hub": "an/owner"}, {"path": str(tmp_path)}
    assert find_weights("a", vllm(*sources)) == fetch_weights("a", vllm(*sources)) == tmp_path


def test_other_engines_have_no_weights() -> None:
    assert fetch_weights("a", ScriptedModel(engine="scripted")) is None
