"""What `slimmoa models`, `plan` and `check` say of weights that are at the Hub, and what they fetch."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from cli.serve import download_missing_weights
from cluster.cards.catalog import card_by_name
from configs.load import load
from tests.unit.fake_hub import (
    TOKEN,
    FakeHub,
    FakeRepo,
    checkpoint,
    gguf_file,
    point_client_at,
    serve_hub,
)

RECIPE = """
name: mix
models:
  one: {engine: vllm, weights: [{hub: o/n}], context_tokens: 4096}
  two: {engine: vllm, weights: [{hub: o/gated}], context_tokens: 4096}
layers: [{proposers: [{model: one}]}]
aggregator: {model: two}
"""
CARD = ("--card", "RTX-4090")
NO_HUB = "http://127.0.0.1:1"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub, and a user with a token, who has fetched nothing yet."""
    with serve_hub() as hub:
        hub.repos["o/n"] = FakeRepo(checkpoint(size=2_000_000))
        hub.repos["o/gated"] = FakeRepo(checkpoint(size=3_000_000), gated=True)
        point_client_at(hub.url, tmp_path, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("actors.weights.hub._unreachable", {})
        yield hub


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "mix.yaml").write_text(RECIPE)
    return str(tmp_path / "mix.yaml")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def row(result: Result, model: str) -> str:
    return next(line for line in result.stdout.splitlines() if line.split()[:1] == [model])


def test_models_fetch_brings_vllms_folders_and_a_plan_then_needs_no_hub(
    hub: FakeHub, recipe: str
) -> None:
    fetched = call("models", recipe, "--fetch")
    assert fetched.exit_code == 0, fetched.stderr
    assert "one needs 4.0 MB from the Hub (o/n)" in fetched.stderr
    assert "two needs 6.0 MB from the Hub (o/gated)" in fetched.stderr
    assert "4.0 MB here" in row(fetched, "one")
    assert "6.0 MB here" in row(fetched, "two")
    hub.requests.clear()
    again = call("models", recipe, "--fetch")
    assert (again.exit_code, again.stderr) == (0, "")
    planned = call("plan", recipe, *CARD, "--json")
    assert planned.exit_code == 0, planned.stderr
    weights = [len(b) for name, b in hub.repos["o/n"].files.items() if name.endswith(".safetensors")]
    assert json.loads(planned.stdout)["weights"]["one"] == {"here": True, "bytes": sum(weights)}
    assert "not here yet" not in call("plan", recipe, *CARD).stdout + call("check", recipe).stdout
    assert hub.requests == []


def test_a_plan_asks_the_hub_once_and_says_what_is_to_be_fetched(hub: FakeHub, recipe: str) -> None:
    assert "one (size unknown), two (size unknown)" in call("check", recipe).stdout
    planned = call("plan", recipe, *CARD)
    assert planned.exit_code == 0, planned.stderr
    said = "not here yet, fetched by `slimmoa models --fetch` and `serve`: one (4.0 MB), two (6.0 MB)"
    assert said in planned.stdout
    assert sum(hub.sent.values()) < 1_000_000  # the headers, in pieces of 100 kB
    hub.requests.clear()
    assert call("plan", recipe, *CARD).stdout == planned.stdout
    assert said in call("check", recipe).stdout
    assert hub.requests == []


def test_models_say_how_much_is_to_be_fetched(hub: FakeHub, recipe: str) -> None:
    listed = call("models", recipe)
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert "4.0 MB to fetch" in row(listed, "one")
    assert "6.0 MB to fetch" in row(listed, "two")
    assert hub.sent == {}


@pytest.mark.parametrize("command", [("plan", *CARD), ("models", "--fetch")], ids=["plan", "models"])
def test_the_advice_of_a_refusal_leads_to_a_plan(
    hub: FakeHub, recipe: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    name, *options = command
    refused = call(name, recipe, *options)
    assert refused.exit_code == 1
    (line,) = refused.stderr.splitlines()
    assert "model 'two'" in line
    assert line.endswith(f"do so at {hub.url}/o/gated, then run `hf auth login`")
    assert call("models", recipe).stderr.strip().endswith("then run `hf auth login`")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    done = call(name, recipe, *options)
    assert done.exit_code == 0, done.stderr
    assert call("plan", recipe, *CARD).exit_code == 0


@pytest.mark.parametrize("command", [("plan", *CARD), ("models", "--fetch")], ids=["plan", "models"])
@pytest.mark.usefixtures("hub")
def test_without_the_hub_a_refusal_is_one_line(
    recipe: str,
    tmp_path: Path,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point_client_at(NO_HUB, tmp_path, monkeypatch)
    name, *options = command
    refused = call(name, recipe, *options)
    assert refused.exit_code == 1
    (line,) = refused.stderr.splitlines()
    assert f"o/n: the Hub ({NO_HUB}) cannot be reached: " in line
    listed = call("models", recipe)
    assert listed.exit_code == 0
    assert listed.stdout.count("not here yet") == 2


def test_a_gguf_file_is_planned_by_its_header_and_then_without_the_hub(
    hub: FakeHub, tmp_path: Path
) -> None:
    gguf = tmp_path / "gguf.yaml"
    gguf.write_text(
        "name: mix\n"
        "models: {one: {engine: llamacpp, weights: [{hub: o/g, file: w.gguf}]}}\n"
        "layers: [{proposers: [{model: one}]}]\n"
        "aggregator: {model: one}\n"
    )
    refused = call("plan", str(gguf), *CARD)
    assert refused.exit_code == 1
    assert "how large model 'one' is cannot be told: o/g: there is no such repo" in refused.stderr
    hub.repos["o/g"] = FakeRepo({"w.gguf": gguf_file()})
    planned = call("plan", str(gguf), *CARD)
    assert planned.exit_code == 0, planned.stderr
    assert "not here yet" in planned.stdout
    hub.requests.clear()
    assert call("plan", str(gguf), *CARD).stdout == planned.stdout
    assert call("check", str(gguf)).exit_code == 0
    assert hub.requests == []
    assert call("models", str(gguf), "--fetch").exit_code == 0
    assert "not here yet" not in call("plan", str(gguf), *CARD).stdout


@pytest.mark.parametrize("cards", ["cpu", "RTX-4090"])
def test_check_and_plan_refuse_numbers_that_vllm_cannot_run(
    hub: FakeHub, recipe: str, cards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [] if cards == "cpu" else [card_by_name(cards, 0)]
    monkeypatch.setattr("cluster.cards.detect.detect_cards", lambda: found)
    config = json.loads(hub.repos["o/n"].files["config.json"])
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    hub.repos["o/n"].files["config.json"] = json.dumps(config).encode()
    assert call("check", recipe).exit_code == 0  # nothing is known yet, and `check` asks nobody
    assert hub.requests == []
    planned = call("plan", recipe, *CARD)
    assert planned.exit_code == 1
    assert "model 'one' cannot run on RTX-4090: vLLM 0.33 cannot run weights in 'bitsandbytes'" in (
        planned.stderr
    )
    checked = call("check", recipe)
    assert checked.exit_code == 1
    assert "vLLM 0.33 cannot run weights in 'bitsandbytes'" in checked.stderr


def test_check_names_the_key_of_a_checkpoint_that_it_cannot_understand(
    hub: FakeHub, recipe: str
) -> None:
    hub.repos["o/n"].files["config.json"] = b'{"model_type": "llama"}'
    assert call("plan", recipe, *CARD).exit_code == 1
    checked = call("check", recipe)
    assert checked.exit_code == 1
    assert f"{recipe}: model 'one': cannot understand the model in 'o/n': " in checked.stderr


def test_weights_that_nobody_can_fetch_are_said_to_be_lost(hub: FakeHub, tmp_path: Path) -> None:
    lost = tmp_path / "lost.yaml"
    lost.write_text(RECIPE.replace("{hub: o/n}", "{path: /none}").replace("hub: o/gated", "path: /no"))
    assert (
        "not here, and the recipe names only paths: one (/none: there is no such folder), two (/no:"
        in call("check", str(lost)).stdout
    )
    refused = call("plan", str(lost), *CARD)
    assert refused.exit_code == 1
    assert "'one' is cannot be told: /none: there is no such folder" in refused.stderr
    assert (
        "no weights for model 'one': /none: there is no" in call("models", str(lost), "--fetch").stderr
    )
    assert hub.requests == []


def test_serve_fetches_folders_before_ray_is_started(
    hub: FakeHub, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    def connect(*_: object, **__: object) -> None:
        sent.append(sum(hub.sent.values()))
        raise OSError("no Ray in this test")

    monkeypatch.setattr("cluster.ray_runtime.check_port", lambda *_: None)
    monkeypatch.setattr("cluster.ray_runtime.connect", connect)
    monkeypatch.setattr("cluster.ray_runtime.disconnect", lambda *_, **__: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert "no Ray in this test" in call("serve", recipe).stderr
    repos = hub.repos.values()
    bodies = [repo.files[name] for repo in repos for name in repo.files if ".safetensors" in name[-12:]]
    assert sent == [sum(map(len, bodies))]


def test_for_a_cluster_folders_are_not_fetched_here(hub: FakeHub, recipe: str) -> None:
    download_missing_weights(load(recipe), folders=False)
    assert hub.requests == []


def test_a_preset_is_planned_without_the_hub(hub: FakeHub) -> None:
    planned = call("plan", "slim_moa_a100", "--card", "A100-80GB")
    assert planned.exit_code == 0
    assert "llama-3.1-70b (39.8 GB)" in planned.stdout
    assert "GB to fetch" in call("models", "slim_moa_a100").stdout
    assert "qwen2.5-72b (41.6 GB)" in call("check", "slim_moa_a100").stdout
    assert hub.requests == []


def test_a_disk_without_room_is_said_before_any_download(
    hub: FakeHub, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 9_000_000}))
    refused = call("models", recipe, "--fetch")
    assert refused.exit_code == 1
    assert "the download needs 10.0 MB, and the disk of" in refused.stderr
    assert "has 9.0 MB free: make room, or set HF_HOME to a folder on a larger disk" in refused.stderr
    assert hub.sent == {}
