"""`check`, `models` and `plan` say which sampling a checkpoint gives."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from cli.shown_sampling import shown_samplings
from configs.schema import Recipe


def recipe(folder: Path) -> dict[str, Any]:
    (folder / "config.json").write_text("{}")
    server = {"engine": "openai_http", "base_url": "http://here/v1", "model": "m"}
    return {
        "name": "mix",
        "models": {
            "vllm": {"engine": "vllm", "weights": [{"path": str(folder)}], "load_format": "dummy"},
            "gguf": {"engine": "llamacpp", "weights": [{"path": str(folder / "none.gguf")}]},
            "far": server | {"sampling": {"top_k": 40}},
            "plain": server,
        },
        "layers": [
            {
                "proposers": [
                    {"model": "vllm", "sampling": "checkpoint"},
                    {"model": "gguf", "sampling": "checkpoint"},
                    {"model": "far", "sampling": {"temperature": 1}},
                    {"model": "plain", "sampling": "checkpoint"},
                    {"model": "plain", "sampling": {"temperature": 0.5}},
                ]
            }
        ],
        "aggregator": {"model": "vllm", "sampling": {"base": "checkpoint", "temperature": 0.3}},
    }


def test_each_value_is_shown_with_its_origin(tmp_path: Path) -> None:
    advice = {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
    data = recipe(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(advice))
    assert list(shown_samplings(Recipe.model_validate(data))) == [
        "sampling of vllm, layer 1: temperature 0.6 (checkpoint), top_p 0.95 (checkpoint), "
        "top_k 20 (checkpoint)",
        "sampling of gguf, layer 1: what its makers advise is known once its weights are here",
        "sampling of far, layer 1: temperature 1, top_k 40 (model)",
        "sampling of plain, layer 1: the server's own defaults hold for all else",
        "sampling of vllm, aggregator: temperature 0.3, top_p 0.95 (checkpoint), top_k 20 (checkpoint)",
    ]


def test_a_checkpoint_that_advises_nothing_is_said(tmp_path: Path) -> None:
    lines = list(shown_samplings(Recipe.model_validate(recipe(tmp_path))))
    nothing = "its checkpoint advises nothing; our defaults hold for all else"
    assert lines[0] == f"sampling of vllm, layer 1: {nothing}"
    assert lines[-1] == f"sampling of vllm, aggregator: temperature 0.3; {nothing}"


@pytest.mark.parametrize("command", ["check", "models"])
def test_commands_show_it_and_tell_a_broken_file_in_one_line(tmp_path: Path, command: str) -> None:
    data = recipe(tmp_path)
    del data["models"]["gguf"]
    del data["layers"][0]["proposers"][1]
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(data))
    advice = tmp_path / "generation_config.json"
    advice.write_text('{"top_k": 20}')
    shown = CliRunner().invoke(app, [command, str(file)])
    assert "sampling of vllm, layer 1: top_k 20 (checkpoint)" in shown.output
    advice.write_text('{"top_p": 7}')
    refused = CliRunner().invoke(app, [command, str(file)])
    assert refused.exit_code == 1
    assert "advises top_p 7.0, which cannot be" in " ".join(refused.output.split())
    assert "Traceback" not in refused.output
