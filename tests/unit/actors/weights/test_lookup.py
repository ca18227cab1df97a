"""Which file or folder has a model's weights, and what is fetched for a plan."""

from pathlib import Path
from typing import Any

import pytest

from actors.weights.lookup import (
    WeightsState,
    bring_here,
    engine_folder,
    fetch_weights,
    find_weights,
    learn_size,
    weights_state,
)
from cluster.plan.checkpoint import Checkpoint
from configs.errors import WeightsError
from configs.schema import LlamaCppModel, ScriptedModel, VllmModel
from tests.unit.fake_hub import FakeHub, FakeRepo, gguf_file


def llamacpp(path: Path) -> LlamaCppModel:
    return LlamaCppModel.model_validate({"engine": "llamacpp", "weights": [{"path": str(path)}]})


def vllm(*sources: dict[str, Any]) -> VllmModel:
    return VllmModel.model_validate({"engine": "vllm", "weights": list(sources)})


def test_a_file_is_found_if_it_is_here(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    with pytest.raises(
        WeightsError, match=r"'a' is cannot be told: .*model.gguf: there is no such file"
    ):
        find_weights("a", llamacpp(file))
    file.write_bytes(b"GGUF")
    assert find_weights("a", llamacpp(file)) == file


def test_a_file_that_can_be_fetched_is_fetched_and_of_a_folder_only_headers(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.repos["o/g"] = FakeRepo({"w.gguf": gguf_file()})
    sources = [{"hub": "o/g", "file": "w.gguf"}]
    file = LlamaCppModel.model_validate({"engine": "llamacpp", "weights": sources})
    assert isinstance(find_weights("a", file), Checkpoint)  # by its header
    fetched = fetch_weights("a", file)
    assert isinstance(fetched, Path)
    assert find_weights("a", file) == fetched
    assert isinstance(fetch_weights("a", vllm({"hub": "o/n"})), Checkpoint)
    assert [*(tmp_path / "hf").rglob("*.safetensors")] == []


def test_a_local_folder_is_found(tmp_path: Path, hub: FakeHub) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    sources = {"hub": "an/owner"}, {"path": str(tmp_path)}
    assert find_weights("a", vllm(*sources)) == fetch_weights("a", vllm(*sources)) == tmp_path
    assert hub.requests == []


def test_a_folder_that_may_not_be_read_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setenv("SLIMMOA_WEIGHTS", "/nowhere")
    with pytest.raises(WeightsError, match="SLIMMOA_WEIGHTS names the folders"):
        find_weights("a", vllm({"path": str(tmp_path)}))


def test_states_tell_what_is_here_and_what_is_to_be_fetched(hub: FakeHub) -> None:
    model = vllm({"hub": "o/n"})
    assert str(weights_state(model)) == "not here yet"
    learn_size("a", model)
    total = sum(len(body) for name, body in hub.repos["o/n"].files.items() if name != "README.md")
    index = len(hub.repos["o/n"].files["model.safetensors.index.json"])
    assert weights_state(model) == WeightsState(False, total - index)
    bring_here("a", model)
    weights = [b for name, b in hub.repos["o/n"].files.items() if name.endswith(".safetensors")]
    assert weights_state(model) == WeightsState(True, sum(map(len, weights)))
    assert str(WeightsState(True, 39_767_785_472)) == "39.8 GB here"
    assert str(WeightsState(False, 491_400_064)) == "491.4 MB to fetch"
    preset = vllm({"hub": "Qwen/Qwen2.5-72B-Instruct-AWQ"})
    assert "GB to fetch" in str(weights_state(preset))


def test_random_weights_need_no_real_ones(hub: FakeHub) -> None:
    model = vllm({"hub": "o/n"}).model_copy(update={"load_format": "dummy"})
    assert engine_folder(model) is None
    bring_here("a", model)
    assert engine_folder(model) is not None
    assert str(weights_state(model)) == "here"
    assert hub.sent == {}


def test_other_engines_have_no_weights() -> None:
    assert fetch_weights("a", ScriptedModel(engine="scripted")) is None
