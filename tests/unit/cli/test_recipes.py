"""`slimmoa plan` and `slimmoa models`, called as people call them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from cli.main import app
from configs.load import load

ROOT = Path(__file__).parents[3]
A100 = ["--card", "A100-80GB"]


@pytest.fixture(autouse=True)
def an_empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights are on this machine, and no variable names its cards."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SLIMMOA_CACHE", str(tmp_path))
    monkeypatch.delenv("SLIMMOA_CARDS", raising=False)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_plan_is_a_table_a_map_and_a_summary() -> None:
    found = call("plan", "slim_moa_a100", *A100)
    assert found.exit_code == 0
    lines = found.output.splitlines()
    rows = [line.split() for line in lines if line.strip().startswith("0 A100-80GB ")]
    assert [row[2] for row in rows] == [
        "gemma-2-9b-wpo",
        "llama-3.1-70b",
        "qwen2.5-72b",
        "nemotron-70b",
        "qwen2-72b",
    ]
    assert rows[0][3] == "always"
    assert rows[1][3:8] == ["1", "of", "4", "in", "turns"]
    assert "0 A100-80GB: 76.5 GiB planned, 1.0 GiB free" in found.output
    assert sum("█" in line for line in lines) == 5 + 1  # a line for each model, and the legend
    assert "host RAM on the host for engines and sleeping models" in found.output
    assert "predicted, not measured" in found.output


def test_the_same_as_json() -> None:
    found = json.loads(call("plan", "slim_moa_a100", *A100, *A100, "--json").stdout)
    assert found["recipe"] == "slimmoa-a100"
    assert [placed["card"]["indices"] for placed in found["cards"]] == [[0], [1]]
    members = [m for placed in found["cards"] for slot in placed["slots"] for m in slot["members"]]
    assert {member["model"] for member in members} == set(load("slim_moa_a100").models)
    assert found["prediction"]["swaps"] == 4


def test_the_picture_is_written_to_the_file(tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    assert call("plan", "slim_moa_a100", *A100, "--svg", str(picture)).exit_code == 0
    text = picture.read_text("utf-8")
    assert text.startswith("<svg ")
    assert "slimmoa-a100" in text
    assert "gemma-2-9b-wpo" in text


def test_cards_may_be_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIMMOA_CARDS", "H200-141GB")
    assert "0 H200-141GB: " in call("plan", "slim_moa_a100").output


def test_a_recipe_that_does_not_fit_has_exit_code_1_the_sums_and_what_would_fit() -> None:
    found = call("plan", "slim_moa_a100", "--card", "RTX-4090")
    assert found.exit_code == 1
    assert "qwen2.5-72b: 48.5 GiB = weights 38.8 GiB + KV 7.6 GiB (24576 tokens)" in found.stderr
    assert "RTX-4090: 22.9 GiB of 23.4 GiB" in found.stderr
    assert "It fits on one A100-80GB." in found.stderr
    assert found.stdout == ""


def test_an_unknown_card_has_exit_code_1_and_the_names_of_all_cards() -> None:
    found = call("plan", "slim_moa_a100", "--card", "A1000")
    assert found.exit_code == 1
    assert "no card 'A1000' in the catalog; similar are A100-80GB" in found.stderr


def test_a_preset_for_laptops_is_planned_before_anything_is_downloaded() -> None:
    found = call("plan", "laptop_16gb", "--json")
    assert found.exit_code == 0, found.stderr
    weights = json.loads(found.stdout)["weights"]
    assert {name: each["bytes"] for name, each in weights.items()} == {
        "qwen3-4b": 2_497_281_120,
        "ministral-3-3b": 2_147_023_008,
        "gemma-4-e4b": 5_154_941_280,
    }


def test_a_plan_does_not_import_ray() -> None:
    """Importing Ray takes two seconds."""
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from cli.main import app\n"
        "found = CliRunner().invoke(app, ['plan', 'slim_moa_a100', '--card', 'A100-80GB'])\n"
        "assert found.exit_code == 0, found.output\n"
        "assert 'ray' not in sys.modules\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_models_are_listed_with_what_they_do_and_where_their_weights_are() -> None:
    found = call("models", "tiny_cpu")
    assert found.exit_code == 0
    rows = {line.split()[0]: line for line in found.output.splitlines()[1:]}
    assert set(rows) == set(load("tiny_cpu").models)
    assert all("llamacpp" in row for row in rows.values())
    assert "491.4 MB to fetch" in rows["qwen2.5-coder-0.5b"]
    assert "aggregates" in rows[load("tiny_cpu").aggregator.model]
    assert any("proposes in layer 1" in row for row in rows.values())


def test_models_of_other_engines_need_no_weights() -> None:
    assert "none needed" in call("models", "scripted").output
    assert "http" in call("models", "remote").output


def test_models_of_an_unknown_recipe_have_exit_code_1() -> None:
    found = call("models", "no_such_recipe")
    assert found.exit_code == 1
    assert "no_such_recipe" in found.stderr
