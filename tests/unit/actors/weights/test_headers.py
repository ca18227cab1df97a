"""What a plan reads of a checkpoint that is at the Hub, and how the Hub's refusals read."""

import json
import socket
import struct
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from actors.weights.folders import fetch_folder
from actors.weights.headers import fetch_headers, headers_here
from actors.weights.hub import ask_hub
from actors.weights.lookup import fetch_weights, find_weights
from actors.weights.repository import small_file
from cluster.plan.checkpoint import Checkpoint, UnknownCheckpoint
from cluster.plan.task import bundled_shape
from configs.errors import WeightsError
from configs.schema import VllmModel
from configs.weights import HubFolder
from tests.unit.fake_hub import TOKEN, FakeHub, FakeRepo, checkpoint, point_client_at, safetensors

SOURCE = HubFolder(hub="o/n")
WEIGHT_BYTES = 2 * (4096 + 64)


def model(*sources: dict[str, str]) -> VllmModel:
    return VllmModel.model_validate({"engine": "vllm", "weights": list(sources)})


def log_in(token: str) -> None:
    path = Path(constants.HF_TOKEN_PATH)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(token)


def failure(hub: str = "o/n", revision: str = "main") -> str:
    with pytest.raises(WeightsError) as caught:
        find_weights("m", model({"hub": hub, "revision": revision}))
    assert caught.value.model == "m"
    assert "\n" not in caught.value.message
    return caught.value.message


# Headers


@pytest.mark.usefixtures("hub")
def test_a_plan_knows_a_checkpoint_by_its_headers_alone(tmp_path: Path) -> None:
    found = find_weights("m", model({"hub": "o/n"}))
    assert isinstance(found, Checkpoint)
    assert (found.weight_bytes, found.layers, found.vocab) == (WEIGHT_BYTES, 2, 1000)
    assert sorted(found.tensor_bytes) == [64, 64, 4096, 4096]
    assert [*(tmp_path / "hf").rglob("*.safetensors")] == []


def test_a_second_plan_asks_nobody(hub: FakeHub) -> None:
    first = find_weights("m", model({"hub": "o/n"}))
    hub.requests.clear()
    assert (
        find_weights("m", model({"hub": "o/n"})) == fetch_weights("m", model({"hub": "o/n"})) == first
    )
    assert hub.requests == []


def test_headers_that_are_longer_than_the_first_request_are_read_whole(hub: FakeHub) -> None:
    tensors = {f"model.layers.{n}.a.very.long.name.of.a.tensor": 2 for n in range(2000)}
    files = {"config.json": checkpoint()["config.json"], "model.safetensors": safetensors(tensors)}
    hub.repos["o/n"] = FakeRepo(files)
    assert fetch_headers(SOURCE).weight_bytes == 4000


def test_the_facts_of_quantization_come_along(hub: FakeHub) -> None:
    assert fetch_headers(SOURCE).kv_dtype is None
    facts = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    facts["quantization"]["kv_cache_quant_algo"] = "FP8"
    hub.repos["o/n"].files["hf_quant_config.json"] = json.dumps(facts).encode()
    found = fetch_headers(SOURCE)
    assert (found.quantization, found.kv_dtype) == ("modelopt", "fp8")
    assert headers_here(SOURCE) == found


@pytest.mark.usefixtures("hub")
def test_once_the_folder_is_here_a_plan_reads_the_folder() -> None:
    headers = find_weights("m", model({"hub": "o/n"}))
    folder = fetch_folder("m", [SOURCE])
    assert find_weights("m", model({"hub": "o/n"})) == folder != headers


@pytest.mark.usefixtures("hub")
def test_a_folder_that_was_fetched_in_part_is_planned_by_its_headers() -> None:
    folder = fetch_folder("m", [SOURCE])
    (folder / "model-00002-of-00002.safetensors").unlink()
    found = find_weights("m", model({"hub": "o/n"}))
    assert isinstance(found, Checkpoint)
    assert found.weight_bytes == WEIGHT_BYTES


def test_a_checkpoint_that_cannot_be_understood_is_named(hub: FakeHub) -> None:
    hub.repos["o/n"].files["config.json"] = b'{"model_type": "llama"}'
    for _ in range(2):  # from the Hub, and from what was kept
        with pytest.raises(UnknownCheckpoint, match="cannot understand the model in 'o/n'"):
            find_weights("m", model({"hub": "o/n"}))


def test_what_breaks_off_is_asked_for_again(hub: FakeHub) -> None:
    hub.repos["o/n"].files["model-00002-of-00002.safetensors"] = struct.pack("<Q", 1 << 60) + b"x" * 600
    assert "o/n: " in failure()
    assert headers_here(SOURCE) is None
    hub.repos["o/n"] = FakeRepo(checkpoint())
    assert find_weights("m", model({"hub": "o/n"})) == headers_here(SOURCE) is not None


# The order of what is asked


def test_a_bundled_shape_goes_before_the_hub(hub: FakeHub) -> None:
    source = {"hub": "Qwen/Qwen2.5-7B-Instruct-AWQ"}
    assert find_weights("m", model(source)) == bundled_shape(HubFolder(**source)) is not None
    assert hub.requests == []


def test_a_bundled_shape_is_that_of_the_main_revision(hub: FakeHub) -> None:
    name = "Qwen/Qwen2.5-7B-Instruct-AWQ"
    hub.repos[name] = FakeRepo(checkpoint(), revisions=("main", "8bit"))
    found = find_weights("m", model({"hub": name, "revision": "8bit"}))
    assert isinstance(found, Checkpoint)
    assert found.weight_bytes == WEIGHT_BYTES


def test_headers_that_are_here_go_before_a_bundled_shape(hub: FakeHub) -> None:
    name = "Qwen/Qwen2.5-7B-Instruct-AWQ"
    hub.repos[name] = FakeRepo(checkpoint())
    headers = fetch_headers(HubFolder(hub=name))
    assert find_weights("m", model({"hub": name})) == headers


@pytest.mark.usefixtures("hub")
def test_the_next_source_is_asked_where_one_cannot_tell(tmp_path: Path) -> None:
    sources = ({"path": str(tmp_path / "none")}, {"hub": "o/none"}, {"hub": "o/n"})
    assert find_weights("m", model(*sources)) == headers_here(SOURCE)


# Refusals


def test_a_misspelt_repository_is_said_to_be_missing_or_private(hub: FakeHub) -> None:
    assert failure("o/nn") == (
        f"how large model 'm' is cannot be told: o/nn: there is no such repository at {hub.url}, or it "
        "is private: check its name; for a private one run `hf auth login`"
    )
    log_in(TOKEN)
    assert "o/nn: there is no such repository" in failure("o/nn")


def test_a_gated_repository_asks_for_its_licence_and_a_login(hub: FakeHub) -> None:
    hub.repos["o/n"].gated = True
    assert f"accepted: do so at {hub.url}/o/n, then run `hf auth login`" in failure()
    log_in("hf_other")
    assert f"may not read it: accept the licence at {hub.url}/o/n" in failure()
    log_in(TOKEN)
    assert find_weights("m", model({"hub": "o/n"})) is not None


def test_a_private_repository_opens_with_its_token(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["o/n"].private = True
    assert "or it is private" in failure()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert find_weights("m", model({"hub": "o/n"})) is not None


@pytest.mark.usefixtures("hub")
def test_a_token_that_the_hub_does_not_know_is_said() -> None:
    log_in("hf_expired")
    assert "does not know the token of this machine: run `hf auth login` again" in failure()


def test_an_unknown_revision_is_named(hub: FakeHub) -> None:
    assert f"o/n: it has no revision '8bit': {hub.url}/o/n lists" in failure(revision="8bit")


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_in_trouble_is_said(hub: FakeHub, status: int) -> None:
    hub.failing = status
    assert f"the Hub answers {status}: try again later" in failure()


def test_too_many_requests_are_said(hub: FakeHub) -> None:
    hub.failing = 429
    assert "too many requests" in failure()


def test_without_a_network_a_plan_fails_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_client_at("http://127.0.0.1:1", tmp_path, monkeypatch)
    monkeypatch.setattr("actors.weights.hub._unreachable", {})
    began = time.monotonic()
    assert "o/n: the Hub (http://127.0.0.1:1) cannot be reached: " in failure()
    assert time.monotonic() - began < 3


@pytest.mark.usefixtures("hub")
def test_a_hub_that_does_not_answer_is_given_up_and_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.weights.hub._unreachable", {})
    monkeypatch.setattr("actors.weights.hub.LIST_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_client_at(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, monkeypatch)
        assert "cannot be reached: timed out" in failure()
        assert "could not be reached a moment ago" in failure("o/other")


def test_a_network_that_ends_in_between_is_named(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the client's tries
    repository = ask_hub(SOURCE)
    point_client_at("http://127.0.0.1:1", tmp_path, monkeypatch)
    with pytest.raises(WeightsError, match=r"the Hub \(http://127.0.0.1:1\) cannot be reached: "):
        small_file(SOURCE, repository, "config.json")
    assert hub.gets() == []


def test_offline_mode_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in failure()


def test_a_repository_of_pickles_is_refused_with_the_reason(hub: FakeHub) -> None:
    hub.repos["o/n"] = FakeRepo({"config.json": b"{}", "pytorch_model.bin": b"x" * 999})
    assert (
        "only safetensors are loaded, and there are none: 'pytorch_model.bin' is a pickle" in failure()
    )


def test_something_else_at_the_address_is_said(hub: FakeHub) -> None:
    hub.repos["o/n"].files["config.json"] = b"<html>"
    assert "o/n: config.json is not JSON" in failure()
    hub.repos["o/n"].files["model.safetensors.index.json"] = json.dumps([1]).encode()
    assert "model.safetensors.index.json is broken" in failure()
