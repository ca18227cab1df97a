"""A model without a chat template is named before anything starts."""

import json
import struct
from pathlib import Path

import pytest

from actors.weights.chat_templates import has_template, missing_templates
from configs.schema import LlamaCppModel, Model, Recipe, VllmModel
from configs.weights import LocalFile
from tests.unit.fake_hub import checkpoint, gguf_file

KEY = b"tokenizer.chat_template"


def with_template(text: bytes) -> bytes:
    """A GGUF file with a chat template."""
    plain = gguf_file()
    (keys,) = struct.unpack_from("<Q", plain, 16)
    entry = struct.pack("<Q", len(KEY)) + KEY + struct.pack("<IQ", 8, len(text)) + text
    body = plain[24:].rstrip(b"\0")
    out = plain[:16] + struct.pack("<Q", keys + 1) + entry + body
    return out + bytes(8 + -len(out) % 32 + 3200)


def llamacpp(file: Path) -> LlamaCppModel:
    return LlamaCppModel(engine="llamacpp", weights=(LocalFile(path=str(file)),))


def vllm(folder: Path, **more: str) -> VllmModel:
    source = {"path": str(folder)}
    return VllmModel.model_validate({"engine": "vllm", "weights": [source], **more})


def said(model: Model) -> list[str]:
    recipe = {
        "name": "r",
        "models": {"m": model.model_dump(exclude_defaults=True) | {"engine": model.engine}},
        "layers": [{"proposers": [{"model": "m"}]}],
        "aggregator": {"model": "m"},
    }
    return list(missing_templates(Recipe.model_validate(recipe)))


def test_a_gguf_file_without_a_template_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.gguf").write_bytes(gguf_file())
    model = llamacpp(tmp_path / "w.gguf")
    assert said(model) == [
        "model 'm' has no chat template and may be a base model: llama.cpp frames its messages "
        "as ChatML; take the version of the model that is made for chat (-Instruct, -it, -chat)"
    ]
    (tmp_path / "w.gguf").write_bytes(with_template(b"{{ messages }}"))
    assert has_template(model) is True
    assert said(model) == []
    (tmp_path / "w.gguf").write_bytes(b"broken")
    assert has_template(model) is None  # others say what is wrong
    (tmp_path / "w.gguf").unlink()
    assert has_template(model) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in checkpoint().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    return tmp_path


def test_a_folder_without_a_template_is_named(folder: Path) -> None:
    (line,) = said(vllm(folder))
    assert "vLLM refuses its calls; take the version" in line
    assert line.endswith("or put a chat_template.jinja beside it")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", "{{ messages }}"),
        ("chat_template.json", json.dumps({"chat_template": "{{ messages }}"})),
        ("tokenizer_config.json", json.dumps({"chat_template": "{{ messages }}"})),
        (
            "tokenizer_config.json",
            json.dumps({"chat_template": [{"name": "default", "template": "{{ messages }}"}]}),
        ),
        ("tekken.json", "{}"),
    ],
)
def test_a_folder_with_a_template_anywhere_is_not_named(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    assert said(vllm(folder)) == []


def test_what_is_not_known_is_not_said(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    assert has_template(vllm(folder)) is None
    assert has_template(vllm(folder, load_format="dummy")) is None
    assert has_template(vllm(folder / "none")) is None
